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
    """The `judge`d difference that is rounding: float32's, on GPUs TF32's, or bf16's.

    A network of random weights magnifies it: where a unit is near 0, rounding decides whether the
    gradient passes. A share f of such units turns the gradient by √f; PyTorch's own layouts and
    compilers differ by up to 0.008 of the way after one update, bf16 from float32 by 0.3.
    """
    if options.get("bfloat16") or options.get("dtype") == "bfloat16":
        return 0.5
    return 0.03 if jax.default_backend() == "cpu" else 0.15


def judge(
    worker: Worker, images: Any, reference: Any, start: np.ndarray, tolerance: float
) -> float | None:
    """How far the images [B, H, W, C] are from the reference's, in units of what that has moved.

    ‖images − reference‖ / ‖reference − start‖; above the tolerance the side's part is over. None
    where there is nothing to compare, because a side has failed or makes another update.
    """
    if not isinstance(images, np.ndarray) or not isinstance(reference, np.ndarray):
        return None
    difference = float(np.linalg.norm(images - reference) / np.linalg.norm(reference - start))
    if not difference <= tolerance:
        worker.failure = f"failed: images differ from {REFERENCE}'s by {difference:.2g} of the way"
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
