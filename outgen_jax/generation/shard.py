"""One shard of a generated data set: its rows are read, its images changed, and its examples made.

A shard depends on its own rows only, so that resuming, and the number of processes, do not change it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from outgen_jax.data import random_access, records
from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.solvers.combinators import Combinator, kept_limits
from outgen_jax.solvers.objective import Objective
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import predict, quantize, request
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.engine import Pool
from outgen_jax.synthesis.programs import relaxed
from outgen_jax.synthesis.request import Meaning
from outgen_jax.synthesis.synthesize import Tolerance

CALLER = "generate_dataset"  # whom the error messages name


class Plan(NamedTuple):
    """A call of `generate_dataset`, validated: what all shards are made with."""

    bound: Bound
    source: random_access.Source
    spec: random_access.Spec
    targets: Callable[[np.ndarray, np.ndarray], Any]  # rows [n], labels [n] -> like the outputs
    solver: Solver | Combinator
    tolerance: Tolerance
    quantize: bool
    save_float: bool
    shard_size: int

    @property
    def meaning(self) -> Meaning:
        """Of the network's outputs."""
        return self.bound.meaning

    @property
    def num_shards(self) -> int:
        """Shards of the whole data set."""
        return -(-self.spec.num_rows // self.shard_size)


class Inputs(NamedTuple):
    """What a shard is made from."""

    block: random_access.Block
    targets: tuple[np.ndarray, ...]  # [n, R, K] a part
    digest: str


class ChangedImages(NamedTuple):
    """The changed images of a shard, and what the network says of them."""

    images: np.ndarray  # [n, H, W, C] uint8
    unrounded: np.ndarray | None  # [n, H, W, C] float32 in [0, 1], if they are stored
    readout: tuple[np.ndarray, ...]  # [n, R, K] a part: outputs for them, in the units of targets
    distance: np.ndarray  # [n]
    steps: np.ndarray  # [n]
    converged: np.ndarray  # [n]


def part_names(meaning: Meaning) -> tuple[str, ...]:
    """What the parts of the output are called in an example: "" for a single one."""
    return tuple("".join(f"_{_key(entry)}" for entry in path) for path in meaning.paths)


def check_part_names(meaning: Meaning) -> None:
    """Refuses parts whose entries would have one name.

    Raises:
      ValueError: the names differ only in signs that are no letters or digits.
    """
    names = part_names(meaning)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(
            f"{CALLER}: the parts of the output must have names that differ in letters or digits; several become "
            f"{repeated[1:]!r}. Rename them in what apply_fn returns"
        )


def _key(entry: Any) -> str:
    """One step of a path, without the signs of Python."""
    for name in ("key", "idx", "name"):
        if hasattr(entry, name):
            return "".join(c if c.isalnum() else "_" for c in str(getattr(entry, name)))
    return "part"


def fields(plan: Plan) -> dict[str, records.Field]:
    """The entries of an example."""
    names = plan.spec.class_names
    found: dict[str, records.Field] = {
        "id": records.text(),
        "image": records.image(plan.spec.shape),
        "label": records.tensor((), "int32") if names is None else records.label(names),
    }
    if plan.save_float:
        found["image_float"] = records.tensor(plan.spec.shape, "float32")
    readout, distance = entry_names(plan.meaning)
    for name, shape in zip(part_names(plan.meaning), plan.meaning.shapes, strict=True):
        found[f"target{name}"] = records.tensor(shape, "float32")
        found[f"{readout}{name}"] = records.tensor(shape, "float32")
    return found | {
        distance: records.tensor((), "float32"),
        "steps": records.tensor((), "int32"),
        "converged": records.tensor((), "bool"),
    }


def entry_names(meaning: Meaning) -> tuple[str, str]:
    """Names of the entries for outputs and distance; a plain classifier has names of its own."""
    return ("probs", "total_variation") if meaning.is_one_softmax else ("outputs", "distance")


def rows_of(plan: Plan, index: int) -> np.ndarray:
    """The rows of the source that shard `index` is made from."""
    start = index * plan.shard_size
    return np.arange(start, min(start + plan.shard_size, plan.spec.num_rows))


def wanted(plan: Plan, chosen: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Targets [n, R, K], one a part, of some rows [n] with their labels [n].

    Raises:
      ValueError: they do not fit the outputs.
    """
    where = f"{CALLER}: rows {chosen[0]} to {chosen[-1]}"
    found = plan.targets(chosen, labels)
    leaves = request.target_leaves(plan.meaning.structure, found, caller=where)
    zipped = zip(leaves, plan.meaning.shapes, strict=True)
    by_row = [_by_row(leaf, len(chosen), shape, where) for leaf, shape in zipped]
    tree = jax.tree.unflatten(plan.meaning.structure, by_row)
    return request.checked_targets(plan.meaning, tree, len(chosen), caller=where)


def _by_row(leaf: np.ndarray, count: int, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Targets [count or 1, K] as [count or 1, 1, ..., K], whatever the length of the shard.

    Raises:
      ValueError: another length; two axes are never of views, of which there may be as many as rows.
    """
    if leaf.ndim != 2 or len(shape) == 1:
        return leaf
    if len(leaf) not in (1, count):
        raise ValueError(
            f"{where}: a function of targets must return {[count, shape[-1]]} for {count} rows; it returned "
            f"{list(leaf.shape)}. For a target of each view, return targets[None], {[1, *shape]}"
        )
    return leaf.reshape(len(leaf), *(1,) * (len(shape) - 1), leaf.shape[1])


def read(plan: Plan, index: int) -> random_access.Block:
    """Reads the rows that shard `index` is made from; raises ValueError for rows that are wrong."""
    chosen = rows_of(plan, index)
    start, stop = int(chosen[0]), int(chosen[-1]) + 1
    return random_access.read(plan.source, plan.spec, start, stop, caller=CALLER)


def inputs_of(plan: Plan, block: random_access.Block) -> Inputs:
    """The rows of a shard with their targets; raises ValueError for targets that are wrong.

    It calls the caller's function of targets, so it must run in the caller's thread: settings such as
    `with jax.enable_x64(True)` hold there alone.
    """
    targets = wanted(plan, block.rows, block.labels)
    return Inputs(block, targets, block.digest(targets))


def on_each_device(plan: Plan) -> list[Plan]:
    """The plan on each of its devices alone."""
    return [plan._replace(bound=bound) for bound in plan.bound.on_each_device()]


def change_images(plan: Plan, inputs: Inputs, advance: Callable[[float], object]) -> ChangedImages:
    """Changes the images of a shard; `advance` is called with the number of images that are done."""
    images, targets = inputs.block.images, inputs.targets
    bound, kinds, counts = plan.bound, plan.bound.kinds, request.counts(plan.meaning, targets)
    pool = Pool(
        bound,
        images,
        targets,
        counts,
        plan.solver.steps,
        tolerance=plan.tolerance.stop,
        advance=advance,
    )
    pool.move(plan.solver)
    rounded = to_uint8(pool.images)
    if plan.quantize:
        rounded = quantize.quantized(
            bound,
            pool.images,
            targets,
            counts=counts,
            sources=images,
            limits=kept_limits(plan.solver),
        )
    raw = predict.outputs_of(bound, rounded)

    def distance_of(outputs: Any, wanted: Any) -> jax.Array:  # [R, K] a part -> []
        return Objective(wanted, kinds, (None,) * len(kinds)).distance(outputs)

    with relaxed():  # NaN marks free entries
        distance = predict.by_rows(distance_of, raw, targets)
    converged = pool.finite & (pool.distance <= plan.tolerance.judged)
    readout = predict.readout(plan.meaning, raw)
    unrounded = pool.images if plan.save_float else None
    return ChangedImages(rounded, unrounded, readout, distance, pool.steps, converged)


def examples(plan: Plan, inputs: Inputs, changed: ChangedImages) -> Iterator[records.Example]:
    """The examples of a shard, as `fields` describes them."""
    block, meaning = inputs.block, plan.meaning
    readout, distance = entry_names(meaning)
    names = part_names(meaning)
    for n, (name, label) in enumerate(zip(block.ids, block.labels, strict=True)):
        entries: dict[str, Any] = {"id": name, "label": int(label), "image": changed.images[n]}
        if changed.unrounded is not None:
            entries["image_float"] = changed.unrounded[n]
        parts = zip(names, meaning.shapes, inputs.targets, changed.readout, strict=True)
        for suffix, shape, target, said in parts:
            entries[f"target{suffix}"] = target[n].reshape(shape)
            entries[f"{readout}{suffix}"] = said[n].reshape(shape)
        yield entries | {
            distance: changed.distance[n],
            "steps": changed.steps[n],
            "converged": changed.converged[n],
        }
