"""The questions that every kind of output answers; the package's docstring says what for."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import numpy as np


class Output(Protocol):
    """One kind of output. All methods take one row of outputs [K] float32; see the package.

    `bounds` are those of an entry of a target; None: the entries of a row sum to 1. `measure` is what
    people read `distance` called.
    """

    bounds: ClassVar[tuple[float, float] | None]
    measure: ClassVar[str]

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The row as the other methods take it [K], finite wherever `is_finite` says so."""

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Whether the row means anything: [] bool."""

    def readout(self, output: jax.Array) -> jax.Array:
        """What the row says, in the units of targets: [K]."""

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What gradient descent minimises: the divergence, or the divergence up to a constant: []."""

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What solvers minimise: [], 0 at the target."""

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What users are told: []."""

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """U [K] -> Hu [K]: a model of the divergence's curvature between output and target."""

    def num_coordinates(self, size: int, count: int | None) -> int:
        """M, of a row of `size` outputs of which `count` have a coordinate each; None: all."""

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """R [M]."""

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target as the following methods take it; free entries follow the output."""

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """`divergence` as a function of the coordinates: []."""

    def slope(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Its gradient [M]."""

    def curvature(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Its Hessian [M, M]."""

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far each coordinate is off [M]; one-sided where a probability within `floor` of 0 or 1 will do."""

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Which coordinates may lie anywhere on one side: [M] bool."""

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far what should be 0 or 1 is from being within `floor` of it: [E], in nats, at most 0 where it is."""

    def judged(self, r: jax.Array) -> jax.Array:
        """What the distance compares, as a function of the coordinates: [N]."""

    def wanted(self, goal: jax.Array) -> jax.Array:
        """What `judged` should be: [N], NaN where anything will do."""

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """How many coordinates each target needs: [..., K] on the host -> [...] int."""

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Targets [n, K] float64, maybe masked -> float32, NaN where masked.

        Raises:
          ValueError: they cannot be targets of this kind.
        """

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Looks at outputs [n, K] of source images.

        Raises:
          ValueError: they are not what the network should return for this kind.
        """
