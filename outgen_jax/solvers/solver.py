"""What a solver is: pure functions of one image, which `synthesize` lifts over a batch with `jax.vmap`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Network = Callable[[jax.Array], jax.Array]  # one image [H, W, C] in [0, 1] -> logits [K]


class Solver(NamedTuple):
    """A way to move one image to its target.

    Entries of a target that are NaN are free: `targets.complete` says what is wanted of them.

    Attributes:
      init: (image [H, W, C] in [0, 1], target [K]) -> state, any pytree.
      update: (network, state, target [K]) -> (state after one update, logits [K] of the image *before* it). The logits
        cost nothing there, and tell `synthesize` when to stop.
      image: state -> image [H, W, C] in [0, 1].
      steps: updates at most.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    update: Callable[[Network, Any, jax.Array], tuple[Any, jax.Array]]
    image: Callable[[Any], jax.Array]
    steps: int
