"""Array aliases. Axis letters: b batch, n tokens, c channels, h heads, d head width, q queries, k keys, t time."""

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt

Raw: TypeAlias = Any
"""One modality as the adapter takes it: an array of the shape that the adapter's config documents."""

ArrayLike: TypeAlias = jax.Array | np.ndarray

__all__ = ["Array", "ArrayLike", "Bool", "Float", "Int", "Raw", "Shaped", "UInt"]
