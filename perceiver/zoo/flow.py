"""Perceiver IO for optical flow (arXiv 2107.14795, section 4.2 and appendix H).

Two frames of 368 x 496, each pixel with its 3 x 3 surroundings in both; the queries are the inputs themselves. The
answer is the flow in pixels, to the right and downwards: the network's output is divided by 100 and multiplied by 20.
Other frame sizes go through `perceiver.flow.tiled_flow`. End-point errors of the released weights, as the paper reports
them: Sintel clean 1.81, final 2.42, KITTI 4.98.
"""

from typing import Any

from perceiver.adapters.frames import FramePair
from perceiver.attention import Block
from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import Flow
from perceiver.decoders.queries import FromTokens
from perceiver.encoder import Encoder
from perceiver.errors import ConfigError
from perceiver.model import PerceiverConfig
from perceiver.positions import Fourier
from perceiver.zoo import haiku, huggingface
from perceiver.zoo.families import Family, HubConfig, asks
from perceiver.zoo.tables import Row, haiku_linear, torch_linear

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation that bring pixels to [-1, 1]."""


def flow(height: int = 368, width: int = 496) -> PerceiverConfig:
    """The optical-flow model."""
    encoder = Encoder(2048, 512, depth=24, cross=Block(heads=1), latent=Block(heads=16))
    return _flow((height, width), encoder, Block(heads=1, residual=False))


def haiku_rows(config: PerceiverConfig) -> list[Row]:
    """DeepMind's names."""
    decoder = "flow_decoder/~/basic_decoder"
    rows = haiku.preprocessor(config.inputs["frames"], "image_preprocessor", "frames")
    rows += haiku.encoder(config.encoder)
    rows += haiku.cross(f"{decoder}/cross_attention", "decoders.flow.cross")
    return rows + haiku_linear(f"{decoder}/output", "decoders.flow.head.linear")


def _flow(size: tuple[int, int], encoder: Encoder, cross: Block) -> PerceiverConfig:
    height, width = size
    position = Fourier(64, (float(height), float(width)))
    frames = FramePair((height, width, 3), position=position, mean=HALF, std=HALF)
    output = Output(Flow(), FromTokens("frames", cells=size), cross)
    return PerceiverConfig({"frames": frames}, encoder, {"flow": output})


# --- Hugging Face -------------------------------------------------------------------------------------------------


def _from_hub(hub: HubConfig) -> PerceiverConfig:
    size = hub.get("train_size", list, [368, 496])
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ConfigError(f"config.json: train_size: expected a height and a width, got {size!r:.60}")
    config = _flow((size[0], size[1]), huggingface.encoder(hub), Block())
    cross = huggingface.decoder(hub, config.token_channels, residual=False)
    return _flow((size[0], size[1]), config.encoder, cross)


def _rows(config: PerceiverConfig) -> list[Row]:
    decoder = "perceiver.decoder.decoder"
    rows = huggingface.encoder_rows(config.encoder)
    rows += torch_linear("perceiver.input_preprocessor.conv_after_patches", "adapters.frames.embed.project")
    rows += huggingface.cross_rows(f"{decoder}.decoding_cross_attention", "decoders.flow.cross")
    return rows + torch_linear(f"{decoder}.final_layer", "decoders.flow.head.linear")


def _hub_config(config: PerceiverConfig) -> dict[str, Any]:
    frames = config.inputs["frames"]
    assert isinstance(frames, FramePair)
    fields = huggingface.hub_encoder(config.encoder, config.token_channels)
    return fields | {"train_size": list(frames.shape[:2])}


FAMILIES = [
    Family("PerceiverForOpticalFlow", asks({"frames": FramePair}, flow=Flow), _from_hub, _rows, _hub_config),
]
