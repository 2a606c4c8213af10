"""What a generated data set was made from, and by which versions, as JSON values.

A resumed run must agree in them with the run that it continues. Networks and solvers are functions, so a hash of the
program that they compile to stands for them.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.outputs.distribution import ALL_CLASSES
from outgen_jax.solvers.combinators import Combinator
from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.objective import Objective
from outgen_jax.solvers.solver import Problem, Solver
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis import programs
from outgen_jax.synthesis.programs import Network
from outgen_jax.synthesis.request import Meaning
from outgen_jax.versions import installed_version

# Of many classes, so many have a row each in the program of the solver that is hashed. Any number will do.
_COUNTED = 8
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


def program_hash(network: Network, meaning: Meaning, variables: Any, image: np.ndarray) -> str:
    """SHA-256 of the network of one image [H, W, C], and of its gradient, as a program.

    It tells apart networks, backends and versions of jax that compile them otherwise; not the number of devices.
    """

    def both(variables: Any, image: jax.Array, cotangents: Any) -> Any:
        seen = networks.of_one_image(network, meaning.kinds, variables)
        outputs, pull = jax.vjp(seen, image)
        return outputs, pull(cotangents)

    return _hash(both, _abstract(variables), _image(image), _targets(meaning))


def solver_record(
    solver: Solver | Combinator,
    network: Network,
    meaning: Meaning,
    variables: Any,
    image: np.ndarray,
) -> Any:
    """A solver as JSON has it: its parts with their options, and for a primitive one the hash of its program.

    An optimiser is a pair of functions: only its program tells it from another.
    """

    def program(part: Solver) -> str:
        return _solver_hash(part, network, meaning, variables, image)

    known = functools.cache(program)  # parts of a combination may be equal

    def record(part: Solver | Combinator) -> Any:
        name = type(part).__name__
        if not isinstance(part, Combinator):
            found = known(part) if _is_hashable(part) else program(part)
            return {"name": name, "steps": part.steps, "program": found}
        options = {
            field.name: getattr(part, field.name)
            for field in dataclasses.fields(part)  # type: ignore[arg-type]
            if isinstance(getattr(part, field.name), bool | int | float | str)
        }
        return {"name": name, **options, "parts": [record(inner) for inner in part.parts]}

    return record(solver)


def limits_record(limits: Restriction) -> dict[str, Any]:
    """Limits on the change as JSON has them; a mask by its shape, how many of its entries may change, and SHA-256.

    >>> limits_record(Restriction(max_change=0.1))
    {'mask': None, 'max_change': 0.1, 'lowpass_radius': None}
    """
    mask = None
    if limits.mask is not None:
        allowed = np.asarray(limits.mask.allowed)
        digest = hashlib.sha256(allowed.tobytes()).hexdigest()
        mask = {"shape": list(allowed.shape), "free": int(allowed.sum()), "sha256": digest}
    return {
        "mask": mask,
        "max_change": limits.max_change,
        "lowpass_radius": limits.lowpass_radius,
    }


def _is_hashable(solver: Solver) -> bool:
    """Whether the options of a solver are; arrays are not."""
    try:
        hash(solver)
    except TypeError:
        return False
    return True


def _solver_hash(
    solver: Solver, network: Network, meaning: Meaning, variables: Any, image: np.ndarray
) -> str:
    """SHA-256 of the first step of a solver as a program, and of what it says of the state after it."""
    counts = tuple(None if shape[-1] <= ALL_CLASSES else _COUNTED for shape in meaning.shapes)

    def one(variables: Any, image: jax.Array, targets: Any, tolerance: jax.Array) -> Any:
        objective = Objective(targets, meaning.kinds, counts)
        steered = networks.of_one_image(network, meaning.kinds, variables)
        problem = Problem(steered, objective, image, tolerance)
        state, outputs = solver.update(problem, solver.init(problem, image))
        return state, outputs, solver.image(state), solver.is_done(state)

    tolerance = jax.ShapeDtypeStruct((), jnp.float32)
    return _hash(one, _abstract(variables), _image(image), _targets(meaning), tolerance)


def _hash(function: Callable[..., Any], *arguments: Any) -> str:
    with programs.relaxed():
        text = jax.jit(function).lower(*arguments).as_text()
    return hashlib.sha256(text.encode()).hexdigest()


def _abstract(tree: Any) -> Any:
    """Shapes alone: where the variables lie would be part of the program."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _image(image: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(image.shape, jnp.float32)


def _targets(meaning: Meaning) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(
        jax.ShapeDtypeStruct((math.prod(shape[:-1]), shape[-1]), jnp.float32)
        for shape in meaning.shapes
    )


def versions() -> dict[str, str | None]:
    """Versions of the packages that the bytes of a data set depend on; None where one is not installed."""
    return {name: installed_version(name) for name in _PACKAGES}
