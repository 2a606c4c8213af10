"""Image-updates per second of paper A's synthesis, against PyTorch and two attack libraries.

Subject   One SGD update (learning rate 0.05, weight decay 5e-4, arctan pixel map) of 32×32 images
          with VGG16 of full width, random weights: `og.synthesize` itself; the same update in
          PyTorch (eager, channels-last, torch.compile, on GPUs also bf16); and one step of Foolbox's
          and torchattacks' L2 projected gradient descent on the same PyTorch network.
Method    Sides in processes of their own with the same cores and environment, taking turns; median
          of the rounds; compilation apart. A side is timed only if its images after some updates
          agree with outgen_jax's (not the attacks: their update is another).
Command   python -m benchmarks.synthesis
          python -m benchmarks.synthesis --peak_tflops=790 --cifar_job   (H200)
Duration  about 30 minutes on 2 CPU cores (batch 1,024 is most of it)
Output    the tables, and --out gets table.md and results.json with the raw numbers of every round.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from benchmarks.harness.alternation import Worker
from benchmarks.harness.comparison import PYTORCH_MODES, REFERENCE, Turn, measure
from benchmarks.harness.machine import machine
from benchmarks.harness.workload import Workload
from benchmarks.synthesis.table import table
from outgen_jax import files, runs, scripts
from outgen_jax.tools import common_flags

_BATCHES = flags.DEFINE_list("batch_sizes", ["128", "1024"], "Images at a time.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
_UPDATES = flags.DEFINE_integer("updates", None, "Updates timed in a turn; 10 on CPU, else 200.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_PEAK = flags.DEFINE_float("peak_tflops", None, "The device's peak, to give rates as its share.", 0)
_JOB = flags.DEFINE_bool("cifar_job", False, "Also 50,000 images × 100 updates, for a GPU.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "CIFAR-10 for that; random images by default.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, images and targets.", 0)
_OUT = common_flags.out("benchmarks/synthesis")
_OVERWRITE = common_flags.overwrite()


def sides(on_cpu: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: the function that makes the side, and its options."""
    pytorch = "benchmarks.synthesis.torch_peers.pytorch"
    found: dict[str, tuple[str, dict[str, Any]]] = {
        REFERENCE: ("benchmarks.synthesis.ours.outgen", {}),
        **{name: (pytorch, options) for name, options in PYTORCH_MODES.items()},
        "Foolbox L2PGD": ("benchmarks.synthesis.torch_peers.foolbox", {}),
        "torchattacks PGDL2": ("benchmarks.synthesis.torch_peers.torchattacks", {}),
    }
    if not on_cpu:
        half = {"bfloat16": True, "channels_last": True}
        found["outgen_jax bf16"] = ("benchmarks.synthesis.ours.outgen", {"dtype": "bfloat16"})
        found["PyTorch bf16 channels_last"] = (pytorch, half)
        found["PyTorch bf16 channels_last compile"] = (pytorch, {**half, "compiled": True})
    return found


def turn(on_cpu: bool) -> Turn:
    # `og.synthesize` makes ten updates in a call on CPU, elsewhere 25.
    short, timed = (0, 10) if on_cpu else (25, 200)
    return Turn(short + (_UPDATES.value or timed), short, compared=1 if on_cpu else 25)


def vmap_ratio(workload: Workload) -> dict[str, Any]:
    """Time of the network's gradient mapped over images, over that of one call with the batch."""
    with contextlib.closing(Worker("benchmarks.synthesis.ours.gradients", workload)) as worker:
        names = ["mapped", "batched"] * _ROUNDS.value
        values = [worker.call("seconds", name) for name in names]
        if worker.failure is not None:
            return {"failure": worker.failure}
    mapped, batched = statistics.median(values[::2]), statistics.median(values[1::2])
    return {"mapped": values[::2], "batched": values[1::2], "ratio": mapped / batched}


def start_seconds(workload: Workload) -> dict[str, Any]:
    """From starting Python to the first image, twice over one persistent compilation cache."""
    seconds, failure = [], None
    with tempfile.TemporaryDirectory() as cache, environment("JAX_COMPILATION_CACHE_DIR", cache):
        for _ in range(2):
            start = time.perf_counter()
            with contextlib.closing(
                Worker("benchmarks.synthesis.ours.outgen", workload, cache=True)
            ) as worker:
                worker.call("images", 1)
                seconds.append(time.perf_counter() - start)
                failure = worker.failure or failure
    return {"seconds": seconds, "failure": failure}


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cifar_job(images: int = 50_000, updates: int = 100) -> dict[str, Any]:
    workload = Workload(_WIDTH.value, images, _SEED.value)
    options = {"dtype": "bfloat16", "data_dir": _DATA_DIR.value}
    with contextlib.closing(
        Worker("benchmarks.synthesis.ours.WholeSet", workload, **options)
    ) as worker:
        seconds = worker.call("seconds", updates)
        return {"images": images, "updates": updates, "seconds": seconds, "failure": worker.failure}


def main(argv: list[str]) -> None:
    del argv
    # Several processes share a GPU; none may take most of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    batch_sizes = [int(size) for size in _BATCHES.value]
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    on_cpu = jax.default_backend() == "cpu"
    about = machine("torch", "foolbox", "torchattacks")
    results: dict[str, Any] = {**about, "batches": {}}
    print(f"{jax.devices()[0].device_kind}, {about}")
    for size in batch_sizes:
        workload = Workload(_WIDTH.value, size, _SEED.value)
        found = measure(
            workload, sides(on_cpu), turn(on_cpu), rounds=_ROUNDS.value, start=workload.images()
        )
        results["batches"][size] = found
        text = table({"flags": run.flags, **results})
        print(text, flush=True)
        run.write_results(results)
        files.write_atomic(run.directory / "table.md", text)
    smallest = Workload(_WIDTH.value, min(batch_sizes), _SEED.value)
    results["vmap"] = vmap_ratio(smallest)
    print(f"network under vmap over images, against one batched call: {results['vmap']}")
    results["starts"] = start_seconds(smallest)
    print(f"first and second start with one compilation cache: {results['starts']}", flush=True)
    if _JOB.value:
        results["cifar_job"] = cifar_job()
        print(f"whole set with compilation: {results['cifar_job']}")
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
