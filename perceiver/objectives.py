"""Objectives: pure functions from outputs and targets to a scalar, float32."""

import jax
import jax.numpy as jnp
import optax

from perceiver.typing import Array, Bool, Float, Int


def mean(values: Float[Array, "*n"], mask: Bool[Array, "*n"] | None = None) -> Float[Array, ""]:
    """Mean over what the mask keeps; 0 where it keeps nothing."""
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def cross_entropy(
    logits: Float[Array, "*n c"],
    labels: Int[Array, "*n"] | Float[Array, "*n c"],
    mask: Bool[Array, "*n"] | None = None,
    smoothing: float = 0.0,
    weights: Float[Array, "c"] | None = None,
    normalised: float = 0.0,
) -> Float[Array, ""]:
    """Mean cross-entropy in nats. labels: classes, or the share of each. smoothing: probability spread evenly over all.

    weights: of the classes; the mean is then weighted by that of each label, so that rare classes may count more.
    normalised: weight of the squared logarithm of what the softmax divides by, which keeps logits near to logarithms of
        probabilities (z-loss of T5X).
    """
    shares = labels if labels.ndim == logits.ndim else jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(shares, smoothing)
    losses = optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
    if normalised:
        losses = losses + normalised * jnp.square(jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1))
    if weights is None:
        return mean(losses, mask)
    each = shares @ weights
    share = each if mask is None else jnp.where(mask, each, 0.0)
    return (share * losses).sum() / jnp.maximum(share.sum(), 1e-6)


def accuracy(
    logits: Float[Array, "*n c"], labels: Int[Array, "*n"], mask: Bool[Array, "*n"] | None = None
) -> Float[Array, ""]:
    """Share of labels that have the largest logit."""
    return mean((logits.argmax(axis=-1) == labels).astype(jnp.float32), mask)


def squared_error(
    prediction: Float[Array, "*n c"], target: Float[Array, "*n c"], mask: Bool[Array, "*n"] | None = None
) -> Float[Array, ""]:
    """Mean squared error over the channels and what the mask keeps."""
    return mean(jnp.square(prediction - target).mean(axis=-1), mask)


def absolute_error(
    prediction: Float[Array, "*n c"], target: Float[Array, "*n c"], mask: Bool[Array, "*n"] | None = None
) -> Float[Array, ""]:
    """Mean absolute error over the channels and what the mask keeps."""
    return mean(jnp.abs(prediction - target).mean(axis=-1), mask)
