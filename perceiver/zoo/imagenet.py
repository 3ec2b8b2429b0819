"""Perceiver IO on ImageNet (arXiv 2107.14795, section 4.4, appendix A): Fourier positions, learned ones, convolutions.

Top-1 accuracy of the released weights, as the paper reports it: 79.0 %, 72.7 %, 82.1 %. Pictures are cropped to a
central square of 224 / 256 of the shorter side, resized to 224 x 224 and normalised by ImageNet's mean and deviation.
"""

from collections.abc import Callable
from typing import Any

from perceiver.adapters.image import Image
from perceiver.attention import Block
from perceiver.convolutions import ConvStem, Padding
from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import Classes
from perceiver.encoder import Encoder
from perceiver.io.images import Fit
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.positions import Fourier, Learned, Position, Projected
from perceiver.zoo import haiku, huggingface
from perceiver.zoo.families import Family, HubConfig, asks, labels
from perceiver.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Processor, framed_size, framing, preprocessor_json
from perceiver.zoo.tables import CONV, COUNT, Row, haiku_linear, patches, row, torch_linear

IMAGENET: dict[str, Any] = {"fit": Fit.CENTRAL, "crop": 224 / 256, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
SIZE = 224
BANDS = 64
LEARNED = 256
STEM_MAP = 56
"""Rows and columns behind the convolutions, which the third model's Fourier features are made for."""


def imagenet_fourier(classes: int = 1000) -> PerceiverConfig:
    """Every pixel with 64 Fourier bands an axis: 48,440,627 parameters for 1,000 classes."""
    image = Image((SIZE, SIZE, 3), position=_fourier(SIZE), **IMAGENET)
    return _classifier(image, _encoder(), Classes(classes))


def imagenet_learned(classes: int = 1000) -> PerceiverConfig:
    """Every pixel, projected to 256 channels, with a learned position of 256: 62,255,848 parameters."""
    position = Projected(Learned(LEARNED), LEARNED)
    image = Image((SIZE, SIZE, 3), project=LEARNED, position=position, **IMAGENET)
    return _classifier(image, _encoder(), Classes(classes), residual=False)


def imagenet_conv(classes: int = 1000) -> PerceiverConfig:
    """A convolution and pooling down to 56 x 56, with 64 Fourier bands an axis: 48,646,522 parameters."""
    image = Image((SIZE, SIZE, 3), stem=ConvStem(64), position=_fourier(STEM_MAP), **IMAGENET)
    return _classifier(image, _encoder(), Classes(classes))


def haiku_rows(config: PerceiverConfig) -> list[Row]:
    """DeepMind's names."""
    decoder = "classification_decoder/~/basic_decoder"
    rows = haiku.preprocessor(config.inputs["image"], "image_preprocessor", "image")
    rows += haiku.encoder(config.encoder)
    rows += haiku.cross(f"{decoder}/cross_attention", "decoders.label.cross")
    return [*rows, haiku.slots(decoder, "label"), *haiku_linear(f"{decoder}/output", "decoders.label.head.linear")]


def _fourier(side: int) -> Fourier:
    return Fourier(BANDS, (float(side), float(side)))


def _encoder() -> Encoder:
    return Encoder(512, 1024, depth=6, cross=Block(heads=1), latent=Block(heads=8), towers=(0,) * 8)


def _classifier(image: Image, encoder: Encoder, head: Classes, residual: bool = True) -> PerceiverConfig:
    output = Output(head, cross=Block(heads=1, residual=residual))
    return PerceiverConfig({"image": image}, encoder, {"label": output})


# --- Hugging Face -------------------------------------------------------------------------------------------------


def _hub_classifier(hub: HubConfig, position: Position, size: int, **image: Any) -> PerceiverConfig:
    fields, shape = IMAGENET, (size, size)
    if hub.preprocessor is not None:
        fields = framing(hub.preprocessor, Processor.PERCEIVER)
        shape = framed_size(hub.preprocessor, Processor.PERCEIVER)
    names = hub.names
    head = Classes(len(names) or hub.get("num_labels", int, 2), names)
    output = Output(head, cross=huggingface.decoder(hub, hub.get("d_latents", int, 1280), residual=True))
    adapter = Image((*shape, 3), position=position, **image, **fields)
    return PerceiverConfig({"image": adapter}, huggingface.encoder(hub), {"label": output})


def _from_fourier(hub: HubConfig) -> PerceiverConfig:
    return _hub_classifier(hub, _fourier(SIZE), SIZE)


def _from_learned(hub: HubConfig) -> PerceiverConfig:
    size = hub.get("image_size", int, 56)
    return _hub_classifier(hub, Projected(Learned(LEARNED), LEARNED), size, project=LEARNED)


def _from_conv(hub: HubConfig) -> PerceiverConfig:
    return _hub_classifier(hub, _fourier(STEM_MAP), SIZE, stem=ConvStem(64, padding=Padding.SYMMETRIC))


def _rows(config: PerceiverConfig) -> list[Row]:
    image = config.inputs["image"]
    assert isinstance(image, Image)
    theirs, ours = "perceiver.input_preprocessor", "adapters.image"
    rows = huggingface.encoder_rows(config.encoder) + huggingface.classifier_rows("label")
    if image.project is not None:
        rows.append(
            row(f"{theirs}.convnet_1x1.weight", f"{ours}.embed.project.kernel", patches((1, 1), image.shape[2]))
        )
        rows.append(row(f"{theirs}.convnet_1x1.bias", f"{ours}.embed.project.bias"))
        position = f"{ours}.embed.position"
        rows.append(row(f"{theirs}.position_embeddings.position_embeddings", f"{position}.position.table"))
        rows += torch_linear(f"{theirs}.positions_projection", f"{position}.linear")
    if image.stem is not None:
        norm, kept = f"{theirs}.convnet.batchnorm", f"{ours}.stem.norms.0"
        rows.append(row(f"{theirs}.convnet.conv.weight", f"{ours}.stem.convolutions.0.kernel", CONV))
        rows += [row(f"{norm}.weight", f"{kept}.scale"), row(f"{norm}.bias", f"{kept}.bias")]
        for theirs_too, statistic in (("running_mean", "mean"), ("running_var", "variance")):
            rows.append(row(f"{norm}.{theirs_too}", f"{kept}.{statistic}.hidden"))
            rows.append(row(f"{norm}.{theirs_too}", f"{kept}.{statistic}.value"))
            rows.append(row(f"{norm}.num_batches_tracked", f"{kept}.{statistic}.count", COUNT))
    return rows


def _hub_config(config: PerceiverConfig) -> dict[str, Any]:
    image, head = config.inputs["image"], config.outputs["label"].head
    assert isinstance(image, Image)
    assert isinstance(head, Classes)
    fields = huggingface.hub_encoder(config.encoder, config.token_channels)
    return fields | {"image_size": image.shape[0]} | labels(head.names, head.count)


def _host_files(config: PerceiverConfig) -> dict[str, Any]:
    image = config.inputs["image"]
    assert isinstance(image, Image)
    return {"preprocessor_config.json": preprocessor_json(image, Processor.PERCEIVER)}


def _is(project: bool, stem: bool) -> Callable[[ModelConfig], bool]:
    """Whether a config is the classifier whose pixels are projected, or convolved, or neither."""

    def fits(config: ModelConfig) -> bool:
        image = config.inputs["image"] if _FITS(config) else None  # type: ignore[attr-defined]
        return isinstance(image, Image) and (image.project is not None, image.stem is not None) == (project, stem)

    return fits


_FITS = asks({"image": Image}, label=Classes)

FAMILIES = [
    Family(
        f"PerceiverForImageClassification{name}", _is(project, stem), read, _rows, _hub_config, host_files=_host_files
    )
    for name, project, stem, read in (
        ("Fourier", False, False, _from_fourier),
        ("Learned", True, False, _from_learned),
        ("ConvProcessing", False, True, _from_conv),
    )
]
