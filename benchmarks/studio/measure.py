"""One run of the studio's solver, by the clock and in processor time."""

import time
from typing import Any

import numpy as np

from outgen_jax.studio.networks import Network
from outgen_jax.studio.solving import Reached, solve

SHARES = (0.6, 0.4)


def measure(
    network: Network, image: np.ndarray, pair: tuple[int, int], tolerance: float
) -> dict[str, Any]:
    """One run, until it is within the tolerance."""
    wanted = np.zeros(len(network.class_names))
    wanted[list(pair)] = SHARES
    processor = time.process_time()

    def is_reached(reached: Reached) -> bool:
        return reached.converged

    reached = solve(network, image, wanted, tolerance=tolerance, tell=is_reached)
    return {
        "pair": pair,
        "reached": reached.converged,
        "seconds": reached.seconds,
        "processor_seconds": time.process_time() - processor,
        "steps": reached.steps,
    }
