r"""The penalty parameter c of `smallest_change`: how much the loss counts against the change.

The constraint distance ≤ tolerance becomes a penalty, c ℓ(r) + ½ ‖x − x₀‖². As in a penalty method (Nocedal and Wright,
"Numerical optimization", 2006, section 17.1) c grows until the constraint holds. Here it also shrinks again where the
image is within the tolerance, since there a smaller change is possible.
"""

import dataclasses

import jax
import jax.numpy as jnp

from outgen_jax.solvers import jacobian


@dataclasses.dataclass(frozen=True, kw_only=True)
class PenaltySchedule:
    """How c starts and changes after every accepted trial.

    Attributes:
      first: c at first, at least: the smaller, the closer to the source the iterates begin.
      most: c at most: where a target cannot be met it would grow without end.
      aim: the distance at which c stays the same, as a share of the tolerance: a little inside, so that rounding does
        not undo it.
      growth: the largest factor while no image within the tolerance is known. A larger one needs fewer steps and makes
        larger changes.
      later_growth: the largest factor afterwards.
      shrinkage: the largest divisor, where the distance is below `aim` times the tolerance.
    """

    first: float = 0.1
    most: float = 1e8
    aim: float = 0.9
    growth: float = 1.5
    later_growth: float = 1.1
    shrinkage: float = 1.15

    def start(self, gradient: jax.Array, jac: jax.Array, change: jax.Array) -> jax.Array:
        r"""The c for which an image is about stationary: ‖λ‖/‖∇D‖, λ the least squares solution of x − x₀ = Jᵀλ.

        Args:
          gradient: ∇D [M], of the divergence in the coordinates.
          jac: J, with a row for each coordinate.
          change: x − x₀ [D]; 0 at the source, where c is the least.
        """
        multipliers = jacobian.solve_gram(jac @ jac.T, jac @ change)
        found = jnp.linalg.norm(multipliers) / jnp.maximum(jnp.linalg.norm(gradient), 1e-30)
        return jnp.clip(found, self.first, self.most)

    def next(
        self, penalty: jax.Array, distance: jax.Array, tolerance: jax.Array, has_met: jax.Array
    ) -> jax.Array:
        """Returns c after a trial that ended at this distance; `has_met`: an image within the tolerance is known."""
        growth = jnp.where(has_met, jnp.float32(self.later_growth), self.growth)
        factor = jnp.clip(distance / (self.aim * tolerance), 1 / self.shrinkage, growth)
        return jnp.minimum(penalty * factor, self.most)
