"""Image-updates per second of paper A's synthesis with networks that users bring, against PyTorch's best mode.

Subject   One SGD update by `og.synthesize`. VGG16 of full width on 32×32 images: the package's own, the same in
          flax.nnx and in Equinox. ResNet-20 of `jax.lax.conv_general_dilated`. EfficientNet-Lite0 on 224×224 images.
          The same networks and updates in PyTorch: eager, channels_last, torch.compile, and both.
          Also the difference between ResNet-20's images alone and in a batch, after 100 updates.
Method    Sides in processes of their own with the same cores and environment, taking turns; median of the rounds;
          compilation apart. A side is timed only if its images after some updates agree with those of `og.synthesize`.
          A ratio is taken within each round; the table has the median and the range over the rounds.
Goals     VGG16 of flax.nnx and Equinox within 10% of the package's; ResNet-20 at least as fast as PyTorch's best,
          EfficientNet-Lite0 at least twice as fast; alone and in a batch the same pixels to 1e-4.
Command   python -m benchmarks.networks
          python -m benchmarks.networks --small --rounds=1 --updates=1 --out=runs/networks   (a try)
Output    the tables, and --out gets table.md and results.json with the raw numbers of every round. Each network and
          batch size is kept as it ends; the same command resumes, and --only chooses what runs now.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from benchmarks.harness.alternation import Worker
from benchmarks.harness.comparison import PYTORCH_MODES, Turn, measure
from benchmarks.harness.machine import machine
from benchmarks.networks.table import table
from benchmarks.networks.workload import EFFICIENTNET, NETWORKS, RESNET20, VGG16, Workload
from experiments.common import tables
from outgen_jax import runs, scripts
from outgen_jax.json_text import to_json
from outgen_jax.tools import common_flags

_ROUNDS = flags.DEFINE_integer("rounds", 10, "Turns of each side.", 1)
_UPDATES = flags.DEFINE_integer(
    "updates", None, "Updates timed in a turn; by default each case's.", 1
)
_SMALL = flags.DEFINE_bool("small", False, "Small networks, images and batches, to try it.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, images and targets.", 0)
_ONLY = flags.DEFINE_list("only", [""], "Cases to run now, by how their names begin.")
_OUT = common_flags.out("benchmarks/networks")
_OVERWRITE = common_flags.overwrite()


class Case(NamedTuple):
    """A network at a batch size."""

    network: str
    batch_size: int
    updates: (
        int  # timed in a turn: multiples of the ten that `og.synthesize` makes in a call on CPU
    )
    compared: int  # before the images are compared

    @property
    def name(self) -> str:
        return f"{self.network}_{self.batch_size}"


# EfficientNet's images are compared after ten updates, a call that is timed: another number would compile once more.
CASES = (
    Case(VGG16, 128, updates=10, compared=1),
    Case(RESNET20, 256, updates=10, compared=1),
    Case(EFFICIENTNET, 1, updates=50, compared=10),
    Case(EFFICIENTNET, 8, updates=10, compared=10),
    Case(EFFICIENTNET, 32, updates=10, compared=10),
)
ALONE = f"{RESNET20}_alone"
_ALONE_UPDATES, _ALONE_IMAGES = 100, 16


def sides(network: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: the function that makes the side, and its options."""
    ours, pytorch = "benchmarks.networks.ours.outgen", "benchmarks.networks.torch_twins.pytorch"
    written = NETWORKS[network].written
    return {
        **{name: (ours, {"written_in": written_in}) for name, written_in in written.items()},
        **{name: (pytorch, options) for name, options in PYTORCH_MODES.items()},
    }


def workload(network: str, batch_size: int) -> Workload:
    return Workload(
        network, min(batch_size, 2) if _SMALL.value else batch_size, _SEED.value, _SMALL.value
    )


def speeds(case: Case) -> dict[str, Any]:
    """What `comparison.measure` finds, and of what."""
    solved = workload(case.network, case.batch_size)
    turn = Turn(_UPDATES.value or case.updates, 0, case.compared)
    found = measure(solved, sides(case.network), turn, rounds=_ROUNDS.value, start=solved.images())
    return {"network": case.network, "batch_size": solved.batch_size, "sides": found}


def alone() -> dict[str, Any]:
    """The largest difference of a pixel for each of some images, alone and in the batch of `CASES`."""
    (batch_size,) = (case.batch_size for case in CASES if case.network == RESNET20)
    solved = workload(RESNET20, batch_size)
    (written_in,) = NETWORKS[RESNET20].written.values()
    number = min(_ALONE_IMAGES, solved.batch_size)
    side = Worker("benchmarks.networks.ours.Alone", solved, written_in=written_in)
    with contextlib.closing(side):
        differences = side.call("differences", _ALONE_UPDATES, number)
        if side.failure is not None:
            raise ValueError(f"{ALONE} {side.failure}")
    return {
        "batch_size": solved.batch_size,
        "updates": _ALONE_UPDATES,
        "differences": differences.tolist(),
    }


def main(argv: list[str]) -> None:
    del argv
    # Several processes share a GPU; none may take most of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    about = machine("torch")
    results: dict[str, Any] = {**about, "cases": {}, "alone": None}
    print(f"{jax.devices()[0].device_kind}, {about}")

    def kept(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Of this call or a former one; None where neither was to measure it."""
        path = run.directory / "cache" / f"{name}.npz"
        if not path.exists() and not name.startswith(tuple(_ONLY.value)):
            return None
        print(name, flush=True)
        text = runs.kept(path, lambda: {"json": np.array(to_json(compute()))})["json"]
        found: dict[str, Any] = json.loads(str(text))
        return found

    for case in CASES:
        found = kept(case.name, functools.partial(speeds, case))
        if found is not None:
            results["cases"][case.name] = found
            print(tables.write(run, results, table), flush=True)
    results["alone"] = kept(ALONE, alone)
    print(tables.write(run, results, table))


if __name__ == "__main__":
    scripts.start(main)
