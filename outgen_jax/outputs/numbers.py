"""Real numbers, such as the outputs of a regression or an embedding: `values`."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.outputs.output import Output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Values(Output):
    """K real numbers, such as a regression, logits or an embedding. The target is a number for each.

    The distance is the root mean square error over the numbers that are not free, in units of `scale`. The divergence
    is half its square.
    """

    measure: ClassVar[str] = "RMS error"

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses a scale that is not positive and finite."""
        if not 0 < self.scale < np.inf:
            raise ValueError(
                f"outputs.values: scale must be positive and finite, got {self.scale}; give the size of a typical "
                "difference between outputs, such as their standard deviation over some images"
            )

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Root mean square error in units of `scale`."""
        return jnp.sqrt(2 * self.divergence(output, target))

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Half the mean squared error."""
        return (self.errors(r, goal, 0.0) ** 2).sum() / (2 * _num_named(goal))

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """(r − goal)/n, n the number of entries that are not free."""
        return self.errors(r, goal, 0.0) / _num_named(goal)

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """1/n on the diagonal."""
        return jnp.diag((~jnp.isnan(goal)).astype(jnp.float32) / _num_named(goal))

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The numbers in units of `scale`."""
        return output / self.scale

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target in units of `scale`."""
        return target / self.scale


def values(*, scale: float = 1.0) -> Values:
    """K real numbers [..., K]; a target is a number for each. Masked numbers of a target are free.

    The distance is the root mean square error over the numbers that are not free, divided by `scale`.

    Args:
      scale: the unit of the distance, such as the standard deviation of the outputs over some images.

    Raises:
      ValueError: a scale that is not one positive number.

    >>> import outgen_jax as og
    >>> og.outputs.values(scale=0.5)
    Values(scale=0.5)
    """
    if np.ndim(scale) > 0:
        raise ValueError(
            f"outputs.values: scale must be one number for all outputs, got shape {list(np.shape(scale))}; divide the "
            "outputs by theirs in apply_fn, and the targets likewise"
        )
    return Values(scale=float(scale))


def _num_named(goal: jax.Array) -> jax.Array:
    """How many numbers are not free, at least 1: []."""
    return jnp.maximum((~jnp.isnan(goal)).sum(), 1).astype(jnp.float32)
