"""What becomes of the sides' measurements: whether to believe them, and the table."""

import statistics
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from alternation import Worker
from problem import Problem, flops_per_update

REFERENCE = "outgen_jax"
_COLUMNS = (
    "image-updates/s",
    "× PyTorch's best",
    "ms/update",
    "GFLOP/s",
    "of peak",
    "compile s",
    "MiB: RSS growth, own",
    "agrees to",
)


def tolerance(options: Mapping[str, Any]) -> float:
    """Largest difference of a pixel that is rounding: float32's, on GPUs TF32's, or bf16's."""
    if options.get("bfloat16") or options.get("dtype") == "bfloat16":
        return 5e-2
    return 1e-3 if jax.default_backend() == "cpu" else 1e-2


def judge(worker: Worker, images: Any, reference: Any, tolerance: float) -> float | None:
    """Largest difference of a pixel from the reference's; too large a one ends the side's part.

    None where there is nothing to compare, because a side has failed or makes another update.
    """
    if not isinstance(images, np.ndarray) or not isinstance(reference, np.ndarray):
        return None
    difference = float(np.abs(images - reference).max())
    if not difference <= tolerance:
        worker.failure = f"failed: images differ from {REFERENCE}'s by {difference:.2g}"
    return difference


def rows(
    found: Mapping[str, Mapping[str, Any]], problem: Problem, peak_tflops: float | None
) -> list[dict[str, str]]:
    """What the table shows of each side; rates from the median of the rounds."""
    seconds = {
        name: statistics.median(side["seconds_per_update"])
        for name, side in found.items()
        if side["seconds_per_update"]
    }
    best = min((s for name, s in seconds.items() if name.startswith("PyTorch")), default=None)
    shown = []
    for name, side in found.items():
        if name not in seconds:
            values = [*[""] * (len(_COLUMNS) - 1), side["failure"] or "failed: no turns"]
        else:
            speed = _speed(seconds[name], best, problem, peak_tflops)
            values = [*speed, *_cost(side)]
        shown.append({"side": name, **dict(zip(_COLUMNS, values, strict=True))})
    return shown


def _speed(
    seconds: float, best: float | None, problem: Problem, peak_tflops: float | None
) -> list[str]:
    rate = problem.batch_size / seconds
    flops = rate * flops_per_update(problem.width)
    return [
        f"{rate:,.1f}",
        f"{best / seconds:.2f}" if best else "",
        f"{1e3 * seconds:,.2f}",
        f"{flops / 1e9:,.0f}",
        f"{flops / 1e12 / peak_tflops:.1%}" if peak_tflops else "",
    ]


def _cost(side: Mapping[str, Any]) -> list[str]:
    memory = (side["memory"] or {}).values()
    difference = side["difference"]
    return [
        f"{side['compile_seconds']:.1f}",
        ", ".join(f"{size / 2**20:,.0f}" for size in memory),
        "not compared" if difference is None else f"{difference:.1g}",
    ]
