"""Images per second in training VGG16: forward, backward and update, against PyTorch.

Subject   One update of VGG16 of full width on 32×32 images: batch normalisation in training mode,
          Nesterov SGD; `training.classifier`'s compiled step (with its crop and flip, too), and the
          same in PyTorch (eager, channels-last, torch.compile; on GPUs also bf16).
Method    Sides in processes of their own with the same cores and environment, taking turns; median
          of the rounds; compilation apart. A side is timed only if its kernels after one update
          agree with outgen_jax's (not with crop and flip: another update).
Command   python -m benchmarks.training
          python -m benchmarks.training --peak_tflops=790 --batch_sizes=128,512,2048   (GPU)
Duration  31 minutes on 2 CPU cores with --rounds=3
Output    the tables, and --out gets table.md and results.json with the raw numbers of every round.
"""

import os
from typing import Any

import jax
from absl import flags

from benchmarks.harness.comparison import PYTORCH_MODES, REFERENCE, Turn, measure
from benchmarks.harness.machine import machine
from benchmarks.harness.workload import Workload
from benchmarks.training.sides import kernels
from benchmarks.training.table import table
from outgen_jax import devices, files, runs, scripts
from outgen_jax.tools import common_flags

_BATCHES = flags.DEFINE_list("batch_sizes", ["128", "512"], "Images at a time.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
_UPDATES = flags.DEFINE_integer("updates", None, "Updates timed in a turn; 10 on CPU, else 200.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_PEAK = flags.DEFINE_float("peak_tflops", None, "The device's peak, to give rates as its share.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, images and labels.", 0)
_OUT = common_flags.out("benchmarks/training")
_OVERWRITE = common_flags.overwrite()


def sides(on_cpu: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: the function that makes the side, and its options."""
    ours, pytorch = "benchmarks.training.sides.outgen", "benchmarks.training.sides.pytorch"
    found: dict[str, tuple[str, dict[str, Any]]] = {
        REFERENCE: (ours, {}),
        "outgen_jax, crop and flip": (ours, {"augmented": True}),
        **{name: (pytorch, options) for name, options in PYTORCH_MODES.items()},
    }
    if not on_cpu:
        half = {"bfloat16": True, "channels_last": True}
        found["outgen_jax bf16"] = (ours, {"dtype": "bfloat16"})
        found["outgen_jax bf16, crop and flip"] = (ours, {"dtype": "bfloat16", "augmented": True})
        found["PyTorch bf16 channels_last"] = (pytorch, half)
        found["PyTorch bf16 channels_last compile"] = (pytorch, {**half, "compiled": True})
    return found


def turn(on_cpu: bool) -> Turn:
    # The package makes ten updates in a call on CPU, elsewhere 25. Training is chaotic: only one is compared.
    short, timed = (0, 10) if on_cpu else (25, 200)
    return Turn(short + (_UPDATES.value or timed), short, compared=1)


def main(argv: list[str]) -> None:
    del argv
    # Several processes share a GPU; none may take most of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    on_cpu = devices.platform_of() == "cpu"
    about = machine("torch")
    results: dict[str, Any] = {**about, "batches": {}}
    print(f"{jax.devices()[0].device_kind}, {about}")
    for size in map(int, _BATCHES.value):
        workload = Workload(_WIDTH.value, size, _SEED.value)
        found = measure(
            workload, sides(on_cpu), turn(on_cpu), rounds=_ROUNDS.value, start=kernels(workload)
        )
        results["batches"][size] = found
        text = table({"flags": run.flags, **results})
        print(text, flush=True)
        run.write_results(results)
        files.write_atomic(run.directory / "table.md", text)


if __name__ == "__main__":
    scripts.start(main)
