"""What a solver is: options and functions of one image, which the engine maps over many with `jax.vmap`."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from outgen_jax.solvers.objective import Objective, Outputs

# Metadata of a dataclass's field that is compiled into programs.
STATIC = {"static": True}


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


class Solver(abc.ABC):
    """A method that changes one image until the network's outputs meet their target.

    Inherit from it in a frozen dataclass registered as a pytree (`jax.tree_util.register_dataclass`): jitted functions
    take solvers as arguments. Solvers are equal and hashed by their options, and an equal solver does not compile
    again. Fields marked static are compiled in; a new value of any other field, such as `steps`, does not recompile.

    Attributes:
      steps: the largest number of updates; a field or a property.
      tolerance: the tolerance where the caller of `og.synthesize` gives none; None: all steps are made.
      by_coordinates: whether the solver uses coordinates. For a softmax of more than 32 classes only those that the
        target names, at most 64, then have a coordinate of their own.
    """

    steps: int
    tolerance: float | None = None
    by_coordinates: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, problem: Problem, image: jax.Array) -> Any:
        """The state, any pytree of arrays, at `image` [H, W, C] in [0, 1]."""

    @abc.abstractmethod
    def update(self, problem: Problem, state: Any) -> tuple[Any, Outputs]:
        """One step -> the next state, and the outputs of the image *before* the step.

        The step computes these outputs anyway. The engine decides by them when to stop.
        """

    @abc.abstractmethod
    def image(self, state: Any) -> jax.Array:
        """The image of a state [H, W, C] in [0, 1]."""

    def is_done(self, state: Any) -> jax.Array:
        """Whether an image within the tolerance is finished: [] bool. A solver may go on, to a smaller change."""
        del state
        return jnp.bool_(True)

    def passes(self, num_coordinates: int) -> int:
        """Passes of the network for one image that run at once; sets the default batch size."""
        del num_coordinates
        return 1
