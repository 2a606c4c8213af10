"""One shard of a generated data set: its rows are read, worked on, and made its examples.

What comes out depends on the shard's own rows and on nothing else that may change from run to run.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from outgen_jax import pixels
from outgen_jax import targets as target_rows
from outgen_jax.data import records, rows
from outgen_jax.metrics import classification
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import quantize, slots
from outgen_jax.synthesis.predict import ApplyFn
from outgen_jax.targets import partial

CALLER = "generate_dataset"  # whom the error messages name


class Job(NamedTuple):
    """A call of `generate_dataset`, validated."""

    apply_fn: ApplyFn
    variables: Any  # on all devices
    source: rows.Source
    kind: rows.Kind
    targets: Callable[[np.ndarray, np.ndarray], ArrayLike]  # rows [n], labels [n] -> [n, K]
    num_classes: int
    solver: Solver
    tolerance: float
    quantize: bool
    batch_size: int  # of each device
    shard_size: int
    mesh: Mesh

    @property
    def num_shards(self) -> int:
        """Shards of the whole data set."""
        return -(-self.kind.num_rows // self.shard_size)


class Inputs(NamedTuple):
    """What a shard is made from."""

    block: rows.Block
    targets: np.ndarray  # [n, K]
    digest: str


class Outputs(NamedTuple):
    """What comes of it, by image."""

    images: np.ndarray  # [n, H, W, C] uint8
    probs: np.ndarray  # [n, K] of them
    total_variation: np.ndarray  # [n]
    steps: np.ndarray  # [n]
    converged: np.ndarray  # [n]


def fields(job: Job) -> dict[str, records.Field]:
    """What every example consists of."""
    names, probabilities = job.kind.class_names, records.tensor((job.num_classes,), "float32")
    return {
        "id": records.text(),
        "image": records.image(job.kind.shape),
        "label": records.tensor((), "int32") if names is None else records.label(names),
        "target": probabilities,
        "probs": probabilities,
        "total_variation": records.tensor((), "float32"),
        "steps": records.tensor((), "int32"),
        "converged": records.tensor((), "bool"),
    }


def rows_of(job: Job, index: int) -> np.ndarray:
    """The rows of the source that shard `index` is made from."""
    start = index * job.shard_size
    return np.arange(start, min(start + job.shard_size, job.kind.num_rows))


def wanted(job: Job, chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Targets [n, K] of some rows [n] with their labels [n].

    Raises:
        ValueError: they are no distributions over the classes.
    """
    return target_rows.validate(
        job.targets(chosen, labels),
        num_images=len(chosen),
        num_classes=job.num_classes,
        caller=f"{CALLER}: rows {chosen[0]} to {chosen[-1]}",
    )


def read_inputs(job: Job, index: int) -> Inputs:
    """Reads what shard `index` is made from; raises ValueError for rows or targets that are wrong."""
    chosen = rows_of(job, index)
    start, stop = int(chosen[0]), int(chosen[-1]) + 1
    block = rows.read(job.source, job.kind, start, stop, caller=CALLER)
    targets = wanted(job, block.rows, block.labels)
    return Inputs(block, targets, block.digest(targets))


def make_outputs(job: Job, inputs: Inputs, advance: Callable[[int], object]) -> Outputs:
    """Does the work; `advance` hears how many images have ended since it was last called."""
    count = len(inputs.targets)
    # Every shard in one shape, so that one program is compiled.
    length = min(job.shard_size, job.kind.num_rows)
    filled = np.minimum(np.arange(length), count - 1)
    num_slots = job.batch_size * job.mesh.size
    ended = slots.run(
        job.apply_fn,
        job.solver,
        job.mesh,
        job.variables,
        inputs.block.images[filled],
        inputs.targets[filled],
        count=count,
        num_slots=num_slots,
        tolerance=job.tolerance,
        advance=advance,
    )
    images = np.empty(inputs.block.images.shape, np.uint8)
    probs = np.empty_like(inputs.targets)
    for start in range(0, count, num_slots):
        # The last batch is filled up with copies, so that one shape is compiled for all.
        chosen = np.minimum(np.arange(start, start + num_slots), count - 1)
        rounded = _rounded(job, ended.images[chosen], inputs.targets[chosen])
        images[chosen] = rounded
        probs[chosen] = slots.probabilities(job.apply_fn, job.mesh, job.variables, rounded)
    with np.errstate(divide="ignore"):
        targets = partial.complete(inputs.targets, np.log(probs))
    distance = classification.total_variation(probs, targets)
    return Outputs(
        images, probs, np.asarray(distance), ended.steps[:count], ended.converged[:count]
    )


def examples(inputs: Inputs, outputs: Outputs) -> Iterator[records.Example]:
    """The examples of a shard, as `fields` describes them."""
    block = inputs.block
    for name, label, target, *found in zip(
        block.ids, block.labels, inputs.targets, *outputs, strict=True
    ):
        entries = dict(zip(Outputs._fields, found, strict=True))
        image = entries.pop("images")
        yield {"id": name, "label": int(label), "target": target, "image": image, **entries}


def _rounded(job: Job, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Images [S, H, W, C] float32 -> uint8."""
    if not job.quantize:
        return pixels.to_uint8(images)
    # One device's batch at a time, so that shapes do not follow the number of devices.
    return quantize.quantize(
        job.apply_fn, job.variables, images, targets, batch_size=job.batch_size
    )
