r"""The losses of the prox-linear step: convex functions ℓ of the coordinates r [M], with gradient and Hessian.

Both are the divergence D with a pseudo-Huber penalty on errors in nats:

.. math:: ℓ(r) = D(r) + w \sum_i h(e_i(r)), \quad h(e) = \sqrt{1 + e^2} - 1

D alone weighs a class by its probability: one whose target is 0 and whose probability is 1e-3 counts little, and
convergence would be slow. The penalty counts in nats. `RatioLoss` has it on the error of every coordinate,
`ExcessLoss` on the total of the probabilities that should be 0.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from outgen_jax.outputs import Output
from outgen_jax.solvers.objective import Goals, Objective


class ConvexLoss(Protocol):
    """A convex function ℓ of coordinates r [M]."""

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""

    def gradient(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""

    def hessian(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""


class RatioLoss(NamedTuple):
    """ℓ with a penalty on the errors of all coordinates, for one image at one step."""

    objective: Objective
    goals: Goals
    weight: jax.Array  # [], w; 0 while the target is far
    floor: float | jax.Array  # of `Output.errors`

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""
        return self.divergence(r) + self.weight * _pseudo_huber(self._errors(r)).sum()

    def divergence(self, r: jax.Array) -> jax.Array:
        """D []."""
        return self.objective.divergence_at(r, self.goals)

    def gradient(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""
        errors = self._errors(r)
        return self.objective.gradient_at(r, self.goals) + self.weight * _slope(errors)

    def hessian(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""
        errors = self._errors(r)
        penalty = jnp.diag(self.weight * _curvature(errors))
        return self.objective.hessian_at(r, self.goals) + penalty

    def _errors(self, r: jax.Array) -> jax.Array:
        return self.objective.errors(r, self.goals, self.floor)


class ExcessLoss(NamedTuple):
    """ℓ with a penalty on probabilities that should be 0 or 1, for one image at one step."""

    objective: Objective
    goals: Goals
    weight: jax.Array  # [], w
    floor: jax.Array  # [], of `Output.excess`

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""
        excess = self.objective.joined(self._excess, r, self.goals)
        divergence = self.objective.divergence_at(r, self.goals)
        return divergence + self.weight * _pseudo_huber(excess).sum()

    def gradient(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""

        def of_row(kind: Output, r: jax.Array, goal: jax.Array) -> jax.Array:
            slope = _slope(self._excess(kind, r, goal))
            return slope @ kind.excess_gradient(r, goal, self.floor)

        penalty = self.objective.joined(of_row, r, self.goals)
        return self.objective.gradient_at(r, self.goals) + self.weight * penalty

    def hessian(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""

        def of_row(kind: Output, r: jax.Array, goal: jax.Array) -> jax.Array:
            excess = self._excess(kind, r, goal)
            jac = kind.excess_gradient(r, goal, self.floor)
            curved = kind.excess_curvature(r, goal, self.floor, _slope(excess))
            return (jac.T * _curvature(excess)) @ jac + curved

        penalty = self.objective.blocks(of_row, r, self.goals)
        return self.objective.hessian_at(r, self.goals) + self.weight * penalty

    def _excess(self, kind: Output, r: jax.Array, goal: jax.Array) -> jax.Array:
        """How far the probabilities of a row are from targets of 0 or 1, in nats: [E]; 0 within the floor."""
        return jnp.maximum(kind.excess(r, goal, self.floor), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExcessPenalty:
    """Weight and floor of `ExcessLoss`, which follow the distance and the tolerance.

    Attributes:
      weight: w over the distance. The gradient of the penalty then stays comparable to that of the divergence, which
        also vanishes with the distance. The distance counts as at least the tolerance.
      most_distance: the distance counts as at most this, so that the penalty does not dominate while the target is far.
      share: of the tolerance that probabilities that should be 0 may take together. The rest is for the other classes.
    """

    weight: float = 10.0
    most_distance: float = 1e-2
    share: float = 0.7

    def loss(
        self, objective: Objective, goals: Goals, distance: jax.Array, tolerance: jax.Array
    ) -> ExcessLoss:
        """ℓ at an image of this distance."""
        most = jnp.maximum(self.most_distance, tolerance)
        weight = self.weight * jnp.clip(distance, tolerance, most)
        return ExcessLoss(objective, goals, weight, self.share * tolerance)


def _pseudo_huber(errors: jax.Array) -> jax.Array:
    """√(1 + e²) − 1 without cancellation."""
    return errors**2 / (jnp.sqrt(1 + errors**2) + 1)


def _slope(errors: jax.Array) -> jax.Array:
    """Derivative of `_pseudo_huber`."""
    return errors / jnp.sqrt(1 + errors**2)


def _curvature(errors: jax.Array) -> jax.Array:
    """Second derivative of `_pseudo_huber`; 0 without an error, since errors may be one-sided."""
    return jnp.where(errors != 0, (1 + errors**2) ** -1.5, 0)
