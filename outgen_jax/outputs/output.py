"""The base class of all kinds of output; the package's docstring says what they are for."""

import abc
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.targets import partial

Form = Literal["distribution", "labels", "numbers"]


class Output(abc.ABC):
    """A kind of output: what the numbers of a network mean, and how far they are from a target.

    Inherit from it in a frozen dataclass. Methods take one row of outputs [K] float32 and one row of targets [K], NaN
    where free. Those that are not abstract have defaults for K numbers that are their own coordinates.

    Attributes:
      bounds: the least and largest entry of a target, for `og.targets.parse`; None: the entries of a row sum to 1.
      measure: the name of `distance` in reports.
    """

    bounds: ClassVar[tuple[float, float] | None] = (-np.inf, np.inf)
    measure: ClassVar[str] = "distance"

    @abc.abstractmethod
    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What is reported and compared with the tolerance: []."""

    @abc.abstractmethod
    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """What solvers minimise, as a function of the coordinates: [], convex, and 0 only at the target."""

    @property
    def form(self) -> Form:
        """How a row is written and shown: entries that sum to 1, a probability for each entry, or numbers."""
        if self.bounds is None:
            return "distribution"
        return "labels" if self.bounds == (0, 1) else "numbers"

    # --- coordinates ---

    def num_coordinates(self, size: int, count: int | None) -> int:
        """M, for a row of `size` outputs of which `count` have a coordinate of their own; None: all."""
        del count
        return size

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """Coordinates r of a row: [M]."""
        del target, count
        return output

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target of the coordinates, as the following methods take it; free entries follow the output."""
        del output, count
        return target

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Gradient of `divergence_at`: [M]."""
        return jax.grad(self.divergence_at)(r, goal)

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Hessian of `divergence_at`: [M, M]."""
        return jax.hessian(self.divergence_at)(r, goal)

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Coordinates less their targets: [M], 0 where an entry is free.

        Where the target is within `floor` of 0 or 1, a coordinate beyond it has no error: see `one_sided`.
        """
        del floor
        return jnp.where(jnp.isnan(goal), 0, r - goal)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Which coordinates have a target within `floor` of 0 or 1, and may lie anywhere beyond it: [M] bool."""
        del floor
        return jnp.zeros(goal.shape, bool)

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far probabilities with targets of 0 or 1 are outside `floor` of them, in nats: [E]; at most 0 inside."""
        del r, goal, floor
        return jnp.zeros(0, jnp.float32)

    def excess_gradient(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Jacobian of `excess`: [E, M]."""
        return jax.jacobian(self.excess)(r, goal, floor)

    def excess_curvature(
        self, r: jax.Array, goal: jax.Array, floor: float | jax.Array, weights: jax.Array
    ) -> jax.Array:
        """Hessian of `weights` [E] times `excess`: [M, M]."""
        return jax.hessian(lambda r: weights @ self.excess(r, goal, floor))(r)

    def compared(self, r: jax.Array) -> jax.Array:
        """The quantities that the distance compares and `og.quantize` corrects, of the coordinates: [N]."""
        return r

    def compared_targets(self, goal: jax.Array) -> jax.Array:
        """Targets of `compared`: [N], NaN where an entry is free."""
        return goal

    # --- outputs ---

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The row as the other methods take it: [K], finite if `is_finite`."""
        return output

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Whether the row is a valid output: [] bool. If not, the image stops."""
        return jnp.isfinite(output).all()

    def readout(self, output: jax.Array) -> jax.Array:
        """The row in the units of targets, such as probabilities: [K]."""
        return output

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """`divergence_at` of a row whose entries all have a coordinate: []."""
        r = self.coordinates(output, target, None)
        return self.divergence_at(r, self.goal(output, target, None))

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What gradient descent minimises: [], the divergence up to a constant."""
        return self.divergence(output, target)

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """The function u [K] -> Hu [K], H a model of the divergence's curvature between output and target."""
        gradient = jax.grad(lambda o: self.divergence(o, target))
        return lambda u: jax.jvp(gradient, (output,), (u,))[1]

    # --- checks on the host ---

    def counts(self, targets: np.ndarray) -> list[int | None]:
        """For each image, how many entries of its targets [B, R, K] get a coordinate each; None: all."""
        return [None] * len(targets)

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Checks targets [n, K] float64, masked where free -> float32, NaN where free.

        Raises:
          ValueError: they are not targets of this kind; the message names `caller`.
        """
        return partial.finite_or_free(targets, caller=caller, what="numbers").astype(np.float32)

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:  # noqa: B027 (nothing to check)
        """Checks the outputs [n, K] of the source images.

        Raises:
          ValueError: they are not outputs of this kind, such as probabilities instead of logits.
        """
