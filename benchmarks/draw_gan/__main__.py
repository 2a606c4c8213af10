"""Training steps per second of paper C's attention GAN, against PyTorch eager.

Subject   One alternating update at the paper's sizes: batch 100, 28×28, N = 5, T = 6, 256 units, sigmoid cells, Adam.
Method    Sides in processes of their own with the same cores and environment, taking turns; median of the rounds;
          compilation apart. PyTorch is timed only if, from the same weights and latent vectors, its generator draws
          the same images after two updates.
Command   python -m benchmarks.draw_gan
Duration  a minute or two on 2 CPU cores
Output    the table, and --out gets results.json with the raw numbers of every round, and table.md.
"""

import contextlib
import os
from typing import Any

import jax
from absl import flags

from benchmarks.draw_gan.sides import Workload
from benchmarks.draw_gan.table import table
from benchmarks.harness.alternation import Worker, alternate
from benchmarks.harness.comparison import judge
from benchmarks.harness.machine import machine
from outgen_jax import files, runs, scripts
from outgen_jax.devices import processors
from outgen_jax.tools import common_flags

_BATCH = flags.DEFINE_integer("batch_size", 100, "Images an update.", 1)
_UNITS = flags.DEFINE_integer("units", 256, "Recurrent units.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
_UPDATES = flags.DEFINE_integer("updates", 40, "Updates timed in a turn.", 1)
_OUT = common_flags.out("benchmarks/draw_gan")
_OVERWRITE = common_flags.overwrite()

SIDES = {
    "outgen_jax": "benchmarks.draw_gan.sides.outgen",
    "PyTorch eager": "benchmarks.draw_gan.sides.pytorch",
}
CHECKED = 2  # updates before the images are compared
TOLERANCE = 0.03  # of what the images have moved


def measure(workload: Workload, updates: int, rounds: int) -> dict[str, dict[str, Any]]:
    """By side: what was measured, or why it failed."""
    found: dict[str, dict[str, Any]] = {}
    start = reference = None
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, factory in SIDES.items():
            workers[name] = worker = Worker(factory, workload)
            stack.callback(worker.close)
            compile_seconds = worker.call("prepare", updates + 1, 1)
            images = worker.call("images", CHECKED)
            if reference is None:
                start, reference = worker.call("images", 0), images
            found[name] = {
                "device": worker.call("device"),
                "compile_seconds": compile_seconds,
                "difference": judge(worker, images, reference, start, TOLERANCE),
            }
        seconds = alternate(workers, rounds, "seconds", updates + 1, 1)
        for name, worker in workers.items():
            found[name] |= {"seconds_per_update": seconds[name], "failure": worker.failure}
    return found


def main(argv: list[str]) -> None:
    del argv
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    workload = Workload(batch_size=_BATCH.value, units=_UNITS.value)
    print(f"{jax.devices()[0].device_kind}, {processors()} threads each")
    found = measure(workload, _UPDATES.value, _ROUNDS.value)
    results = {**machine("torch"), "sides": found}
    text = table({"flags": run.flags, **results})
    print(text)
    files.write_atomic(run.directory / "table.md", text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
