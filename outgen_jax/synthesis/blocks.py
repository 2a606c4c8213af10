"""How many images a processor works on at a time, so that what a network makes of them stays in its cache.

On CPU, a step of a whole batch writes every layer's output to memory and reads it again. A step of a few images after
others keeps it in the cache. Too few images, however, read the weights too often. GPUs and TPUs take the whole batch.
"""

import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from outgen_jax import devices

# Of the outputs of a layer, for each processor: about the size of its own cache.
CACHE_BYTES = 2**20
# Equations whose results are written to memory; XLA fuses the others with them.
_WRITTEN = frozenset(
    {
        "conv_general_dilated",
        "convolve",
        "convolution_input_gradient",
        "dot_general",
    }
)


def least_images(gradient: Any, variables: Any, image: Any, *, passes: int) -> int:
    """The smallest number of images that should work at the same time.

    Args:
      gradient: a function made by `jax.jit`: variables and images [1, H, W, C] -> a gradient of the network.
      variables: the network's.
      image: [1, H, W, C]; only its shape and type are read.
      passes: backward passes of an image that run at once.
    """
    sizes = [_bytes(v.aval) for v in _results(gradient.trace(variables, image).jaxpr)]
    if not sizes:
        return sys.maxsize
    weights = sum(_bytes(leaf) for leaf in jax.tree.leaves(variables))
    cache = CACHE_BYTES * devices.processors()
    return max(1, -(-weights // sum(sizes)), cache // (passes * max(sizes)))


def even_block(count: int, least: int) -> int:
    """The smallest divisor of `count` that is not below `least`; `count` if there is none.

    >>> even_block(12, least=5)
    6
    >>> even_block(12, least=20)
    12
    """
    return next((size for size in range(least, count) if count % size == 0), count)


def _results(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """What the equations of `_WRITTEN` return, in the bodies of others too."""
    for equation in (jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr).eqns:
        if equation.primitive.name in _WRITTEN:
            yield from equation.outvars
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(leaf):
                yield from _results(leaf)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _bytes(array: Any) -> int:
    return int(array.size * array.dtype.itemsize) if hasattr(array, "dtype") else 0
