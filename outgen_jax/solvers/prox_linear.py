r"""The prox-linear step: the network is linearised, the loss is not.

The loss of coordinates r [M] is the divergence and a part in which all coordinates count the same:

.. math:: ℓ(r) = D(r) + w \sum_i h(e_i(r)), \quad h(x) = \sqrt{1 + x^2} - 1

D is the divergence and e are the errors of the objective. In the divergence alone a class counts by its probability:
one whose target is 0 and whose probability is 1e-3 counts little, and convergence would be slow. ℓ is 0 only at the
target, and convex in r where the errors are affine in r.

A step minimises

.. math:: ℓ(r + J Δ) + \frac{μ}{2} \|Δ\|^2, \quad low ≤ x + Δ ≤ high

Its solution is a combination of the rows of J, Δ = Jᵀλ, so the unknowns are M numbers, not the pixels.

Here an image is a vector [D].
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from outgen_jax.solvers.limits import Limits
from outgen_jax.solvers.objective import Goals, Objective

# Newton steps on λ, where the caller says nothing: of each the best part, after no coordinate moves by more than
# `_MAX_CHANGE`.
NEWTON_STEPS = 12
_MAX_CHANGE = 4.0
_PARTS = (1.0, 0.5, 0.2, 0.05)
# Rounds in which pixels that would leave the box are held at its sides.
ROUNDS = 3


class Convex(Protocol):
    """A convex function ℓ of coordinates r [M]."""

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""

    def slope(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""

    def curvature(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""


class Loss(NamedTuple):
    """ℓ, for one image at one step."""

    objective: Objective
    goals: Goals
    weight: jax.Array  # [], w; 0 while the target is far
    floor: float | jax.Array  # of `Output.errors`

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""
        squares = self._errors(r) ** 2
        alike = squares / (jnp.sqrt(1 + squares) + 1)  # √(1 + x²) − 1 without cancellation
        return self.divergence(r) + self.weight * alike.sum()

    def divergence(self, r: jax.Array) -> jax.Array:
        """D []."""
        return self.objective.divergence_at(r, self.goals)

    def slope(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""
        errors = self._errors(r)
        bounded = errors / jnp.sqrt(1 + errors**2)
        return self.objective.slope(r, self.goals) + self.weight * bounded

    def curvature(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""
        errors = self._errors(r)
        bends = jnp.where(errors != 0, (1 + errors**2) ** -1.5, 0)
        return self.objective.curvature(r, self.goals) + jnp.diag(self.weight * bends)

    def _errors(self, r: jax.Array) -> jax.Array:
        return self.objective.errors(r, self.goals, self.floor)


def multipliers(
    loss: Convex,
    offset: jax.Array,
    gram: jax.Array,
    damping: jax.Array,
    *,
    newton_steps: int = NEWTON_STEPS,
) -> jax.Array:
    r"""The λ [M] of the step Δ = Jᵀλ that minimises ℓ(d + JΔ) + μ/2 ‖Δ‖², by Newton's method.

    .. math:: μ λ + ∇ℓ(d + J Jᵀ λ) = 0

    Args:
      loss: ℓ.
      offset: d [M], the coordinates where λ = 0.
      gram: J Jᵀ [M, M].
      damping: μ > 0.
      newton_steps: how many.
    """

    def objective(multiplier: jax.Array) -> jax.Array:
        change = gram @ multiplier
        return loss.value(offset + change) + damping / 2 * multiplier @ change

    def newton(_: int, multiplier: jax.Array) -> jax.Array:
        r = offset + gram @ multiplier
        residual = damping * multiplier + loss.slope(r)
        matrix = loss.curvature(r) @ gram + damping * jnp.eye(len(offset), dtype=jnp.float32)
        step = jnp.linalg.solve(matrix, -residual)
        change = jnp.abs(gram @ step).max()
        step = step * jnp.minimum(1, _MAX_CHANGE / jnp.maximum(change, 1e-30))
        parts = multiplier + jnp.array(_PARTS, jnp.float32)[:, None] * step  # [4, M]
        return parts[jax.vmap(objective)(parts).argmin()]

    return jax.lax.fori_loop(0, newton_steps, newton, jnp.zeros_like(offset))


def bounded_step(
    loss: Convex,
    limits: Limits,
    image: jax.Array,
    offset: jax.Array,
    rows: jax.Array,
    damping: jax.Array,
    given: jax.Array,
    *,
    newton_steps: int = NEWTON_STEPS,
    rounds: int = ROUNDS,
) -> jax.Array:
    """The change Δ = p + Jᵀλ [D] of an image [D], with image + Δ within the limits.

    Pixels that would leave the box are held at the side they meet, and the others are solved for again.

    Args:
      loss: ℓ.
      limits: the box, and the norm of the change.
      image: [D].
      offset: the coordinates of the image [M].
      rows: J [M, D].
      damping: μ > 0.
      given: p [D].
      newton_steps: on λ, in each round.
      rounds: of holding pixels.
    """
    low, high = limits.low - image, limits.high - image
    held, step = high <= low, jnp.zeros_like(image)
    for _ in range(rounds):
        fixed = jnp.where(held, step, given)
        free = jnp.where(held, 0, rows)
        ways = jnp.where(held, 0, jax.vmap(limits.smooth)(free))
        gram = free @ ways.T
        multiplier = multipliers(
            loss, offset + rows @ fixed, gram, damping, newton_steps=newton_steps
        )
        step = fixed + multiplier @ ways
        held |= (step < low) | (step > high)
        step = jnp.clip(step, low, high)
    return step
