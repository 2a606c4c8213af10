"""How many updates one call of a compiled function makes: one, or several in a `jax.lax.scan`.

Several updates a call cost the host less. On CPU they also save memory traffic: XLA allocates the temporaries anew in
each call, and a scan keeps them for all of its updates. That was a quarter of the time of an update of VGG16.

The choice between one and several is a **workaround for CPUs**: XLA's own convolutions are slow inside of a loop
there, their gradients up to 69 times slower than outside, unless images are NHWC and kernels HWIO. So a program in
which a convolution of another layout is left makes one update a call on CPU. Elsewhere, and for programs without one
(`models.conv` and `og.accelerate` leave none), there is no choice to make.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from outgen_jax import devices

# XLA's convolutions are as fast in loops as outside in this layout, which `og.accelerate` writes.
_FAST_LAYOUT = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
_ON_ACCELERATOR = 25
_ON_CPU = 10


def updates_per_call(update: Callable[..., Any], *arguments: Any) -> int:
    """The largest number of updates that one call of `update` should make.

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax import chunking
    >>> scanned = jax.jit(lambda x, rows: jax.lax.scan(lambda x, row: (x + row, None), x, rows)[0])
    >>> chunking.updates_per_call(scanned, jnp.zeros(()), jnp.ones(1)) in (10, 25)
    True

    Args:
      update: a function made by `jax.jit`.
      arguments: what a call with one update takes; JAX or numpy arrays of any type. Only shapes, types and devices
        are read, nothing runs.
    """
    if devices.platform_of(arguments) != "cpu":
        return _ON_ACCELERATOR
    leaves, structure = jax.tree.flatten(jax.tree.map(_abstract, arguments))
    # Weak references: what was found out about a function must not keep it, and the network in it, alive.
    found = _convolves_on_cpu(weakref.ref(update), structure, tuple(map(_weak, leaves)))
    return 1 if found else _ON_CPU


def lengths(total: int, most: int) -> list[int]:
    """Cuts `total` updates into calls of at most `most` updates each.

    Every length is a program of its own, so there are few of them: one length if `total` has a divisor above half of
    `most`, two otherwise.

    >>> from outgen_jax import chunking
    >>> chunking.lengths(18, most=10)
    [9, 9]
    >>> chunking.lengths(37, most=10)
    [9, 9, 9, 10]
    """
    for length in range(min(most, total), most // 2, -1):
        if total % length == 0:
            return [length] * (total // length)
    calls = -(-total // most)
    return [total * (call + 1) // calls - total * call // calls for call in range(calls)]


def split(rows: np.ndarray, most: int) -> list[np.ndarray]:
    """Cuts batches `rows` [updates, B], at least one, into those of each call, see `lengths`.

    >>> import numpy as np
    >>> from outgen_jax import chunking
    >>> [part.shape for part in chunking.split(np.zeros((11, 3)), most=10)]
    [(5, 3), (6, 3)]
    """
    return np.split(rows, np.cumsum(lengths(len(rows), most))[:-1])


def _abstract(leaf: Any) -> Any:
    """Shape and type as JAX would take the array: int64 and float64 of numpy become 32 bits, unless x64 is on."""
    if not hasattr(leaf, "shape"):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    found = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(found.shape, found.dtype)


def _weak(leaf: Any) -> Any:
    return weakref.ref(leaf) if callable(leaf) else leaf


def _strong(leaf: Any) -> Any:
    return leaf() if isinstance(leaf, weakref.ref) else leaf


@functools.lru_cache(maxsize=64)
def _convolves_on_cpu(update: Any, structure: Any, leaves: tuple[Any, ...]) -> bool:
    """Whether XLA's own convolutions are left in the program for CPU."""
    arguments = jax.tree.unflatten(structure, map(_strong, leaves))
    lowered = update().trace(*arguments).lower(lowering_platforms=("cpu",))
    lines = lowered.as_text().splitlines()
    return any("stablehlo.convolution" in line and _FAST_LAYOUT not in line for line in lines)
