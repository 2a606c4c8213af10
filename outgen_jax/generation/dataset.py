"""Data sets of generated images, of any length: streamed, written in shards, resumed after an interruption.

Shard i holds rows i·shard_size to (i + 1)·shard_size of the source and depends only on them, so
interruptions and the number of processes (process p of P makes the shards p, p + P, ...) do not
change the files. Each device works on a shard of its own, so their number does not change the files
either. Meanwhile the next shard is read and the one before is written.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from outgen_jax.data import random_access, sharded_set
from outgen_jax.data.image_source import PathLike
from outgen_jax.generation import data_card, pipeline, provenance, shard
from outgen_jax.networks import ApplyFn
from outgen_jax.solvers.combinators import Combinator, kept_limits
from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import predict, request, synthesize
from outgen_jax.synthesis.bound import bind
from outgen_jax.whole_numbers import check_integers

# Like the network's outputs, or a function (rows [n], labels [n]) -> targets of these rows.
Targets = Any

_DESCRIPTION = (
    "Images changed until a frozen network's outputs are what is wanted (target). probs or outputs "
    "is what it says of the stored image, converged whether the solver met its tolerance before "
    "rounding to 8 bits. manifest.json says what they were made from."
)


class DatasetReport(NamedTuple):
    """The result of `generate_dataset`.

    Attributes:
      directory: of the data set.
      examples: in the whole data set.
      converged: examples within the tolerance before rounding to 8 bits.
      within: examples whose stored image is within 1e-5, 1e-4, ..., 1 of its target, by that distance.
      shards: in the whole data set.
      made: shards made by this call in this process; the others existed, or belong to other processes.
    """

    directory: Path
    examples: int
    converged: int
    within: dict[float, int]
    shards: int
    made: int


def generate_dataset(
    apply_fn: ApplyFn,
    variables: Any,
    source: random_access.Source,
    targets: Targets,
    directory: PathLike,
    *,
    output: Any = None,
    solver: Solver | Combinator | None = None,
    tolerance: float | None = None,
    quantize: bool = True,
    save_float: bool = False,
    batch_size: int | None = None,
    precision: str | None = "highest",
    shard_size: int = 1000,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> DatasetReport:
    """Changes every image of a source until its output meets the target, and stores the images.

    The directory can be read by `tfds.builder_from_directory(directory).as_data_source("train")`.
    An example has these entries:

    - `id` and `label` of the source, and the 8-bit `image`,
    - `target` [K], NaN where an entry is free,
    - `probs` [K], the classifier's output for the stored image, and its `total_variation` to the target,
    - `steps`, the number of steps taken, and `converged`: whether the distance was within
      `tolerance` before rounding to 8 bits.

    For outputs other than one softmax, `probs` and `total_variation` are called `outputs` and
    `distance`; a network with several outputs has `target_NAME` and `outputs_NAME` for each.

    The same call resumes an interrupted one, also with another number of processes. Finished shards
    are checked against their checksums, and made again where they differ. Under `jax.distributed` all
    processes make this call, on a file system that they share.

    Args:
      apply_fn: the network; see `synthesize`.
      variables: any pytree of arrays.
      source: an `ImageSource`, an array [N, H, W, C] (also a memory map), a tfds data source, a split of
        Hugging Face's `datasets`, a grain data source, or any other object with a length whose item i is
        row i, see `data.random_access.RandomAccessSource`.
      targets: the targets of all rows, see `synthesize`; or a function (rows [n] int64, labels [n]
        int32, -1 if there is none) -> targets of these rows. It must return the same target for a row
        in every call: draw by the row's number, as `og.targets.dirichlet(seed, n, K, image_ids=rows)`
        does.
      directory: the directory of the data set; made if it does not exist.
      output: what the outputs mean; see `synthesize`.
      solver: how an image is changed; None: `og.exact()`.
      tolerance: distance at which an image is finished; None: the solver's own. A solver that has none makes all its
        steps, and `converged` means a distance of at most 0.01.
      quantize: whether to round with `og.quantize`, so that the stored image meets its target; False:
        round to the nearest level.
      save_float: whether to store the image before rounding as well, as `image_float`, float32 in [0, 1].
        Its output is within `tolerance` where `converged`.
      batch_size: images in work at a time on each device; None: chosen by platform, image size and
        solver.
      precision: of the network's matrix products and convolutions on GPU and TPU; see `synthesize`.
      shard_size: images in one file. An interruption loses the work on unfinished shards. A
        shard should be several batches, since the last images of a shard leave a part of the batch empty.
      overwrite: whether to replace another data set in `directory`.
      about: further entries of the manifest, of types that JSON has, such as flags and seed; a call
        with another `about` does not resume. The data card, README.md, shows its `source` and `license`.
      progress: whether to show a progress bar.

    Raises:
      ValueError: arguments that `synthesize` refuses; rows that cannot be stored; `about` that JSON cannot hold; parts
        of the output whose names become the same.
      FileExistsError: `directory` holds other files, or a data set of another source, target, network or solver.
      BlockingIOError: another run is writing in `directory`.
      OSError: the disk is full, or `directory` cannot be written. Finished shards are kept.
    """
    if tolerance is not None:
        request.check_tolerance(
            tolerance, caller=shard.CALLER, remedy="use None for the solver's own"
        )
    check_integers(caller=shard.CALLER, shard_size=shard_size)
    if shard_size < 1:
        raise ValueError(
            f"{shard.CALLER}: shard_size must be at least 1, got {shard_size}; 1000 is usual"
        )
    about = _checked_about(about)
    solver = synthesize.checked_solver(solver, caller=shard.CALLER)
    # Everything that can be wrong is found before a file is written.
    spec = random_access.spec(source, caller=shard.CALLER)
    few = random_access.read(source, spec, 0, min(8, spec.num_rows), caller=shard.CALLER).images
    bound = bind(
        apply_fn,
        variables,
        few,
        output=output,
        batch_size=batch_size,
        precision=precision,
        caller=shard.CALLER,
    )
    shard.check_part_names(bound.meaning)
    predict.check_sources(bound, few, caller=shard.CALLER)
    plan = shard.Plan(
        bound=bound,
        source=source,
        spec=spec,
        targets=_target_function(targets, bound.meaning, spec.num_rows),
        solver=solver,
        tolerance=synthesize.chosen_tolerance(solver, tolerance),
        # Python's numbers: JSON has none of numpy's.
        quantize=bool(quantize),
        save_float=bool(save_float),
        shard_size=int(shard_size),
    )
    if not callable(targets):  # a function is asked shard by shard
        for index in range(plan.num_shards):
            shard.wanted(plan, shard.rows_of(plan, index), np.zeros(0))
    made_from = _made_from(plan, few[0], about)
    written = sharded_set.ShardedSet(
        Path(directory).expanduser(), shard.fields(plan), plan.num_shards, made_from
    )
    return _run(plan, written, overwrite, progress)


def _run(
    plan: shard.Plan, written: sharded_set.ShardedSet, overwrite: bool, progress: bool
) -> DatasetReport:
    """Makes the missing shards of this process; the first process completes the set."""
    first = jax.process_index() == 0
    with _opened(written, overwrite):
        mine = range(jax.process_index(), written.num_shards, jax.process_count())
        missing = [index for index in mine if not _is_finished(plan, written, index)]
        # Images of this process; those of finished shards are there from the start.
        total = sum(len(shard.rows_of(plan, index)) for index in mine)
        left = sum(len(shard.rows_of(plan, index)) for index in missing)
        bar = synthesize.progress_bar(total, show=progress and first, done=total - left)
        with bar as advance:
            pipeline.make(plan, written, missing, advance)
        _meet("made")
        if first:
            about = {"versions": provenance.versions()}
            sharded_set.complete(written, about, _card_of(written), description=_DESCRIPTION)
        _meet("completed")
    notes = sharded_set.notes(written)
    return DatasetReport(
        directory=written.directory,
        examples=sum(note.examples for note in notes),
        converged=sum(note.converged for note in notes),
        within=data_card.total_within([note.within for note in notes]),
        shards=written.num_shards,
        made=len(missing),
    )


@contextlib.contextmanager
def _opened(written: sharded_set.ShardedSet, overwrite: bool) -> Iterator[None]:
    """The directory, kept from other runs; the first process of this one makes it ready."""
    sharded_set.check(written, overwrite=overwrite)
    with contextlib.ExitStack() as held:
        if jax.process_index() == 0:
            held.enter_context(sharded_set.opened(written, overwrite=overwrite))
        _meet("opened")
        if jax.process_index() > 0:
            held.enter_context(sharded_set.joined(written))
        yield


def _card_of(
    written: sharded_set.ShardedSet,
) -> Callable[[Mapping[str, Any], list[sharded_set.Finished]], str]:
    return lambda manifest, notes: data_card.data_card(
        manifest, written.fields, [note.within for note in notes]
    )


def _target_function(
    targets: Targets, meaning: request.Meaning, num_images: int
) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Targets as a function of rows and labels; an array may be a memory map, and stays one."""
    if callable(targets):
        return targets
    leaves = request.target_leaves(meaning.structure, targets, caller=shard.CALLER)
    # As for all images: the rows of a shard could be taken for another axis, or another axis for its rows.
    whole = [
        request.with_all_axes(leaf, num_images, shape, caller=shard.CALLER)
        for leaf, shape in zip(leaves, meaning.shapes, strict=True)
    ]

    def of_rows(rows: np.ndarray, labels: np.ndarray) -> Any:
        chosen = [leaf[rows] if len(leaf) == num_images else leaf for leaf in whole]
        return jax.tree.unflatten(meaning.structure, chosen)

    return of_rows


def _checked_about(about: Mapping[str, Any] | None) -> dict[str, Any]:
    """The caller's entries of the manifest.

    Raises:
      ValueError: something that JSON does not have.
    """
    try:
        found = dict(about or {})
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{shard.CALLER}: about must be a mapping of names to what JSON can hold: {error}; convert it first"
        ) from error
    return found


def _made_from(plan: shard.Plan, image: np.ndarray, about: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a run to resume, beyond the rows and targets of each shard."""
    bound, meaning = plan.bound, plan.meaning
    asked = bound.network, meaning, bound.variables, image
    found = {
        **plan.spec._asdict(),
        "outputs": [list(shape) for shape in meaning.shapes],
        "kinds": [repr(kind) for kind in meaning.kinds],
        "classifier": provenance.classifier_hash(bound.variables),
        "program": provenance.program_hash(*asked),
        "solver": provenance.solver_record(plan.solver, *asked),
        "steps": plan.solver.steps,
        "tolerance": plan.tolerance.stop if plan.tolerance.stop > 0 else None,
        "quantize": plan.quantize,
        "batch_size": bound.batch_size,
        "shard_size": plan.shard_size,
        "about": dict(about),
    }
    # Sets without these are as those of earlier versions.
    if plan.save_float:
        found["save_float"] = True
    limits = kept_limits(plan.solver)
    if limits != Restriction():
        found["limits"] = provenance.limits_record(limits)
    return json.loads(json.dumps(found))  # tuples become lists, as in the manifest


def _is_finished(plan: shard.Plan, written: sharded_set.ShardedSet, index: int) -> bool:
    """Whether a shard is there and whole; refuses one that was made from other rows."""
    note = sharded_set.finished(written, index)
    if note is None:
        return False
    if note.inputs != shard.inputs_of(plan, shard.read(plan, index)).digest:
        chosen = shard.rows_of(plan, index)
        raise FileExistsError(
            f"{shard.CALLER}: {str(written.directory)!r} was made from another source or "
            f"other targets: rows {chosen[0]} to {chosen[-1]} differ; choose another directory, or overwrite"
        )
    return True


def _meet(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{shard.CALLER}: {name}")
