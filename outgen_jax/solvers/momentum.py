r"""Gradient descent with momentum and steps of prescribed length, for images for which Gauss-Newton converges slowly.

.. math:: Δ' = β Δ - (1 - β) s \frac{g}{\|g\|}

g is the gradient of `convex_loss.RatioLoss` with w = 1. The length s falls linearly from a share of the image's change
so far to 0. Steps are taken whether the loss falls or not. From the image that results Gauss-Newton usually converges,
with a larger change.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from outgen_jax.solvers.convex_loss import RatioLoss
from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.objective import Outputs
from outgen_jax.solvers.solver import Problem, Solver

# β.
_INERTIA = 0.9


class MomentumState(NamedTuple):
    """The iterate."""

    image: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    change: jax.Array  # [], L2 distance of the first image from the source
    taken: jax.Array  # [] int32, steps taken


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum(Solver):
    """Steps of momentum whose length is a share of the change so far.

    Attributes:
      steps: the number of steps.
      share: the first s, over the L2 distance of the image from its source.
      floor: a probability whose target is less than this may lie anywhere between 0 and this.
      restriction: limits on the change.
    """

    steps: int = 64
    share: float = dataclasses.field(default=0.35, metadata={"static": True})
    floor: float = 1e-6
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    by_coordinates = True

    def init(self, problem: Problem, image: jax.Array) -> MomentumState:
        """The state at an image [H, W, C]."""
        image = self.restriction.nearest(problem.source, image)
        change = jnp.linalg.norm((image - problem.source).ravel())
        return MomentumState(image, jnp.zeros_like(image), change, jnp.int32(0))

    def update(self, problem: Problem, state: MomentumState) -> tuple[MomentumState, Outputs]:
        """One step; also the outputs of the image before it."""
        limits = self.restriction.limits(problem.source)

        def value(image: jax.Array) -> tuple[jax.Array, Outputs]:
            outputs = problem.network(image)
            goals = problem.objective.goals(jax.lax.stop_gradient(outputs))
            loss = RatioLoss(problem.objective, goals, jnp.float32(1), self.floor)
            return loss.value(problem.objective.coordinates(outputs)), outputs

        gradient, outputs = jax.grad(value, has_aux=True)(state.image)
        gradient = limits.of_free_pixels(jnp.where(jnp.isfinite(gradient), gradient, 0).ravel())
        direction = limits.smooth(gradient)
        length = self.share * (1 - state.taken / self.steps) * state.change
        step = momentum_step(direction, state.step.ravel(), length)
        moved = jnp.clip(state.image.ravel() + step, limits.low, limits.high)
        step = (moved - state.image.ravel()).reshape(state.image.shape)
        moved = moved.reshape(state.image.shape)
        return MomentumState(moved, step, state.change, state.taken + 1), outputs

    def image(self, state: MomentumState) -> jax.Array:
        """The image of a state [H, W, C]."""
        return state.image


def momentum_step(gradient: jax.Array, last: jax.Array, length: jax.Array) -> jax.Array:
    """The step Δ' [D] of the module's equation, from g [D], Δ [D] and s []."""
    descent = length / jnp.maximum(jnp.linalg.norm(gradient), 1e-20) * gradient
    return _INERTIA * last - (1 - _INERTIA) * descent
