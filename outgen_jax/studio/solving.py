"""One run of the solver, with a callback after each step."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from outgen_jax.studio.networks import Network
from outgen_jax.studio.saving import Saved
from outgen_jax.synthesis.synthesize import Result, synthesize


class Reached(NamedTuple):
    """The best image so far, and what the network says of it."""

    image: np.ndarray  # [H, W, C] float32 in [0, 1]
    says: np.ndarray  # [K] in the units of targets
    distance: float  # in the output's own measure
    change: float  # L2 over all pixels
    steps: int
    seconds: float  # since the run began
    converged: bool
    reached_after: float | None  # seconds until it was first within the tolerance
    saved: Saved | None = None  # once the run has ended


def solve(
    network: Network,
    source: np.ndarray,
    wanted: np.ndarray,
    *,
    tolerance: float,
    tell: Callable[[Reached], bool],
) -> Reached:
    """Changes an image [H, W, C] until the network says `wanted` [K]; a masked entry is free.

    Args:
      network: the network to ask.
      source: uint8.
      wanted: in the units of targets.
      tolerance: distance at which the target is reached. The solver then makes the change smaller.
      tell: called after every step; the run stops when it returns True.
    """
    begin = time.perf_counter()
    reached_after: float | None = None

    def seen(result: Result) -> Reached:
        nonlocal reached_after
        seconds = time.perf_counter() - begin
        if reached_after is None and result.converged[0]:
            reached_after = seconds
        image = result.images[0].copy()
        says = np.asarray(network.output.readout(jnp.asarray(result.outputs[0])))
        if not np.isfinite(says).all():  # no outputs come with a distance that overflows
            says = network.says(image)
        return Reached(
            image=image,
            says=says,
            distance=float(result.distance[0]),
            change=float(np.linalg.norm(image - source / np.float32(255))),
            steps=int(result.steps[0]),
            seconds=seconds,
            converged=bool(result.converged[0]),
            reached_after=reached_after,
        )

    result = synthesize(
        network.apply_fn,
        network.variables,
        source[None],
        wanted,
        output=network.output,
        tolerance=tolerance,
        callback=lambda result: tell(seen(result)),
    )
    return seen(result)
