r"""What Gauss–Newton minimises: a convex loss of log-ratios, and the step it asks for.

The KL divergence alone counts a class by its probability: one that is wanted with 0 and has 1e-3
weighs less than a hundredth of a nat on the others, and an image would creep along the valley where
these are right. So a part of the loss counts in nats:

.. math:: ℓ(r) = KL(q \| softmax(0, r)) + w \sum_i h(r_i - \log(q_i / q_0)), \quad h(x) = \sqrt{1 + x^2} - 1

0 at the target and nowhere else, and convex in r. A class wanted with less than 1e-6 is held to be
right anywhere below that.

Log-ratios r [M] and targets q [M + 1] are as in `linearized`, the first class leading both.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import linearized

FLOOR = 1e-6
# Newton steps on λ: of each the best part, after no log-ratio moves by more than `_MAX_CHANGE`.
_MULTIPLIER_STEPS = 12
_MAX_CHANGE = 4.0
_PARTS = (1.0, 0.5, 0.2, 0.05)


def log_errors(target: jax.Array, ratios: jax.Array) -> jax.Array:
    """By how many nats each log-ratio is off its target; one-sided below `FLOOR`: [M]."""
    logs = jnp.log(jnp.maximum(target, FLOOR))
    errors = ratios - (logs[1:] - logs[0])
    return jnp.where(target[1:] < FLOOR, jnp.maximum(errors, 0), errors)


def loss(target: jax.Array, ratios: jax.Array, weight: ArrayLike) -> jax.Array:
    """ℓ [], `weight` w."""
    squares = log_errors(target, ratios) ** 2
    in_nats = squares / (jnp.sqrt(1 + squares) + 1)  # √(1 + x²) - 1 without cancellation
    return linearized.divergence(target, ratios) + weight * in_nats.sum()


def slope(target: jax.Array, ratios: jax.Array, weight: ArrayLike) -> jax.Array:
    """∇ℓ [M]."""
    errors = log_errors(target, ratios)
    bounded = errors / jnp.sqrt(1 + errors**2)
    return (linearized.probabilities(ratios) - target)[1:] + weight * bounded


def curvature(target: jax.Array, ratios: jax.Array, weight: ArrayLike) -> jax.Array:
    """∇²ℓ [M, M]."""
    probs, errors = linearized.probabilities(ratios)[1:], log_errors(target, ratios)
    bends = jnp.where(errors != 0, (1 + errors**2) ** -1.5, 0)
    return jnp.diag(probs + weight * bends) - jnp.outer(probs, probs)


def multipliers(
    offset: jax.Array, gram: jax.Array, target: jax.Array, damping: jax.Array, weight: ArrayLike
) -> jax.Array:
    r"""The λ [M] of the step Δ = Jᵀλ that minimises ℓ(d + JΔ) + μ/2 ‖Δ‖², by Newton's method.

    .. math:: μ λ + ∇ℓ(d + J Jᵀ λ) = 0

    Args:
      offset: d [M], the log-ratios where λ = 0.
      gram: J Jᵀ [M, M].
      target: q [M + 1].
      damping: μ > 0.
      weight: w.
    """

    def objective(multiplier: jax.Array) -> jax.Array:
        change = gram @ multiplier
        return loss(target, offset + change, weight) + damping / 2 * multiplier @ change

    def newton(_: int, multiplier: jax.Array) -> jax.Array:
        ratios = offset + gram @ multiplier
        residual = damping * multiplier + slope(target, ratios, weight)
        matrix = curvature(target, ratios, weight) @ gram + damping * jnp.eye(len(offset))
        step = jnp.linalg.solve(matrix, -residual)
        change = jnp.abs(gram @ step).max()
        step = step * jnp.minimum(1, _MAX_CHANGE / jnp.maximum(change, 1e-30))
        parts = multiplier + jnp.array(_PARTS)[:, None] * step  # [4, M]
        return parts[jax.vmap(objective)(parts).argmin()]

    return jax.lax.fori_loop(0, _MULTIPLIER_STEPS, newton, jnp.zeros_like(offset))
