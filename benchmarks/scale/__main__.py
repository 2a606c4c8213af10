"""How long would sets of the size of CIFAR-10, ImageNet and LAION-400M take on accelerators, and what saturates first?

Subject   The model of `benchmarks/scale/model.py`, with what is measured here: processor seconds to encode and write
          an image, and to hand one to a device. From committed results: the mean number of steps of `og.exact`, the
          rate of SGD on CPU, and the memory of a step.
Method    Processor seconds of one core, which do not count what other programs take.
Command   taskset -c 1 python -m benchmarks.scale
Duration  about a minute of one core
Output    the tables of docs/scale.md, and --out gets table.md and results.json.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.harness.machine import machine
from benchmarks.harness.workload import flops_per_update
from benchmarks.scale import measure
from benchmarks.scale.table import table
from outgen_jax import files, runs, scripts
from outgen_jax.solvers.smallest_change import TRIALS
from outgen_jax.tools import common_flags

_NUMBER = flags.DEFINE_integer("number", 128, "Images that are written, and handed over.", 2)
_OUT = common_flags.out("benchmarks/scale")
_OVERWRITE = common_flags.overwrite()

ROOT = Path(__file__).resolve().parents[2]
EXACT, SGD = "experiments/exactness/results/exact_targets", "benchmarks/synthesis/results"
EARLIER = "benchmarks/synthesis/results_first_machine"
SIZES = (32, 224)
EXACT_PASSES = 1 + (measure.CLASSES - 1) + 2 * TRIALS  # of a step: forward, a Jacobian, trials


def committed(directory: str) -> dict[str, Any]:
    """The results of another run."""
    found: dict[str, Any] = json.loads((ROOT / directory / "results.json").read_text())
    return found


def check() -> dict[str, Any]:
    """`og.exact` on a half-width VGG16 and one core, and the rate of SGD at full width on two."""
    exact, sgd = committed(EXACT), committed(SGD)
    side = sgd["batches"]["128"]["outgen_jax"]
    seconds = statistics.median(side["seconds_per_update"])
    return {
        "flops_of_step": EXACT_PASSES * flops_per_update(0.5) // 2,
        "flops_per_second": 128 * flops_per_update(1.0) / seconds / sgd["threads"],
        "targets": {
            name: {
                "steps": float(np.mean(found["steps"])),
                "seconds": exact["seconds"][name][0] / len(found["steps"]),
            }
            for name, found in exact["per_image"].items()
        },
    }


def memory() -> dict[str, int]:
    """XLA's count of the temporary memory of a step of SGD on CPU."""
    side = committed(EARLIER)["batches"]["128"]["outgen_jax"]
    return {"images": 128, "temporary": side["memory"]["temporary"]}


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    checked = check()
    steps = statistics.mean(found["steps"] for found in checked["targets"].values())
    measured = {
        "flops_of_pass": flops_per_update(1.0) // 2,
        "exact_steps": steps,
        "exact_passes": EXACT_PASSES,
        "writing": {str(size): measure.writing(_NUMBER.value, size) for size in SIZES},
        "handing": {str(size): measure.handing(_NUMBER.value, size) for size in SIZES},
        "calling": measure.calling(_NUMBER.value),
    }
    results = {**machine(), "measured": measured, "check": checked, "memory": memory()}
    run.write_results(results)
    text = table(results)
    files.write_atomic(run.directory / "table.md", text)
    print(text)


if __name__ == "__main__":
    scripts.start(main)
