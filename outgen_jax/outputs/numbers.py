"""Real numbers, such as the outputs of a regression or an embedding: `values`."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.targets import partial


@dataclasses.dataclass(frozen=True)
class Values:
    """K real numbers, such as a regression, logits or an embedding. The target is a number for each.

    The distance is the root mean square error over the numbers that are not free, in units of `scale`.
    """

    bounds: ClassVar[tuple[float, float] | None] = (-np.inf, np.inf)
    measure: ClassVar[str] = "RMS error"

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses a scale that is not positive and finite."""
        if not 0 < self.scale < np.inf:
            raise ValueError(
                f"outputs.values: scale must be positive and finite, got {self.scale}; give the size of a typical "
                "difference between outputs, such as their standard deviation over some images"
            )

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The numbers as they are."""
        return output

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Every number is finite."""
        return jnp.isfinite(output).all()

    def readout(self, output: jax.Array) -> jax.Array:
        """The numbers as they are."""
        return output

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Half the mean squared error, in squared units of `scale`."""
        return self.divergence(output, target)

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Half the mean squared error, in squared units of `scale`."""
        return self.divergence_at(output / self.scale, target / self.scale)

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Root mean square error in units of `scale`."""
        return jnp.sqrt(2 * self.divergence(output, target))

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Diagonal: 1/(n scale²) for each of the n named numbers."""
        named = ~jnp.isnan(target)
        w = jnp.where(named, 1 / (_at_least_one(named.sum()) * self.scale**2), 0)
        return lambda u: w * u

    def num_coordinates(self, size: int, count: int | None) -> int:
        """One for every number."""
        return size

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The numbers in units of `scale`."""
        return output / self.scale

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target in units of `scale`."""
        return target / self.scale

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Half the mean squared error."""
        errors = self.errors(r, goal, 0.0)
        return (errors**2).sum() / (2 * _at_least_one((~jnp.isnan(goal)).sum()))

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """(r − goal)/n."""
        return self.errors(r, goal, 0.0) / _at_least_one((~jnp.isnan(goal)).sum())

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """1/n on the diagonal."""
        named = ~jnp.isnan(goal)
        return jnp.diag(named.astype(jnp.float32) / _at_least_one(named.sum()))

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In units of `scale`."""
        return jnp.where(jnp.isnan(goal), 0, r - goal)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros(goal.shape, bool)

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """None: [0]."""
        return jnp.zeros(0, jnp.float32)

    def judged(self, r: jax.Array) -> jax.Array:
        """The coordinates themselves."""
        return r

    def wanted(self, goal: jax.Array) -> jax.Array:
        """The goal itself."""
        return goal

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """All numbers: free ones cost a coordinate too."""
        return np.full(targets.shape[:-1], targets.shape[-1])

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Finite numbers."""
        return partial.finite_or_free(targets, caller=caller, what="numbers").astype(np.float32)

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Takes any numbers."""


def values(*, scale: float = 1.0) -> Values:
    """K real numbers [..., K]; a target is a number for each. Masked numbers of a target are free.

    The distance is the root mean square error over the numbers that are not free, divided by `scale`.

    Args:
      scale: the unit of the distance, such as the standard deviation of the outputs over some images.

    Raises:
      ValueError: a scale that is not positive.

    >>> import outgen_jax as og
    >>> og.outputs.values(scale=0.5)
    Values(scale=0.5)
    """
    return Values(float(scale))


def _at_least_one(count: jax.Array) -> jax.Array:
    return jnp.maximum(count, 1).astype(jnp.float32)
