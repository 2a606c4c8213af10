"""What a generated data set is a function of, and by what it was made, as JSON has it.

A resumed run must agree with the run it goes on with. What can be named is named; solvers and
networks are functions, told apart by the program they compile to.
"""

import hashlib
import importlib.metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import slots
from outgen_jax.synthesis.predict import ApplyFn

_PACKAGES = ("outgen_jax", "jax", "jaxlib", "numpy", "pillow", "tensorflow-datasets")


def classifier_hash(variables: Any) -> str:
    """SHA-256 of the names, types, shapes and bytes of a network's variables, any pytree."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def program_hash(
    apply_fn: ApplyFn, solver: Solver, variables: Any, image: np.ndarray, num_classes: int
) -> str:
    """SHA-256 of the update of one image [H, W, C] as a program.

    It tells apart solvers, their settings, networks, backends and versions of jax that compile
    them otherwise; not the number of devices.
    """
    text = slots.program_text(apply_fn, solver, variables, image, num_classes)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """Of Python packages that have a part in the bytes of a data set."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
