"""What runs of bytes and words mean, without a tokenizer: an embedding of each one's hash, added to its last byte's.

Source: hash n-gram embeddings of the Byte Latent Transformer (arXiv 2412.09871, section 3.2.1); the hashing trick for
runs of letters is fastText's (arXiv 1607.04606).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.vocabulary import SPECIALS
from perceiver.errors import ConfigError
from perceiver.typing import Array, Bool, Float, Int

_PRIME = 0x9E3779B1
"""2^32 over the golden ratio, odd: multiplying by it spreads neighbouring numbers (Knuth, TAOCP 3, 6.4)."""


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """Embeddings of runs of `sizes` ids, in one table of `buckets` rows that runs share by their hash.

    scale: standard deviation of the table at the start. words: whole words have embeddings too, whatever their length,
    large and small ASCII letters alike. A word is of letters, digits and all bytes that are not ASCII.
    """

    sizes: tuple[int, ...] = (3, 4, 5, 6)
    buckets: int = 16384
    scale: float = 0.02
    words: bool = False

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
        """The sum of the embeddings of the runs and of the word that end at each place; before a text lies padding."""
        table, buckets = self.table[...], self.config.buckets
        rows = [jnp.take(table, hashed(ids, size, buckets), axis=0) for size in self.config.sizes]
        if self.config.words:
            word, ends = hashed_words(ids, buckets)
            rows.append(jnp.where(ends[..., None], jnp.take(table, word, axis=0), 0.0))
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


def hashed_words(ids: Int[Array, "b n"], buckets: int) -> tuple[Int[Array, "b n"], Bool[Array, "b n"]]:
    """Bucket of what there is of a word up to each place, int32 in [0, buckets); and whether it ends there.

    ids: of the byte vocabulary.
    """
    byte = ids.astype(jnp.int32) - SPECIALS
    byte = jnp.where((byte >= ord("A")) & (byte <= ord("Z")), byte + ord("a") - ord("A"), byte)
    small, digit = (byte >= ord("a")) & (byte <= ord("z")), (byte >= ord("0")) & (byte <= ord("9"))
    inside = small | digit | (byte >= 128)
    # hash <- hash * factor + term, which anything but a letter sets to 0: such steps can be put together in any order.
    factors = jnp.where(inside, jnp.uint32(_PRIME), 0).astype(jnp.uint32)
    terms = jnp.where(inside, byte + 1, 0).astype(jnp.uint32)
    _, hashes = jax.lax.associative_scan(_then, (factors, terms), axis=1)
    hashes = (hashes ^ (hashes >> 15)) * jnp.uint32(_PRIME)
    hashes = hashes ^ (hashes >> 13)
    behind = jnp.pad(inside[:, 1:], ((0, 0), (0, 1)))
    return jax.lax.convert_element_type(hashes % jnp.uint32(buckets), jnp.int32), inside & ~behind


def _then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    return first[0] * second[0], first[1] * second[0] + second[1]
