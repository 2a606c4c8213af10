"""What a solver is: options and functions of one image, which the engine maps over many with `jax.vmap`."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from outgen_jax.solvers.objective import Objective, Outputs


class Problem(NamedTuple):
    """One image's problem.

    Attributes:
      network: one image [H, W, C] in [0, 1] -> its outputs: a tuple of arrays [R, K] float32, one for each array that
        `apply_fn` returns. R is 1 for a plain classifier, the number of views with `og.views`.
      objective: compares outputs with the target; see `Objective`.
      source: [H, W, C] in [0, 1], the image as the user gave it. A solver may start elsewhere.
      tolerance: [], the distance at which the image meets its target; negative: there is no tolerance.
    """

    network: Callable[[jax.Array], Outputs]
    objective: Objective
    source: jax.Array
    tolerance: jax.Array


@runtime_checkable
class Solver(Protocol):
    """A method that changes one image until the network's outputs meet their target.

    Write one as a frozen dataclass registered as a pytree (`jax.tree_util.register_dataclass`): jitted functions take
    it as an argument. Solvers are equal and hashed by their options, and an equal solver does not compile again. Fields
    marked static are compiled in; a new value of any other field, such as `steps`, does not recompile.

    Members beyond these are optional: `tolerance`, `is_done`, `by_coordinates` and `passes`. The page "Writing a
    solver" of the guide describes them.
    """

    @property
    def steps(self) -> int:
        """The largest number of updates."""

    def init(self, problem: Problem, image: jax.Array) -> Any:
        """The state, any pytree of arrays, at `image` [H, W, C] in [0, 1]."""

    def update(self, problem: Problem, state: Any) -> tuple[Any, Outputs]:
        """One step -> the next state, and the outputs of the image *before* the step.

        The step computes these outputs anyway. The engine decides by them when to stop.
        """

    def image(self, state: Any) -> jax.Array:
        """The image of a state [H, W, C] in [0, 1]."""
