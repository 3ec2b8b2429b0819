"""Models of towers: an image classifier (ViT), and pictures and texts in one space (CLIP, SigLIP)."""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import split_key
from perceiver.decoders.heads import Classes
from perceiver.errors import ConfigError, InputError, naming
from perceiver.model import Compute, Model, ModelConfig
from perceiver.quantised import Weights
from perceiver.tokens import check_array
from perceiver.towers import TextTower, VisionTower
from perceiver.typing import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class ImageClassifierConfig(ModelConfig):
    """A vision tower and one linear map to classes (ViT, arXiv 2010.11929).

    image: the tower. classes: how many, and their names. compute: dtype of the computation. weights: how parameters
    are stored.
    """

    image: VisionTower
    classes: Classes
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def initial(self, key: jax.Array) -> "VisionClassifier":
        """See ModelConfig."""
        return VisionClassifier(self, nnx.Rngs(key))


class VisionClassifier(Model):
    """See ImageClassifierConfig."""

    def __init__(self, config: ImageClassifierConfig, rngs: nnx.Rngs):
        dtype = config.compute.dtype
        self.config = config
        self.image = config.image.build(dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(config.image.channels, config.classes.count, dtype=dtype, rngs=rngs)

    def __call__(self, pixels: Float[Array, "b h w c"], *, key: jax.Array | None = None) -> Float[Array, "b classes"]:
        """Pictures, uint8 or floating point in [0, 1], to logits, float32. key: for dropout in training.

        Raises:
            InputError: another shape or dtype.
        """
        with naming("pixels"):
            return self.head(self.image(pixels, key=key)).astype(jnp.float32)


class Contrast(abc.ABC):
    """How the similarity of a picture and a text, in [-1, 1], becomes a logit, and logits become probabilities."""

    log_scale: float

    @abc.abstractmethod
    def probabilities(self, logits: Float[Array, "i t"]) -> Float[Array, "i t"]:
        """Of each text (column) for each picture (row)."""


@dataclasses.dataclass(frozen=True)
class SoftmaxContrast(Contrast):
    """Exactly one of the texts fits (CLIP, arXiv 2103.00020).

    log_scale: logarithm of the trained factor at the start.
    """

    log_scale: float = 2.6592

    def probabilities(self, logits: Float[Array, "i t"]) -> Float[Array, "i t"]:
        """See Contrast."""
        return jax.nn.softmax(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class SigmoidContrast(Contrast):
    """Each text fits or not, whatever the others (SigLIP, arXiv 2303.15343).

    log_scale: as for SoftmaxContrast. bias: the trained offset at the start.
    """

    log_scale: float = 2.3026
    bias: float = -10.0

    def probabilities(self, logits: Float[Array, "i t"]) -> Float[Array, "i t"]:
        """See Contrast."""
        return jax.nn.sigmoid(logits)


@dataclasses.dataclass(frozen=True)
class Projection:
    """A linear map from a tower to the joint space. channels: width of that space."""

    channels: int
    bias: bool = False

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ConfigError(f"Projection.channels must be at least 1, got {self.channels}")


@dataclasses.dataclass(frozen=True)
class DualEncoderConfig(ModelConfig):
    """A vision tower and a text tower whose answers are compared: CLIP (arXiv 2103.00020), SigLIP (2303.15343).

    image, text: the towers. image_projection, text_projection: from each into the joint space; None takes a tower's
    answer as it is. contrast: how similarities are read. compute: dtype of the computation. weights: how parameters
    are stored.
    """

    image: VisionTower
    text: TextTower
    image_projection: Projection | None = None
    text_projection: Projection | None = None
    contrast: Contrast = SoftmaxContrast()
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def __post_init__(self) -> None:
        image = self.image.channels if self.image_projection is None else self.image_projection.channels
        text = self.text.channels if self.text_projection is None else self.text_projection.channels
        if image != text:
            raise ConfigError(f"DualEncoderConfig: pictures come with {image} channels, texts with {text}")

    @property
    def channels(self) -> int:
        """Width of the joint space."""
        return self.image.channels if self.image_projection is None else self.image_projection.channels

    def initial(self, key: jax.Array) -> "DualEncoder":
        """See ModelConfig."""
        return DualEncoder(self, nnx.Rngs(key))


class DualEncoder(Model):
    """See DualEncoderConfig. Embeddings are float32 of Euclidean length 1."""

    def __init__(self, config: DualEncoderConfig, rngs: nnx.Rngs):
        dtype, contrast = config.compute.dtype, config.contrast
        self.config = config
        self.image = config.image.build(dtype=dtype, rngs=rngs)
        self.text = config.text.build(dtype=dtype, rngs=rngs)
        self.image_projection = _linear(config.image.channels, config.image_projection, dtype=dtype, rngs=rngs)
        self.text_projection = _linear(config.text.channels, config.text_projection, dtype=dtype, rngs=rngs)
        self.log_scale = nnx.Param(jnp.asarray(contrast.log_scale, jnp.float32))
        bias = contrast.bias if isinstance(contrast, SigmoidContrast) else None
        self.bias = None if bias is None else nnx.Param(jnp.asarray(bias, jnp.float32))

    def __call__(
        self,
        pixels: Float[Array, "i h w c"],
        ids: Int[Array, "t n"],
        mask: Bool[Array, "t n"] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> dict[str, Array]:
        """Pictures and texts, not necessarily as many, to {"image": [i, d], "text": [t, d], "logits": [i, t]}.

        pixels, ids, mask: see `embed_image` and `embed_text`. key: randomness for dropout in training; None for
        evaluation. All float32.
        """
        image_key, text_key = split_key(key, 2)
        image, text = self.embed_image(pixels, key=image_key), self.embed_text(ids, mask, key=text_key)
        return {"image": image, "text": text, "logits": self.logits(image, text)}

    def embed_image(self, pixels: Float[Array, "i h w c"], *, key: jax.Array | None = None) -> Float[Array, "i d"]:
        """Pictures, uint8 or floating point in [0, 1], to embeddings.

        Raises:
            InputError: another shape or dtype.
        """
        with naming("pixels"):
            return _unit(_projected(self.image(pixels, key=key), self.image_projection))

    def embed_text(
        self, ids: Int[Array, "t n"], mask: Bool[Array, "t n"] | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, "t d"]:
        """Token ids to embeddings. mask: True = real; None shows all, which is how both models were trained.

        Raises:
            InputError: no integers [t, n], more tokens than the tower takes, or another mask than bool [t, n].
        """
        with naming("ids"):
            return _unit(_projected(self.text(ids, mask, key=key), self.text_projection))

    def logits(self, image: Float[Array, "i d"], text: Float[Array, "t d"]) -> Float[Array, "i t"]:
        """How well each text fits each picture, from their embeddings; `config.contrast` makes probabilities of it.

        Raises:
            InputError: embeddings of another width.
        """
        for name, array in (("image", image), ("text", text)):
            with naming(name):
                check_array(array, (name, self.config.channels))
        # Scales near 100 would blow up what a bfloat16 pass rounds away.
        similarity = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)
        logits = similarity * jnp.exp(self.log_scale[...])
        return logits if self.bias is None else logits + self.bias[...]

    def encode_text(self, texts: list[str]) -> Int[Array, "t n"]:
        """Strings to the ids that `embed_text` takes, int32, padded to the length that the model was trained on.

        Raises:
            InputError: the model came without a tokenizer, or one that does not belong to it.
        """
        tower = self.config.text
        if tower.prompts is None:
            raise InputError("texts: this model has no tokenizer (config.text.prompts), so give ids to embed_text")
        ids = tower.prompts.encode(texts, tower.max_length)
        if ids.size and ids.max() >= tower.vocabulary:
            raise InputError(f"texts: the tokenizer gave the id {ids.max()}, the model has {tower.vocabulary} ids")
        return jnp.asarray(ids)


def _linear(width: int, config: Projection | None, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear | None:
    if config is None:
        return None
    return nnx.Linear(width, config.channels, use_bias=config.bias, dtype=dtype, rngs=rngs)


def _projected(x: Array, linear: nnx.Linear | None) -> Array:
    return x if linear is None else linear(x)


def _unit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))
