"""What a machine can do at best: matrix products and a sum of two arrays, by whatever library a worker has.

numpy and the standard library only, for Python 3.10 on.
"""

import functools
import time
import typing

import numpy as np

SIZES = (1024, 2048, 3072)
"""Sides of the square matrices; the best of them is the peak."""
ELEMENTS = 2**26
"""Float32 numbers in an array of the triad: 256 MiB, far beyond any cache."""
REPEATS = 5
PATIENCE = 1.0
"""Seconds of one product, above which larger ones are left out: a library may emulate a dtype that a CPU lacks."""


def best(call: typing.Callable[[], typing.Any], repeats: int = REPEATS) -> float:
    """The shortest of some calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matmul(multiply: typing.Callable, convert: typing.Callable) -> float:
    """FLOP/s of the best size. convert: float32 numpy to the library's array of the wanted dtype."""
    rng = np.random.default_rng(0)
    peak = 0.0
    for size in SIZES:
        a, b = (convert(rng.standard_normal((size, size), np.float32)) for _ in range(2))
        seconds = best(functools.partial(multiply, a, b))
        peak = max(peak, 2.0 * size**3 / seconds)
        if seconds > PATIENCE:
            break
    return peak


def triad(add: typing.Callable, convert: typing.Callable) -> float:
    """Bytes a second of a + 3 b: two arrays read, one written."""
    a, b = (convert(np.ones(ELEMENTS, np.float32)) for _ in range(2))
    return 3.0 * 4 * ELEMENTS / best(lambda: add(a, b))
