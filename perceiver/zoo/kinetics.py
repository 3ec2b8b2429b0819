"""Perceiver IO as an autoencoder of Kinetics-700 clips with sound and label (arXiv 2107.14795, appendix G).

16 frames of 224 x 224, 30,720 samples at 48 kHz and one of 700 classes go through 784 latents and come back. In
evaluation the label is hidden behind its mask token, which makes the model a classifier. A whole clip is 802,816 pixels
and 1,920 runs of samples to ask for: the outputs decode them in chunks from one encoding.
"""

from collections.abc import Sequence
from typing import Any

from perceiver.adapters.audio import Waveform
from perceiver.adapters.label import Label
from perceiver.adapters.video import Video
from perceiver.attention import Block
from perceiver.decoders.decoder import Output, Trunk
from perceiver.decoders.heads import Classes, Dense, SoundPatches
from perceiver.decoders.queries import Grid, Slots
from perceiver.encoder import Encoder
from perceiver.errors import ConfigError
from perceiver.io.images import Fit
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.positions import Fourier
from perceiver.zoo import haiku, huggingface
from perceiver.zoo.families import Family, HubConfig, asks, labels
from perceiver.zoo.tables import UNBATCHED, Row, haiku_linear, row, torch_linear

SAMPLE_RATE = 48_000
PATCH = 4
CHUNK = 6272
"""Queries decoded at once: 1/128 of a clip's pixels, as in the release."""
NAMES = ("audio", "image", "label")


def kinetics(names: tuple[str, ...] = (), classes: int = 700) -> PerceiverConfig:
    """The autoencoder."""
    encoder = Encoder(28 * 28, 512, depth=8, cross=Block(heads=1), latent=Block(heads=8))
    return autoencoder(
        frames=(16, 224, 224),
        samples=30_720,
        samples_per_patch=16,
        video=Fourier(32, (16.0, 56.0, 56.0)),
        audio=Fourier(192, (30_720.0,)),
        classes=Classes(classes, names),
        label_width=1024,
        encoder=encoder,
        trunk=(Block(heads=1, residual=False), 512),
    )


def autoencoder(
    frames: tuple[int, int, int],
    samples: int,
    samples_per_patch: int,
    video: Fourier,
    audio: Fourier,
    classes: Classes,
    label_width: int,
    encoder: Encoder,
    trunk: tuple[Block, int],
) -> PerceiverConfig:
    """The same architecture at other sizes; trunk: the decoder's cross-attend and the width behind it."""
    if min(samples, samples_per_patch) < 1 or samples % samples_per_patch:
        raise ConfigError(f"autoencoder: {samples} samples are not whole patches of {samples_per_patch}")
    image_grid = Grid(frames, video, inclusive=False)
    audio_grid = Grid((samples // samples_per_patch,), audio, inclusive=False)
    widest = max(image_grid.channels(0, {}), audio_grid.channels(0, {}), label_width)
    return PerceiverConfig(
        inputs={
            "audio": Waveform(samples, SAMPLE_RATE, samples_per_patch, position=audio),
            "image": Video((*frames, 3), (1, PATCH, PATCH), position=video, fit=Fit.CENTRAL),
            "label": Label(classes.count, classes.names),
        },
        encoder=encoder,
        outputs={
            "audio": Output(SoundPatches(samples_per_patch, SAMPLE_RATE), audio_grid, chunk=CHUNK, trunk="joint"),
            "image": Output(Dense(3), image_grid, chunk=CHUNK, trunk="joint"),
            "label": Output(classes, Slots(1, label_width), trunk="joint"),
        },
        trunks={"joint": Trunk(widest + 2, *trunk)},
        mask_rates={"audio": 0.0, "image": 0.0, "label": 1.0},
    )


def haiku_rows(config: PerceiverConfig, encoder: str = "encoder") -> list[Row]:
    """DeepMind's names. encoder: of the encoder's module."""
    trunk = "multimodal_decoder/~/basic_decoder"
    rows = haiku.encoder(config.encoder, encoder)
    for name in config.mask_rates:
        rows.append(haiku.padding(f"multimodal_preprocessor/{name}_mask_token", f"join.masks.{name}"))
    for name in NAMES:
        rows.append(haiku.padding(f"multimodal_preprocessor/{name}_padding", f"join.padding.{name}"))
        rows.append(haiku.padding(f"multimodal_decoder/~decoder_query/{name}_padding", f"decoders.{name}.padding"))
    rows += haiku.cross(f"{trunk}/cross_attention", "trunks.joint.cross")
    rows += haiku_linear(f"{trunk}/output", "trunks.joint.project")
    rows.append(haiku.slots("classification_decoder/~/basic_decoder", "label"))
    rows += haiku_linear("audio_postprocessor/linear", "decoders.audio.head.linear")
    rows += haiku_linear("projection_postprocessor/linear", "decoders.image.head.linear")
    return rows + haiku_linear("classification_postprocessor/linear", "decoders.label.head.linear")


# --- Hugging Face -------------------------------------------------------------------------------------------------


def _from_hub(hub: HubConfig) -> PerceiverConfig:
    frames, side = hub.get("num_frames", int, 16), hub.get("image_size", int, 56)
    samples = frames * hub.get("audio_samples_per_frame", int, 1920)
    shape: Sequence[Any] = hub.get("output_shape", list, [1, 16, 224, 224])
    if len(shape) != 4 or not all(isinstance(n, int) and n > 0 for n in shape) or shape[1] != frames:
        raise ConfigError(f"config.json: output_shape: expected [1, {frames}, height, width], got {shape!r:.60}")
    names = hub.names
    config = {
        "frames": tuple(shape[1:]),
        "samples": samples,
        "samples_per_patch": hub.get("samples_per_patch", int, 16),
        "video": Fourier(32, (float(frames), float(side), float(side))),
        "audio": Fourier(192, (float(samples),)),
        "classes": Classes(len(names) or hub.get("num_labels", int, 2), names),
        "label_width": hub.get("_label_trainable_num_channels", int, 1024),
        "encoder": huggingface.encoder(hub),
    }
    width = hub.get("output_num_channels", int, 512)
    queries = autoencoder(**config, trunk=(Block(), width)).trunks["joint"].channels
    return autoencoder(**config, trunk=(huggingface.decoder(hub, queries, residual=False), width))


def _rows(config: PerceiverConfig) -> list[Row]:
    decoder, post = "perceiver.decoder", "perceiver.output_postprocessor.modalities"
    rows = huggingface.encoder_rows(config.encoder)
    for name in NAMES:
        rows.append(row(f"perceiver.input_preprocessor.mask.{name}", f"join.masks.{name}", UNBATCHED))
        rows.append(row(f"perceiver.input_preprocessor.padding.{name}", f"join.padding.{name}", UNBATCHED))
        rows.append(row(f"{decoder}.padding.{name}", f"decoders.{name}.padding", UNBATCHED))
        rows += torch_linear(f"{post}.{name}.classifier", f"decoders.{name}.head.linear")
    rows += huggingface.cross_rows(f"{decoder}.decoder.decoding_cross_attention", "trunks.joint.cross")
    rows += torch_linear(f"{decoder}.decoder.final_layer", "trunks.joint.project")
    slots = f"{decoder}.modalities.label.decoder.output_position_encodings.position_embeddings"
    return [*rows, row(slots, "decoders.label.query.slots")]


def _hub_config(config: PerceiverConfig) -> dict[str, Any]:
    video, audio, label = (config.inputs[name] for name in ("image", "audio", "label"))
    output = config.outputs["label"]
    assert isinstance(video, Video)
    assert isinstance(audio, Waveform)
    assert isinstance(label, Label)
    assert isinstance(output, Output)
    assert isinstance(output.query, Slots)
    assert isinstance(video.position, Fourier)
    assert video.position.max_resolution is not None
    frames, side = int(video.position.max_resolution[0]), int(video.position.max_resolution[1])
    fields = huggingface.hub_encoder(config.encoder, config.token_channels) | {
        "num_frames": frames,
        "image_size": side,
        "audio_samples_per_frame": audio.samples // frames,
        "samples_per_patch": audio.patch,
        "output_shape": [1, *video.shape[:3]],
        "output_num_channels": config.trunks["joint"].project,
        "_label_trainable_num_channels": output.query.width,
    }
    return fields | labels(label.names, label.count)


_KINDS = asks({"audio": Waveform, "image": Video, "label": Label}, audio=SoundPatches, image=Dense, label=Classes)


def _fits(config: ModelConfig) -> bool:
    """Whether a config is the autoencoder, whose outputs share the trunk "joint"."""
    if not _KINDS(config):
        return False
    assert isinstance(config, PerceiverConfig)
    video, label = config.inputs["image"], config.outputs["label"]
    return (
        isinstance(video, Video)
        and isinstance(video.position, Fourier)
        and video.position.max_resolution is not None
        and isinstance(label, Output)
        and isinstance(label.query, Slots)
        and set(config.trunks) == {"joint"}
    )


FAMILIES = [Family("PerceiverForMultimodalAutoencoding", _fits, _from_hub, _rows, _hub_config)]
