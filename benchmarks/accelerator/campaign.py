"""Parts one after another within a time, each kept as it ends: what is left out, and why, is said."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from outgen_jax import runs


class Part(NamedTuple):
    """One measurement."""

    name: str  # of its file
    measure: Callable[[], dict[str, Any]]
    reserve: float  # seconds that must be left for it to begin


class Found(NamedTuple):
    """By name: what was measured, and why the other parts were not."""

    parts: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def run(
    parts: Sequence[Part], directory: Path, seconds: float, tell: Callable[[Found], object]
) -> Found:
    """Runs the parts in order; those that a former run has kept in `directory` are read.

    A part that has begun is not interrupted. One that fails for an error of the device, such as too little
    memory, is left out.

    Args:
      parts: in the order of what matters most.
      directory: of the files.
      seconds: from now on, for all parts.
      tell: called after every part.
    """
    start = time.perf_counter()
    found = Found({}, {})
    for part in parts:
        path = directory / f"{part.name}.npz"
        left = seconds - (time.perf_counter() - start)
        if not path.exists() and left < part.reserve:
            found.left_out[part.name] = f"{max(left, 0):.0f} s left, {part.reserve:.0f} s needed"
        else:
            try:
                arrays = runs.kept(path, part.measure)
                found.parts[part.name] = {name: a.tolist() for name, a in arrays.items()}
            except jax.errors.JaxRuntimeError as error:
                found.left_out[part.name] = str(error).splitlines()[0]
        tell(found)
    return found
