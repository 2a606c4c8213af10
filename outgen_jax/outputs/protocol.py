"""The methods that every kind of output has; the package's docstring says what they are for."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import numpy as np


class Output(Protocol):
    """A kind of output. Methods take one row of outputs [K] float32 and one row of targets [K], NaN where free.

    Attributes:
      bounds: the least and largest entry of a target, for `og.targets.parse`; None: the entries of a row sum to 1.
      measure: the name of `distance` in reports.
    """

    bounds: ClassVar[tuple[float, float] | None]
    measure: ClassVar[str]

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The row as the other methods take it: [K], finite if `is_finite`."""

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Whether the row is a valid output: [] bool. If not, the image stops."""

    def readout(self, output: jax.Array) -> jax.Array:
        """The row in the units of targets, such as probabilities: [K]."""

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What gradient descent minimises: [], the divergence up to a constant."""

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What solvers minimise: [], convex in the output, and 0 only at the target."""

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What is reported and compared with the tolerance: []."""

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """The function u [K] -> Hu [K], H a model of the divergence's curvature between output and target."""

    def num_coordinates(self, size: int, count: int | None) -> int:
        """M, for a row of `size` outputs of which `count` have a coordinate of their own; None: all."""

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """Coordinates r of a row: [M]."""

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target of the coordinates, as the following methods take it; free entries follow the output."""

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """The divergence as a function of the coordinates: []."""

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Gradient of `divergence_at`: [M]."""

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Hessian of `divergence_at`: [M, M]."""

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Coordinates less their targets: [M], 0 where an entry is free.

        Where the target is within `floor` of 0 or 1, a coordinate beyond it has no error: see `one_sided`.
        """

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Which coordinates have a target within `floor` of 0 or 1, and may lie anywhere beyond it: [M] bool."""

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far probabilities with targets of 0 or 1 are outside `floor` of them, in nats: [E]; at most 0 inside."""

    def judged(self, r: jax.Array) -> jax.Array:
        """The quantities that the distance compares and `og.quantize` corrects, of the coordinates: [N]."""

    def wanted(self, goal: jax.Array) -> jax.Array:
        """Targets of `judged`: [N], NaN where an entry is free."""

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """How many coordinates each target needs, on the host: [..., K] -> [...] int."""

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Checks targets [n, K] float64, masked where free -> float32, NaN where free.

        Raises:
          ValueError: they are not targets of this kind; the message names `caller`.
        """

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Checks the outputs [n, K] of the source images.

        Raises:
          ValueError: they are not outputs of this kind, such as probabilities instead of logits.
        """
