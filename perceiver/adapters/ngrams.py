"""What runs of bytes mean, without a tokenizer: an embedding of each run's hash, added to that of its last byte.

Source: hash n-gram embeddings of the Byte Latent Transformer (arXiv 2412.09871, section 3.2.1); the hashing trick for
runs of letters is fastText's (arXiv 1607.04606).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.errors import ConfigError
from perceiver.typing import Array, Float, Int

_PRIME = 0x9E3779B1
"""2^32 over the golden ratio, odd: multiplying by it spreads neighbouring numbers (Knuth, TAOCP 3, 6.4)."""


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """Embeddings of runs of `sizes` ids, in one table of `buckets` rows that runs share by their hash.

    scale: standard deviation of the table at the start.
    """

    sizes: tuple[int, ...] = (3, 4, 5, 6)
    buckets: int = 16384
    scale: float = 0.02

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2:
            raise ConfigError(f"Ngrams.sizes: expected lengths of at least 2, got {self.sizes}")
        if self.buckets < 2:
            raise ConfigError(f"Ngrams.buckets: expected at least 2, got {self.buckets}")

    def build(self, width: int, *, rngs: nnx.Rngs) -> "NgramTable":
        """The module, for tokens of that width."""
        return NgramTable(self, width, rngs=rngs)


class NgramTable(nnx.Module):
    """See Ngrams."""

    def __init__(self, config: Ngrams, width: int, *, rngs: nnx.Rngs):
        self.config = config
        initial = nnx.initializers.truncated_normal(config.scale)
        self.table = nnx.Param(initial(rngs.params(), (config.buckets, width), jnp.float32))

    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b n c"]:
        """The sum over sizes of the embedding of the run that ends at each place; before a text lies padding."""
        table = self.table[...]
        rows = [jnp.take(table, hashed(ids, size, self.config.buckets), axis=0) for size in self.config.sizes]
        return functools.reduce(jnp.add, rows)


def hashed(ids: Int[Array, "b n"], size: int, buckets: int) -> Int[Array, "b n"]:
    """Bucket of the run of `size` ids that ends at each place, int32 in [0, buckets)."""
    words = jnp.pad(ids.astype(jnp.uint32), ((0, 0), (size - 1, 0)))
    count = ids.shape[1]
    hashes = jnp.full(ids.shape, np.uint32(size), jnp.uint32)
    for start in range(size):
        hashes = (hashes ^ words[:, start : start + count]) * jnp.uint32(_PRIME)
        hashes = hashes ^ (hashes >> 15)
    return jax.lax.convert_element_type(hashes % jnp.uint32(buckets), jnp.int32)
