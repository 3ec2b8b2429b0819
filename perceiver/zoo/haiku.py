"""How DeepMind's Haiku code names the parts of a Perceiver IO, as rows for `perceiver.zoo.tables`.

A checkpoint's parameters and states are one flat dict "module/name". Source: github.com/google-deepmind/
deepmind-research, perceiver/.
"""

from collections.abc import Sequence

from perceiver.adapters.image import Image
from perceiver.convolutions import ConvStem
from perceiver.encoder import Encoder
from perceiver.positions import Learned, Position, Projected, Refined
from perceiver.zoo.tables import CHANNELS, UNBATCHED, Row, Transform, haiku_linear, haiku_norm, row

_ATTENTION = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "out"}
_MLP = {"linear": "widen", "linear_1": "narrow"}
_POINTWISE = Transform(lambda a: a.reshape(a.shape[-2:]), lambda a: a[None, None])


def numbered(name: str, count: int) -> list[str]:
    """Haiku's names of several modules of one kind: name, name_1, name_2, ..."""
    return [name if i == 0 else f"{name}_{i}" for i in range(count)]


def cross(theirs: str, ours: str) -> list[Row]:
    """A CrossAttention."""
    rows = haiku_norm(f"{theirs}/layer_norm", f"{ours}.query_norm")
    rows += haiku_norm(f"{theirs}/layer_norm_1", f"{ours}.key_norm")
    rows += haiku_norm(f"{theirs}/layer_norm_2", f"{ours}.mlp.norm")
    return rows + _inner(theirs, ours, None)


def tower(theirs: str, ours: str, depth: int) -> list[Row]:
    """A block of SelfAttentions below `theirs`, which we keep stacked."""
    layers = numbered("self_attention", depth)
    rows = haiku_norm(f"{theirs}/{{}}/layer_norm", f"{ours}.norm", layers)
    rows += haiku_norm(f"{theirs}/{{}}/layer_norm_1", f"{ours}.mlp.norm", layers)
    return rows + _inner(f"{theirs}/{{}}", ours, layers)


def encoder(config: Encoder, theirs: str = "perceiver_encoder") -> list[Row]:
    """A PerceiverEncoder: one cross-attend, one block of self-attends."""
    rows = [row(f"{theirs}/~/trainable_position_encoding/pos_embs", "encoder.latents")]
    rows += cross(f"{theirs}/~/cross_attention", "encoder.cross.0")
    return rows + tower(f"{theirs}/~", "encoder.towers.0.layers", config.depth)


def position(config: Position, theirs: str, ours: str) -> list[Row]:
    """A position encoding that is built below the module `theirs`."""
    if isinstance(config, Refined):
        names = numbered("linear", config.layers)
        rows = position(config.position, theirs, f"{ours}.position")
        for number, name in enumerate(names):
            rows += haiku_linear(f"{theirs}/{name}", f"{ours}.linears.{number}")
        return rows
    if isinstance(config, Projected):
        rows = position(config.position, theirs, f"{ours}.position")
        return rows + haiku_linear(f"{theirs}/position_encoding_projector/linear", f"{ours}.linear")
    if isinstance(config, Learned):
        return [row(f"{theirs}/trainable_position_encoding/pos_embs", f"{ours}.table")]
    return []


def stem(config: ConvStem, theirs: str, ours: str) -> list[Row]:
    """A Conv2DDownsample, with the running averages of its batch norms."""
    rows = []
    for layer, suffix in enumerate(numbered("", config.layers)):
        rows.append(row(f"{theirs}/~/conv{suffix}/w", f"{ours}.convolutions.{layer}.kernel"))
        if not config.norm:
            continue
        norm, kept = f"{theirs}/~/batchnorm{suffix}", f"{ours}.norms.{layer}"
        rows += [row(f"{norm}/scale", f"{kept}.scale", CHANNELS), row(f"{norm}/offset", f"{kept}.bias", CHANNELS)]
        for name, statistic in (("mean_ema", "mean"), ("var_ema", "variance")):
            rows.append(row(f"{norm}/~/{name}/average", f"{kept}.{statistic}.value", CHANNELS))
            rows.append(row(f"{norm}/~/{name}/hidden", f"{kept}.{statistic}.hidden", CHANNELS))
            rows.append(row(f"{norm}/~/{name}/counter", f"{kept}.{statistic}.count"))
    return rows


def preprocessor(config, theirs: str, name: str) -> list[Row]:
    """An ImagePreprocessor or AudioPreprocessor as the input `name`: pixels, patches or convolutions, and positions.

    config: Image, Video, FramePair or Waveform.
    """
    ours = f"adapters.{name}"
    rows = position(config.position, f"{theirs}/~_build_network_inputs", f"{ours}.embed.position")
    if isinstance(config, Image) and config.stem is not None:
        rows += stem(config.stem, f"{theirs}/~/conv2_d_downsample", f"{ours}.stem")
    if config.project is None:
        return rows
    if isinstance(config, Image) and config.patch == 1:  # a 1 x 1 convolution
        rows.append(row(f"{theirs}/~/conv2_d/w", f"{ours}.embed.project.kernel", _POINTWISE))
        return [*rows, row(f"{theirs}/~/conv2_d/b", f"{ours}.embed.project.bias")]
    return rows + haiku_linear(f"{theirs}/patches_linear", f"{ours}.embed.project")


def slots(theirs: str, name: str) -> Row:
    """The trained queries of the output `name`."""
    return row(f"{theirs}/~/trainable_position_encoding/pos_embs", f"decoders.{name}.query.slots")


def padding(theirs: str, ours: str) -> Row:
    """A vector that Haiku keeps as a table of one row."""
    return row(f"{theirs}/pos_embs", ours, UNBATCHED)


def _inner(theirs: str, ours: str, layers: Sequence[str] | None) -> list[Row]:
    """The linear maps of attention and MLP."""
    rows = []
    for source, target in _ATTENTION.items():
        rows += haiku_linear(f"{theirs}/attention/{source}", f"{ours}.attention.{target}", layers)
    for source, target in _MLP.items():
        rows += haiku_linear(f"{theirs}/mlp/{source}", f"{ours}.mlp.{target}", layers)
    return rows


__all__ = [
    "cross",
    "encoder",
    "numbered",
    "padding",
    "position",
    "preprocessor",
    "slots",
    "stem",
    "tower",
]
