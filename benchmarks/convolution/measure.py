"""Times one operation on all sides, alternately. A side whose result differs from XLA's is not timed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.harness.alternation import Worker, alternate

REFERENCE = "jax.lax"
TOLERANCE = 5e-3  # relative to the largest value; TF32 on GPUs comes near it


def measure(workers: Mapping[str, Worker], name: str, rounds: int) -> dict[str, Any]:
    """By side: the seconds of the operation, round by round, or why there are none."""
    reference = workers[REFERENCE].call("output", name)
    wrong = {side: disagreement(worker, name, reference) for side, worker in workers.items()}
    turns = {side: worker for side, worker in workers.items() if wrong[side] is None}
    seconds = alternate(turns, rounds, "seconds", name)
    return {
        side: wrong[side] or worker.failure or seconds[side] for side, worker in workers.items()
    }


def disagreement(worker: Worker, name: str, reference: np.ndarray | None) -> str | None:
    """Why a side is not timed: it has failed, or differs from the reference. None where it agrees."""
    output = worker.call("output", name)
    if output is None or reference is None:
        return worker.failure or f"not compared: {REFERENCE} failed"
    difference = float(np.abs(output - reference).max() / np.abs(reference).max())
    return None if difference <= TOLERANCE else f"differs by {difference:.1g}"
