"""How many updates one call of a compiled function makes.

Several: the host is out of the way, and on CPU the temporaries of a call, which XLA allocates anew each time, are paged
in once for all of them; that took a quarter of an update of VGG16. But one where XLA's own convolutions would run
inside a loop on CPU: their gradients are up to 69 times slower there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_ON_ACCELERATOR = 25
_ON_CPU = 10


def updates_per_call(update: Callable[..., Any], *arguments: Any) -> int:
    """At most so many updates should go into a call of the jitted `update`, whose `arguments` are given for one."""
    if jax.default_backend() != "cpu":
        return _ON_ACCELERATOR
    leaves, structure = jax.tree.flatten(jax.tree.map(_abstract, arguments))
    return 1 if _convolves(update, structure, tuple(leaves)) else _ON_CPU


def lengths(total: int, most: int) -> list[int]:
    """Cuts `total` updates into calls of at most `most`; of few lengths, as each is compiled by itself.

    Of one length, if it can be without being less than half of `most`, otherwise of two.
    """
    for length in range(min(most, total), most // 2, -1):
        if total % length == 0:
            return [length] * (total // length)
    calls = -(-total // most)
    return [total * (call + 1) // calls - total * call // calls for call in range(calls)]


def split(rows: np.ndarray, most: int) -> list[np.ndarray]:
    """Batches `rows` [updates, B], at least one, by call: as `lengths`."""
    return np.split(rows, np.cumsum(lengths(len(rows), most))[:-1])


def _abstract(leaf: Any) -> Any:
    if hasattr(leaf, "shape"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


@functools.lru_cache(maxsize=64)
def _convolves(update: Any, structure: Any, leaves: tuple[Any, ...]) -> bool:
    """Whether XLA's convolutions are left in the program for this platform."""
    lowered = update.lower(*jax.tree.unflatten(structure, leaves))
    return "stablehlo.convolution" in lowered.as_text()
