"""Optimisers as functions: clip, adapt, decay, schedule, accumulate; each a thin arrangement of optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx


def warmup_cosine(peak: float, steps: int, warmup: int | None = None, end: float = 0.0) -> optax.Schedule:
    """Linear warm-up over `warmup` steps, a tenth of all unless given, then half a cosine down to `end` at `steps`."""
    warmup = max(steps // 10, 1) if warmup is None else warmup
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), end)


def flat_cosine(peak: float, steps: int, flat: int, end: float = 0.0) -> optax.Schedule:
    """Constant for `flat` steps, then half a cosine (Perceiver IO's ImageNet schedule, arXiv 2107.14795 appendix)."""
    cosine = optax.cosine_decay_schedule(peak, max(steps - flat, 1), end / peak)
    return optax.join_schedules([optax.constant_schedule(peak), cosine], [flat])


def decayed(parameters: nnx.State) -> nnx.State:
    """Which parameters weight decay applies to: the kernels of linear maps; not biases, norms, latents or tables."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in _names(path), parameters)


def _names(path: tuple[Any, ...]) -> set[Any]:
    return {getattr(entry, "key", None) for entry in path}


def adamw(
    schedule: optax.Schedule | float,
    *,
    weight_decay: float = 0.05,
    b2: float = 0.98,
    clip: float = 1.0,
    accumulate: int = 1,
) -> optax.GradientTransformation:
    """AdamW with gradients clipped to a global norm.

    accumulate: average this many gradients before each update (the schedule counts updates).
    """
    core = optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decayed)
    return _around(core, clip, accumulate)


def muon(
    schedule: optax.Schedule | float,
    rest: optax.Schedule | float,
    *,
    weight_decay: float = 0.05,
    clip: float = 1.0,
    accumulate: int = 1,
) -> optax.GradientTransformation:
    """Muon: updates of the linear maps are made orthogonal, scaled to the size of Adam's (arXiv 2502.16982).

    It needs fewer steps than AdamW, which matters where a step is slow. schedule: of the linear maps. rest: of Adam's
    (with Nesterov's momentum), for everything else, answers' last maps included.
    """
    core = optax.contrib.muon(
        schedule,
        weight_decay=weight_decay,
        consistent_rms=0.2,
        adam_b2=0.98,
        adam_learning_rate=rest,
        muon_weight_dimension_numbers=_matrices,
    )
    return _around(core, clip, accumulate)


def _matrices(parameters: nnx.State) -> nnx.State:
    """The axes of the linear maps' kernels, stacked or not; None for what is no matrix, or gives the answer."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = _names(path)
        return optax.contrib.MuonDimensionNumbers(-2, -1) if "kernel" in names and "head" not in names else None

    return jax.tree_util.tree_map_with_path(axes, parameters)


def frozen_where(
    stays: Callable[[tuple[Any, ...]], bool], optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """An optimiser that leaves the parameters alone whose path `stays`; nothing is stored for them, nor clipped by
    their gradients.
    """

    def labels(parameters: nnx.State) -> nnx.State:
        return jax.tree_util.tree_map_with_path(lambda path, _: "stays" if stays(path) else "moves", parameters)

    return optax.partition({"moves": optimizer, "stays": optax.set_to_zero()}, labels)


def lamb(
    schedule: optax.Schedule | float, *, weight_decay: float = 0.1, clip: float = 10.0, accumulate: int = 1
) -> optax.GradientTransformation:
    """LAMB, the optimiser of the Perceiver papers, with gradients clipped to a global norm."""
    return _around(optax.lamb(schedule, weight_decay=weight_decay, mask=decayed), clip, accumulate)


def _clip(norm: float) -> optax.GradientTransformation:
    """Gradients scaled down to a global norm.

    As `optax.clip_by_global_norm`, with one multiplication where that has divisions, which XLA computes into arrays of
    their own: as much memory again as all gradients, and a fifth of a step of a large model at batch 1 on a CPU.
    """

    def update(updates: optax.Updates, parameters: optax.Params | None) -> optax.Updates:
        del parameters
        scale = jnp.minimum(1.0, norm / optax.tree.norm(updates))
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates)

    return optax.stateless(update)


def _around(core: optax.GradientTransformation, clip: float, accumulate: int) -> optax.GradientTransformation:
    clipped = optax.chain(_clip(clip), core)
    if accumulate == 1:
        return clipped
    return optax.MultiSteps(clipped, accumulate).gradient_transformation()
