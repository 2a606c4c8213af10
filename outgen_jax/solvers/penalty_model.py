"""The model that a trial of `smallest_change` minimises, and the merit function that decides about it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from outgen_jax.solvers import prox_linear
from outgen_jax.solvers.convex_loss import ExcessLoss
from outgen_jax.solvers.limits import Limits
from outgen_jax.solvers.objective import Objective, Outputs


class Point(NamedTuple):
    """An image and what the network returns for it."""

    image: jax.Array  # [D]
    outputs: Outputs
    r: jax.Array  # [M]
    distance: jax.Array  # []


class PenaltyModel(NamedTuple):
    """ℓ(r + JΔ) + ‖x + Δ − x₀‖²/2c + ν‖Δ‖²/2, for one image at one trial."""

    objective: Objective
    network: Callable[[jax.Array], Outputs]  # of an image [D]
    source: jax.Array  # x₀ [D]
    limits: Limits
    loss: ExcessLoss  # ℓ
    penalty: jax.Array  # [], c
    damping: jax.Array  # [], ν

    def merit(self, r: jax.Array, image: jax.Array) -> jax.Array:
        """ℓ(r) + ‖x − x₀‖²/2c: []."""
        inverse = 1 / self.penalty
        return self.loss.value(r) + inverse / 2 * ((image - self.source) ** 2).sum()

    def minimum(
        self, image: jax.Array, r: jax.Array, jac: jax.Array, *, newton_steps: int, rounds: int
    ) -> Point:
        """Where the step from an image [D] ends that minimises the model with J [M, D]."""
        inverse = 1 / self.penalty
        # The two quadratic terms are (1/c + ν)/2 ‖Δ − p‖² and a constant.
        shift = (self.source - image) * inverse / (inverse + self.damping)
        step = prox_linear.bounded_step(
            self.loss,
            self.limits,
            image,
            r,
            jac,
            inverse + self.damping,
            shift,
            newton_steps=newton_steps,
            rounds=rounds,
        )
        moved = jnp.clip(image + step, self.limits.low, self.limits.high)
        outputs = self.network(moved)
        coordinates = self.objective.coordinates(outputs)
        return Point(moved, outputs, coordinates, self.objective.distance(outputs))
