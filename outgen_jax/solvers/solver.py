"""What a solver is: a value that knows how to move one image; the engine lifts it over many with `jax.vmap`."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from outgen_jax.solvers.objective import Objective, Outputs


class Problem(NamedTuple):
    """One image's problem.

    Attributes:
      network: one image [H, W, C] in [0, 1] -> its outputs, one [R, K] float32 a part.
      objective: what is wanted of the outputs.
      source: [H, W, C] in [0, 1], the image as the user gave it. A solver may start elsewhere.
      tolerance: [], the distance at which the image is within what is asked for; negative: no distance is.
    """

    network: Callable[[jax.Array], Outputs]
    objective: Objective
    source: jax.Array
    tolerance: jax.Array


@runtime_checkable
class Solver(Protocol):
    """A way to move one image to its target.

    Solvers are values: equal and hashed by their options, so that a solver built anew does not compile anew. Write one
    as a frozen dataclass registered as a pytree (`jax.tree_util.register_dataclass`): jitted functions take it as an
    argument. Its static fields choose the program. `steps` and arrays are data, so that other values of them share it.

    An image leaves the solver once it is within the tolerance. A solver that goes on from there, to a smaller change,
    has a method `is_done(state) -> [] bool` that says when it has finished.
    """

    @property
    def steps(self) -> int:
        """Updates at most."""

    def init(self, problem: Problem, image: jax.Array) -> Any:
        """The state, any pytree of arrays, at `image` [H, W, C] in [0, 1]."""

    def update(self, problem: Problem, state: Any) -> tuple[Any, Outputs]:
        """One step -> the next state, and the outputs of the image *before* it.

        The outputs cost nothing there. They tell the engine when to stop.
        """

    def image(self, state: Any) -> jax.Array:
        """The image of a state [H, W, C] in [0, 1]."""
