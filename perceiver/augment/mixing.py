"""Two samples as one, with the share of each in the label."""

import math

import numpy as np

from perceiver.errors import InputError


def mixup(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, alpha: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """A weighted mean of two samples (arXiv 1710.09412): pictures, waveforms or spectrograms.

    a, b: of one shape and dtype; integers are rounded. alpha: of the symmetric Beta distribution of the weight; 0 takes
    all of `a`.

    Returns:
        The mixture, of that shape and dtype, and the weights of both labels, float32 [2], which sum to 1.

    Raises:
        InputError: two shapes or dtypes.
    """
    _check(a, b)
    share = _share(rng, alpha)
    mixed = share * a.astype(np.float64) + (1.0 - share) * b.astype(np.float64)
    if np.issubdtype(a.dtype, np.integer):
        mixed = np.rint(mixed)
    return mixed.astype(a.dtype), np.array([share, 1.0 - share], np.float32)


def cutmix(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, alpha: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """`a` with a rectangle of `b` at the same place (arXiv 1905.04899).

    a, b: pictures [h, w, c] of one shape and dtype. alpha: of the symmetric Beta distribution of the share that `a`
    keeps; 0 keeps all. The rectangle has the aspect of the picture and its middle anywhere, so that an edge may cut it.

    Returns:
        The picture, and the weights of both labels by the pixels that each has, float32 [2], which sum to 1.

    Raises:
        InputError: two shapes or dtypes.
    """
    _check(a, b)
    height, width = a.shape[:2]
    side = np.sqrt(1.0 - _share(rng, alpha))
    rows, columns = round(height * side), round(width * side)
    top, left = rng.integers(height) - rows // 2, rng.integers(width) - columns // 2
    place = np.s_[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)]
    mixed = a.copy()
    mixed[place] = b[place]
    taken = math.prod(mixed[place].shape[:2]) / (height * width)
    return mixed, np.array([1.0 - taken, taken], np.float32)


def _share(rng: np.random.Generator, alpha: float) -> float:
    return float(rng.beta(alpha, alpha)) if alpha > 0 else 1.0


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise InputError(f"expected two samples alike, got {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
