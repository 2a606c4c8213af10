"""Cost of paper D's constrained update against plain fine-tuning, and against PyTorch.

Subject   One SGD update of a VGG16 with two hidden layers on 32×32 images, random weights: plain, MSE,
          constraint (one more forward pass, of the frozen network on the clean batch), AugMix-style;
          given distorted images, and with noise and blur computed in the update. The twin in PyTorch
          (eager, channels-last) takes the same batch and weights; its first losses must agree.
Method    Sides in processes of their own with the same cores, taking turns of ten updates, which is
          what `finetuning_fit.finetune` makes in a call on CPU; median of the rounds.
Command   python -m benchmarks.finetuning
Expected  constraint at most 1.6 times plain; at least as fast as PyTorch
Output    the table, and --out gets results.json with the raw numbers of every round, and table.md.
"""

import contextlib
from typing import Any

import jax
from absl import flags

from benchmarks.finetuning.table import OURS, PYTORCH, table
from benchmarks.harness.alternation import Worker, alternate
from benchmarks.harness.machine import machine
from benchmarks.harness.workload import Workload
from outgen_jax import files, runs, scripts
from outgen_jax.devices import processors
from outgen_jax.tools import common_flags

_BATCH = flags.DEFINE_integer("batch_size", 64, "Images an update.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_HIDDEN = flags.DEFINE_integer("hidden", 512, "Units of each hidden layer.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, images and labels.", 0)
_OUT = common_flags.out("benchmarks/finetuning")
_OVERWRITE = common_flags.overwrite()

UPDATES = 10  # in a turn
SIDES = {
    OURS: "benchmarks.finetuning.ours.outgen",
    PYTORCH: "benchmarks.finetuning.torch_side.pytorch",
}
ARMS = ("plain", "MSE", "constraint")
OWN_ARMS = (*ARMS, "AugMix-style", "plain, distorting", "constraint, distorting")


def measure(workload: Workload, hidden: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Arm -> side -> first loss and seconds of every round, or why the side failed."""
    found: dict[str, dict[str, Any]] = {arm: {} for arm in OWN_ARMS}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, factory in SIDES.items():
            print(f"starting {name}", flush=True)
            workers[name] = Worker(factory, workload, hidden=hidden, updates=UPDATES)
            stack.callback(workers[name].close)
        for arm in OWN_ARMS:
            for name, worker in workers.items():
                if name == OURS or arm in ARMS:
                    losses = worker.call("output", arm)
                    first = None if losses is None else float(losses[0])
                    found[arm][name] = {"first_loss": first, "seconds": []}
        # Arms in the inner loop: their ratio is what counts, and a machine's speed drifts.
        for arm in (arm for _ in range(rounds) for arm in OWN_ARMS):
            turn = {name: workers[name] for name in found[arm]}
            for name, seconds in alternate(turn, 1, "seconds", arm).items():
                found[arm][name]["seconds"] += [s / UPDATES for s in seconds]
        for sides in found.values():
            for name, side in sides.items():
                side["failure"] = workers[name].failure
    return found


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    print(f"{jax.devices()[0].device_kind}, {processors()} threads each")
    workload = Workload(_WIDTH.value, _BATCH.value, _SEED.value)
    found = measure(workload, _HIDDEN.value, _ROUNDS.value)
    results = {**machine("torch"), "arms": found}
    text = table(results)
    print(text)
    files.write_atomic(run.directory / "table.md", text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
