"""Comparing the sides of a benchmark: agreement of their outputs, turns, and the rows of the table."""

import contextlib
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.harness.alternation import Worker, alternate

REFERENCE = "outgen_jax"
# PyTorch's modes in float32: name of the side -> options of the function that makes it.
PYTORCH_MODES: Mapping[str, dict[str, Any]] = {
    "PyTorch eager": {},
    "PyTorch eager channels_last": {"channels_last": True},
    "PyTorch compile": {"compiled": True},
    "PyTorch compile channels_last": {"compiled": True, "channels_last": True},
}
_COLUMNS = (
    "× PyTorch's best",
    "ms/update",
    "GFLOP/s",
    "of peak",
    "compile s",
    "RSS growth, MiB",
    "own count, MiB",
    "relative difference",
)


class Turn(NamedTuple):
    """Updates of the two calls whose difference is timed."""

    long: int
    short: int
    compared: int  # before the results are compared


def measure(
    workload: Any,
    chosen: Mapping[str, tuple[str, dict[str, Any]]],
    turn: Turn,
    *,
    rounds: int,
    start: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """All sides of one workload in turns -> by name: what was measured, or why it failed.

    Args:
      workload: what they solve; the first argument of the functions that make the sides.
      chosen: by name: the function that makes the side, and its options; `REFERENCE` first.
      turn: what is timed.
      rounds: turns of each side.
      start: what `images(0)` would be, to judge the sides by how far they came.
    """
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        reference = None
        for name, (factory, options) in chosen.items():
            print(f"  starting {name}", flush=True)
            workers[name] = worker = Worker(factory, workload, **options)
            stack.callback(worker.close)
            compile_seconds = worker.call("prepare", turn.long, turn.short)
            images = worker.call("images", turn.compared)
            reference = images if name == REFERENCE else reference
            found[name] = {
                "device": worker.call("device"),
                "compile_seconds": compile_seconds,
                "difference": judge(worker, images, reference, start, tolerance(options)),
            }
        seconds = alternate(workers, rounds, "seconds", turn.long, turn.short)
        for name, worker in workers.items():
            found[name] |= {"seconds_per_update": seconds[name], "memory": worker.call("memory")}
            found[name]["failure"] = worker.failure
    return found


def tolerance(options: Mapping[str, Any]) -> float:
    """The largest difference that rounding explains: of float32, on GPUs of TF32, or of bf16.

    A network of random weights magnifies it: where a unit is near 0, rounding decides whether the
    gradient passes. A share f of such units turns the gradient by √f; PyTorch's own layouts and
    compilers differ by up to 0.008 of the way after one update, bf16 from float32 by 0.3.
    """
    if options.get("bfloat16") or options.get("dtype") == "bfloat16":
        return 0.5
    return 0.03 if jax.default_backend() == "cpu" else 0.15


def judge(
    worker: Worker, images: Any, reference: Any, start: Any, tolerance: float
) -> float | None:
    """How far the images [B, H, W, C] are from the reference's, in units of what that has moved.

    ‖images − reference‖ / ‖reference − start‖; above the tolerance the side's part is over. None
    where there is nothing to compare, because a side has failed or makes another update.
    """
    if not all(isinstance(array, np.ndarray) for array in (images, reference, start)):
        return None
    difference = float(np.linalg.norm(images - reference) / np.linalg.norm(reference - start))
    if not difference <= tolerance:
        worker.failure = f"failed: images differ from {REFERENCE}'s by {difference:.2g} of the way"
    return difference


def rows(
    found: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    *,
    rounds: int,
    rate: str = "image-updates/s",
    flops: int | None = None,
    peak_tflops: float | None = None,
) -> list[dict[str, str]]:
    """What the table shows of each side; rates from the median of the rounds, of sides that took all turns.

    Args:
      found: what `measure` returned.
      batch_size: images of an update.
      rounds: turns that each side was to take.
      rate: what images by the second are called.
      flops: of one image; None: not counted, and not shown.
      peak_tflops: of the device, to give rates as its share; None: no such column.
    """
    seconds = {
        name: statistics.median(side["seconds_per_update"])
        for name, side in found.items()
        if len(side["seconds_per_update"]) == rounds
    }
    best = min((s for name, s in seconds.items() if name.startswith("PyTorch")), default=None)
    shown = []
    for name, side in found.items():
        if name not in seconds:
            values = [*[""] * len(_COLUMNS), side["failure"] or "failed: no turns"]
        else:
            speed = _speed(seconds[name], best, batch_size, flops, peak_tflops)
            values = [*speed, *_cost(side)]
        row = {"side": name, **dict(zip((rate, *_COLUMNS), values, strict=True))}
        if not flops:
            del row["GFLOP/s"]
        if not flops or not peak_tflops:
            del row["of peak"]
        shown.append(row)
    return shown


def _speed(
    seconds: float,
    best: float | None,
    batch_size: int,
    flops: int | None,
    peak_tflops: float | None,
) -> list[str]:
    rate = batch_size / seconds
    flops_per_second = rate * (flops or 0)
    return [
        f"{rate:,.1f}",
        f"{best / seconds:.2f}" if best else "",
        f"{1e3 * seconds:,.2f}",
        f"{flops_per_second / 1e9:,.0f}",
        f"{flops_per_second / 1e12 / peak_tflops:.1%}" if peak_tflops else "",
    ]


def _cost(side: Mapping[str, Any]) -> list[str]:
    memory = dict(side["memory"] or {})
    growth, own = memory.pop("resident_growth", None), next(iter(memory.values()), None)
    difference = side["difference"]
    return [
        f"{side['compile_seconds']:.1f}",
        *("" if size is None else f"{size / 2**20:,.0f}" for size in (growth, own)),
        "not compared" if difference is None else f"{difference:.1g}",
    ]
