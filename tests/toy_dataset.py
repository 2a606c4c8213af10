"""A small data set that the tests of `generate_dataset` share; as a script it makes it.

python toy_dataset.py DIRECTORY [PROCESS PROCESSES PORT]
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from toy_synthesis import APPLY, CLASSES, SHAPE, WEIGHTS, sources, targets

import outgen_jax as og
from outgen_jax.data.sources import ImageSource

COUNT, SHARD, BATCH, TOLERANCE = 23, 10, 4, 0.15
# Images leave after very different numbers of updates, some never.
SOLVER = og.gradient_descent(optax.sgd(1.0), steps=12)
NAMES = ("ant", "bee", "cow", "doe", "eel")
SOURCE = ImageSource(
    sources(COUNT),
    np.arange(COUNT, dtype=np.int32) % CLASSES,
    NAMES,
    tuple(f"image{row}" for row in range(COUNT)),
)


def make(directory: Path, **changes: Any) -> og.DatasetReport:
    """The data set in `directory`, with other arguments where they are given."""
    arguments: dict[str, Any] = {
        "apply_fn": APPLY,
        "variables": WEIGHTS,
        "source": SOURCE,
        "targets": targets(COUNT),
        "directory": directory,
        "solver": SOLVER,
        "tolerance": TOLERANCE,
        "quantize": False,
        "batch_size": BATCH,
        "shard_size": SHARD,
    }
    return og.generate_dataset(**(arguments | changes))


def contents(directory: Path) -> dict[str, bytes]:
    """All files of a directory, by relative name."""
    paths = (path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


class Streamed:
    """Rows without end in sight: made when they are asked for, and forgotten."""

    class_names = NAMES

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[np.ndarray, int, str]:
        image = np.random.default_rng(row).integers(0, 256, SHAPE, np.uint8)
        return image, row % CLASSES, f"row{row}"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        process, processes, port = map(int, sys.argv[2:])
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    print(make(Path(sys.argv[1])))
