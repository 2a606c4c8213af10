"""Where arrays lie. Choices that depend on the hardware are made from this, not from JAX's default backend.

`jax.default_backend()` ignores `jax.default_device` and the devices that arrays were put on: on a machine with a
GPU it says "gpu" even where everything runs on the CPU.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp


def platform_of(arrays: Any = None) -> str:
    """The platform on which a computation with these arrays runs: "cpu", "gpu" or "tpu".

    That is the platform of the first array that was put on a device explicitly (a committed array). Without one, it
    is that of the device on which JAX makes new arrays, see `jax.default_device`.

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax import devices
    >>> cpu = jax.devices("cpu")[0]
    >>> devices.platform_of({"weights": jax.device_put(jnp.zeros(3), cpu)})
    'cpu'

    Args:
      arrays: a pytree; leaves that are not JAX arrays have no place and are passed over.
    """
    for leaf in jax.tree.leaves(arrays):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.committed:
            return _platform(leaf)
    with jax.ensure_compile_time_eval():  # a concrete array inside of a trace, too
        return _platform(jnp.zeros(()))


def processors() -> int:
    """Processors that this process may use; XLA takes as many."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _platform(array: jax.Array) -> str:
    return next(iter(array.devices())).platform
