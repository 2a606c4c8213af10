r"""The prox-linear step: the network is linearised, the loss is not.

A step Δ of an image x with coordinates r minimises

.. math:: ℓ(r + J Δ) + \frac{μ}{2} \|Δ - p\|_{S^{-1}}^2, \quad low ≤ x + Δ ≤ high

for a convex loss ℓ (`convex_loss`; Burke, "Descent methods for composite nondifferentiable optimization problems",
1985). If ℓ is a sum of squares this is a Levenberg-Marquardt step. The solution is Δ = p + S Jᵀλ, so the unknowns are
the M multipliers λ, not the pixels. They are found by Newton's method (`multipliers`), inside an active-set method for
the box (`bounded_step`). S is the identity, or makes changes smooth (`limits`).

Here an image is a vector [D].
"""

import jax
import jax.numpy as jnp

from outgen_jax.solvers.convex_loss import ConvexLoss
from outgen_jax.solvers.limits import Limits

# Newton steps on λ, where the caller says nothing. Each tries the full step, which is exact where the loss is
# quadratic, and these parts of the step scaled so that no coordinate moves by more than `_MAX_CHANGE`.
NEWTON_STEPS = 12
_MAX_CHANGE = 4.0
_PARTS = (1.0, 0.5, 0.2, 0.05)
# Ridge, relative to the mean eigenvalue of ∇²ℓ J S Jᵀ, for systems that are singular: rows of J may be equal.
_RIDGE = 1e-6
# Rounds in which pixels that would leave the box join the active set.
ROUNDS = 3


def multipliers(
    loss: ConvexLoss,
    offset: jax.Array,
    gram: jax.Array,
    damping: jax.Array,
    *,
    newton_steps: int = NEWTON_STEPS,
) -> jax.Array:
    r"""The λ [M] of the step Δ = S Jᵀλ that minimises ℓ(d + JΔ) + μ/2 ΔᵀS⁻¹Δ, by Newton's method.

    .. math:: μ λ + ∇ℓ(d + J S Jᵀ λ) = 0

    Args:
      loss: ℓ.
      offset: d [M], the coordinates where λ = 0.
      gram: J S Jᵀ [M, M].
      damping: μ > 0.
      newton_steps: how many.
    """

    def objective(multiplier: jax.Array) -> jax.Array:
        change = gram @ multiplier
        return loss.value(offset + change) + damping / 2 * multiplier @ change

    def newton(_: int, multiplier: jax.Array) -> jax.Array:
        r = offset + gram @ multiplier
        residual = damping * multiplier + loss.gradient(r)
        product = loss.hessian(r) @ gram
        unit = jnp.eye(len(offset), dtype=jnp.float32)
        ridge = jnp.maximum(damping, _RIDGE * jnp.trace(product) / len(offset))
        diagonals = jnp.stack([damping, ridge])[:, None, None] * unit  # [2, M, M]
        exact, rough = jax.vmap(jnp.linalg.solve, (0, None))(product + diagonals, -residual)
        step = jnp.where(jnp.isfinite(exact).all(), exact, rough)
        change = jnp.abs(gram @ step).max()
        capped = step * jnp.minimum(1, _MAX_CHANGE / jnp.maximum(change, 1e-30))
        parts = jnp.array(_PARTS, jnp.float32)[:, None] * capped
        tried = multiplier + jnp.concatenate([step[None], parts])  # [5, M]
        values = jax.vmap(objective)(tried)
        return tried[jnp.where(jnp.isnan(values), jnp.inf, values).argmin()]

    return jax.lax.fori_loop(0, newton_steps, newton, jnp.zeros_like(offset))


def bounded_step(
    loss: ConvexLoss,
    limits: Limits,
    image: jax.Array,
    r: jax.Array,
    jac: jax.Array,
    damping: jax.Array,
    shift: jax.Array,
    *,
    newton_steps: int = NEWTON_STEPS,
    rounds: int = ROUNDS,
) -> jax.Array:
    """The step Δ = p + S Jᵀλ [D] of an image [D], with image + Δ within the limits.

    Pixels that would leave the box become active: they are held at the side they meet, and λ is found again for the
    others.

    Args:
      loss: ℓ.
      limits: the box, and S.
      image: x [D].
      r: the coordinates of the image [M].
      jac: J [M, D].
      damping: μ > 0.
      shift: p [D].
      newton_steps: on λ, in each round.
      rounds: of the active set.
    """
    low, high = limits.low - image, limits.high - image

    def round_(_: int, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        active, step = found
        fixed = jnp.where(active, step, shift)
        free = jnp.where(active, 0, jac)
        directions = jnp.where(active, 0, jax.vmap(limits.smooth)(free))  # (S Jᵀ)ᵀ
        gram = free @ directions.T
        multiplier = multipliers(loss, r + jac @ fixed, gram, damping, newton_steps=newton_steps)
        step = fixed + multiplier @ directions
        active |= (step < low) | (step > high)
        return active, jnp.clip(step, low, high)

    # A loop, not unrolled: the compiler would take that much longer for each round.
    return jax.lax.fori_loop(0, rounds, round_, (high <= low, jnp.zeros_like(image)))[1]
