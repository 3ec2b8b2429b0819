"""A class label as an input: one token, one channel a class."""

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter
from perceiver.config import preprocessing_field, suggestion
from perceiver.errors import ConfigError, InputError
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class Label(Adapter):
    """Class numbers [b] int, or weights of the classes [b, count] floating point.

    Perceiver IO's autoencoder (arXiv 2107.14795, section 4.3) takes the label as a third modality; hidden behind its
    mask token (`PerceiverConfig.mask_rates`), it becomes a question instead.
    count: number of classes. names: what they are called; empty for none. Mask: [b] for presence.
    """

    count: int
    names: tuple[str, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        if self.count < 2 or len(self.names) not in (0, self.count):
            raise ConfigError(
                f"Label: expected at least 2 classes and as many names, got {self.count}, {len(self.names)}"
            )

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return 1

    @property
    def channels(self) -> int:
        """See Adapter."""
        return self.count

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "LabelTokens":
        """See Adapter."""
        return LabelTokens(self, dtype=dtype)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch,), jnp.int32)

    def load(self, source: Any) -> tuple[np.ndarray, None]:
        """Take a class by its number or its name; int32 []."""
        if isinstance(source, str) and source in self.names:
            return np.asarray(self.names.index(source), np.int32), None
        try:
            number = int(source) if isinstance(source, str) else operator.index(source)
        except (TypeError, ValueError):
            raise InputError(f"expected a class, got {source!r:.60}; {suggestion(str(source), self.names)}") from None
        if not 0 <= number < self.count:
            raise InputError(f"expected a class number below {self.count}, got {number}")
        return np.asarray(number, np.int32), None


class LabelTokens(nnx.Module):
    """See Label."""

    def __init__(self, config: Label, *, dtype: jnp.dtype):
        self.config = config
        self.dtype = dtype

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b] or [b, count] -> Tokens [b, 1, count]."""
        if raw.ndim == 1:
            check_array(raw, ("b",), "iu")
            weights = jax.nn.one_hot(raw, self.config.count, dtype=self.dtype)
        else:
            check_array(raw, ("b", self.config.count))
            weights = jnp.asarray(raw, self.dtype)
        return Tokens(weights[:, None], presence(mask, raw.shape[0], 1)).cleared()
