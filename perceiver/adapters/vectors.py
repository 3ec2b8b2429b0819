"""Vectors that were computed elsewhere, taken as tokens as they are."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter, host_array, pad_to
from perceiver.errors import ConfigError, InputError
from perceiver.io.files import existing_file, refusing
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class Vectors(Adapter):
    """Vectors [b, n, width], such as the features of another network; positions are the caller's.

    count: the most vectors of a sample. Mask: [b] for presence or [b, n].
    """

    count: int
    width: int

    def __post_init__(self) -> None:
        if min(self.count, self.width) < 1:
            raise ConfigError(f"Vectors needs a count and width of at least 1, got {self.count} and {self.width}")

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.count

    @property
    def channels(self) -> int:
        """See Adapter."""
        return self.width

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "VectorTokens":
        """See Adapter."""
        return VectorTokens(self, dtype=dtype)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, self.count, self.width), jnp.float32)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Read an .npy file, or take an array [n, width], padded to the budget; mask [n]."""
        if isinstance(source, str | os.PathLike):
            file = existing_file(source)
            with refusing("an .npy file without pickled objects"):
                vectors = np.load(file, allow_pickle=False)
        else:
            vectors = host_array(source)
        check_array(vectors, ("n", self.width))
        if len(vectors) > self.count:
            raise InputError(f"expected at most {self.count} vectors, got {len(vectors)}")
        if not np.isfinite(vectors).all():
            raise InputError(f"expected finite numbers, got {vectors[~np.isfinite(vectors)][0]}")
        return pad_to(vectors.astype(np.float32), self.count), np.arange(self.count) < len(vectors)


class VectorTokens(nnx.Module):
    """See Vectors."""

    def __init__(self, config: Vectors, *, dtype: jnp.dtype):
        self.config = config
        self.dtype = dtype

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, n, width] -> Tokens [b, n, width]."""
        check_array(raw, ("b", "n", self.config.width))
        if raw.shape[1] > self.config.count:
            raise InputError(f"expected at most {self.config.count} vectors, got {raw.shape[1]}")
        return Tokens(jnp.asarray(raw, self.dtype), presence(mask, *raw.shape[:2])).cleared()
