"""Milliseconds of every convolution of VGG16, against XLA's own and PyTorch's.

Subject   `outgen_jax.models.conv` forward, gradient to the image, gradient to the kernel; float32;
          VGG16's layers on 32×32 images, and depthwise layers of EfficientNet-Lite0 on 224×224 (a
          sixteenth of the batch).
Method    Sides in processes of their own, taking turns; median of the rounds. A side is timed only
          if what it returns agrees with XLA's to 5e-3 of the largest value.
Command   python -m benchmarks.convolution
Duration  about 5 minutes on 2 CPU cores
Output    the table, and --out gets table.md and results.json with the raw numbers of every round.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import tqdm
from absl import flags

from benchmarks.convolution.measure import REFERENCE, measure
from benchmarks.convolution.sides import OPERATIONS, Layer
from benchmarks.convolution.table import table
from benchmarks.harness.alternation import Worker
from benchmarks.harness.machine import machine
from benchmarks.harness.workload import layers
from outgen_jax import files, runs, scripts
from outgen_jax.tools import common_flags

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images.", 16)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_OUT = common_flags.out("benchmarks/convolution")
_OVERWRITE = common_flags.overwrite()

SIDES = {
    "outgen_jax": "benchmarks.convolution.sides.outgen",
    REFERENCE: "benchmarks.convolution.sides.xla",
    "PyTorch": "benchmarks.convolution.sides.pytorch",
}
# Side of the map, channels and kernel of EfficientNet-Lite0's depthwise layers of stride 1.
_DEPTHWISE = ((112, 32, 3), (56, 144, 3), (28, 240, 5), (14, 480, 3), (14, 672, 5), (7, 1152, 5))


def measured_layers(width: float, batch_size: int) -> list[Layer]:
    found = [
        Layer(batch_size, size, inputs, outputs)
        for block in layers(width)
        for inputs, outputs, size in block
    ]
    depthwise = [Layer(batch_size // 16, s, c, None, k) for s, c, k in _DEPTHWISE]
    return [*dict.fromkeys(found), *depthwise]


def compare(chosen: Sequence[Layer], rounds: int) -> dict[str, Any]:
    """By name: every operation of every layer, as `measure` has it."""
    cases = [f"{layer.name}: {operation}" for layer in chosen for operation in OPERATIONS]
    with contextlib.ExitStack() as stack:
        workers = {side: Worker(factory, chosen) for side, factory in SIDES.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        bar = tqdm.tqdm(cases, mininterval=1, leave=False)
        return {name: measure(workers, name, rounds) for name in bar}


def main(argv: list[str]) -> None:
    del argv
    # Several processes share a GPU; none may take most of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    found = compare(measured_layers(_WIDTH.value, _BATCH.value), _ROUNDS.value)
    results = {**machine("torch"), "seconds": found}
    text = table(results)
    files.write_atomic(run.directory / "table.md", text)
    print(text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
