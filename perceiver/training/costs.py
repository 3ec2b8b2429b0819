"""What a compiled step costs: FLOPs as its program says them, memory as its compiler does, and the device's peak."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

REPEATS = 8
"""Matrix products that the peak is the best of."""


@dataclass(frozen=True)
class Program:
    """One compiled function, and what it costs.

    seconds: of tracing and compiling. flops: of one call, over all devices. memory: bytes on one device that a call
    needs, arguments and answers included; 0 where the compiler does not say.
    """

    call: Callable[..., Any]
    seconds: float
    flops: int
    memory: int


def compiled(function: Any, *arguments: Any) -> Program:
    """A jitted function, traced and compiled for arguments of these shapes and devices."""
    started = time.perf_counter()
    traced = function.trace(*arguments)
    program = traced.lower().compile()
    return Program(program, time.perf_counter() - started, matrix_flops(traced.jaxpr.jaxpr), _memory(program))


def _memory(program: Any) -> int:
    stats = program.memory_analysis()
    if stats is None:
        return 0
    given_away = stats.alias_size_in_bytes
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes - given_away
    return int(held + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes)


def matrix_flops(jaxpr: Jaxpr) -> int:
    """FLOPs of a program's matrix products and convolutions, a multiplication with its addition as two.

    What XLA's own analysis does not do: a loop's body counts as often as it runs (a `while` of unknown length once), so
    that scanned layers all count. Of branches the dearest counts. What is computed again for the gradients counts
    again. Elementwise work is left out.
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    shapes: list[Any] = [getattr(variable.aval, "shape", ()) for variable in (*equation.invars, *equation.outvars)]
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        out_features = parameters["dimension_numbers"].rhs_spec[0]
        return 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) // shapes[1][out_features]
    if name.startswith("dot_product_attention"):  # cuDNN's, [b, n, h, c]: 2 products, or the 5 of its gradients
        batch, queries, heads, width = shapes[0]
        return 2 * batch * heads * queries * shapes[1][1] * width * (2 if "fwd" in name else 5)
    inner = [matrix_flops(program) for program in _inside(parameters)]
    if name == "cond":
        return max(inner, default=0)
    times = 1
    if name == "scan":
        times = parameters["length"]
    elif name == "pallas_call":
        times = math.prod(parameters["grid_mapping"].grid)
    elif name == "shard_map":
        # The program is that of one device, along the axes that are taken into hand.
        times = math.prod(parameters["mesh"].shape[axis] for axis in parameters["newly_manual_axes"])
    return times * sum(inner)


def _inside(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs that an equation's parameters hold."""
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            program = getattr(each, "jaxpr", each)
            if isinstance(program, Jaxpr):
                yield program


@functools.cache
def matmul_peak(dtype: str) -> float:
    """FLOP/s of the first device in a large matrix product, measured once in this process: the best of a few."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    best = math.inf
    for _ in range(REPEATS):
        started = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def memory_peaks() -> dict[str, float]:
    """Bytes that were taken at most so far: `process` on the host, `device` on the first one where it says so."""
    peaks = {}
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        peaks["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        peaks["device"] = float(stats["peak_bytes_in_use"])
    return peaks
