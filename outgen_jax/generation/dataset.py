"""Data sets of generated images, of any length: streamed, written in shards, resumed after any end.

Shard i holds rows i·shard_size to (i + 1)·shard_size of the source and is made from nothing but
them, so that neither an interruption nor the number of processes (process p makes the shards p,
p + P, ...) changes a byte. While the devices work on one shard, the next is read and the one before
it written. What is in flight, three shards at most, is all that is held in memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from outgen_jax.data import rows, shards
from outgen_jax.data.image_source import PathLike
from outgen_jax.generation import provenance, shard
from outgen_jax.solvers import presets
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import predict, slots
from outgen_jax.synthesis.predict import ApplyFn

Targets = ArrayLike | Callable[[np.ndarray, np.ndarray], ArrayLike]

_DESCRIPTION = (
    "Images changed until a frozen classifier returns a wanted output distribution (target); probs "
    "is what it says of the stored image, converged whether the solver met its tolerance before "
    "rounding to 8 bits. manifest.json says what they were made from."
)


class DatasetReport(NamedTuple):
    """What `generate_dataset` has done."""

    directory: Path
    examples: int  # in the whole data set
    converged: int  # of them
    shards: int
    made: int  # shards made by this call in this process; the others were there, or are others'


def generate_dataset(
    apply_fn: ApplyFn,
    variables: Any,
    source: rows.Source,
    targets: Targets,
    directory: PathLike,
    *,
    solver: Solver | None = None,
    tolerance: float = 0.005,
    quantize: bool = True,
    batch_size: int | None = None,
    shard_size: int = 1000,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> DatasetReport:
    """Changes every image of a source until a classifier says what is wanted, and stores them all.

    The directory can be read by `tfds.builder_from_directory(directory).as_data_source("train")`.
    An example has `id` and `label` of its source, the 8-bit `image`, its `target` [K], the
    classifier's `probs` [K] of the stored image and their `total_variation`, and of the solver the
    `steps` it used and whether it `converged`: came within `tolerance`, before rounding to 8 bits.

    The same call resumes an interrupted one, also on other numbers of processes. Finished shards are
    checked against their checksums, and made anew where they differ. Under `jax.distributed` all
    processes make this call, on one file system.

    Args:
      apply_fn: as in `synthesize`.
      variables: any pytree.
      source: an `ImageSource`, an array [N, H, W, C] (also a memory map), a tfds data source, or
        whatever `data.rows.Rows` describes.
      targets: [N, K], [K] for all images, or a function (rows [n] int64, labels [n] int32, -1 where
        there is none) -> [n, K]. It must give a row the same target whenever it is asked: draw by
        the row's number, as `og.targets.dirichlet(seed, n, K, image_ids=rows)` does.
      directory: where to; made if need be.
      solver: as in `synthesize`.
      tolerance: total variation at which an image is done.
      quantize: correct the rounding to 8 bits, so that the stored image meets its target; False:
        round to the nearest level.
      batch_size: images worked on at a time by each device; None: chosen for the backend.
      shard_size: images in one file. The last `batch_size` images of a shard are not joined by
        others: let it be several batches.
      overwrite: replace another data set in `directory`.
      about: more for the manifest, as JSON has it, such as flags and seed; a call with another
        `about` does not resume.
      progress: show a progress bar, in images.

    Raises:
      ValueError: as `synthesize`, and for rows that cannot be stored.
      FileExistsError: `directory` holds something else, or a data set made otherwise.
      OSError: the disk is full, or `directory` cannot be written. Finished shards are kept.
    """
    if not tolerance > 0:
        raise ValueError(f"{shard.CALLER}: tolerance must be positive, got {tolerance}")
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value is not None and value < 1:
            raise ValueError(f"{shard.CALLER}: {name} must be at least 1, got {value}")
    # Everything that can be wrong is found before a file is written.
    kind = rows.kind(source, caller=shard.CALLER)
    few = rows.read(source, kind, 0, min(8, kind.num_rows), caller=shard.CALLER).images
    num_classes = predict.num_classes(apply_fn, variables, few, caller=shard.CALLER)
    predict.check_logits(apply_fn, variables, few, caller=shard.CALLER)
    at_most = min(shard_size, kind.num_rows)
    mesh = slots.local_mesh()
    job = shard.Job(
        apply_fn=apply_fn,
        variables=slots.on_all_devices(mesh, variables),
        source=source,
        kind=kind,
        targets=_target_function(targets, kind.num_rows),
        num_classes=num_classes,
        solver=presets.preset("sgd") if solver is None else solver,
        tolerance=float(tolerance),
        quantize=quantize,
        batch_size=min(batch_size or predict.default_batch_size(few), at_most),
        shard_size=shard_size,
        mesh=mesh,
    )
    if not callable(targets):  # a function is asked shard by shard
        for index in range(job.num_shards):
            shard.wanted(job, shard.rows_of(job, index), np.zeros(0))
    made_from = _made_from(job, few[0], about)
    written = shards.Shards(
        Path(directory).expanduser(), shard.fields(job), job.num_shards, made_from
    )
    return _run(job, written, overwrite, progress)


def _run(job: shard.Job, written: shards.Shards, overwrite: bool, progress: bool) -> DatasetReport:
    """Makes what is missing of this process's shards; the first process opens and completes."""
    first = jax.process_index() == 0
    shards.check(written, overwrite=overwrite)
    if first:
        shards.open_directory(written, overwrite=overwrite)
    _meet("opened")
    mine = range(jax.process_index(), written.num_shards, jax.process_count())
    missing = [index for index in mine if not _is_finished(job, written, index)]
    with _progress_bar(job, mine, missing, progress and first) as advance:
        _make(job, written, missing, advance)
    _meet("made")
    if first:
        about = {"versions": provenance.versions()}
        shards.complete(written, about, description=_DESCRIPTION)
    _meet("completed")
    notes = shards.notes(written)
    return DatasetReport(
        directory=written.directory,
        examples=sum(note.examples for note in notes),
        converged=sum(note.converged for note in notes),
        shards=written.num_shards,
        made=len(missing),
    )


def _target_function(
    targets: Targets, num_images: int
) -> Callable[[np.ndarray, np.ndarray], ArrayLike]:
    """Targets as a function of rows and labels; an array may be a memory map, and stays one."""
    if callable(targets):
        return targets
    array = np.asanyarray(targets)
    if array.ndim == 1:
        return lambda rows, labels: array
    if len(array) != num_images:
        raise ValueError(
            f"{shard.CALLER}: targets must have one row per image, or be one for all; they have "
            f"{len(array)} for {num_images} images"
        )
    return lambda rows, labels: array[rows]


def _made_from(
    job: shard.Job, image: np.ndarray, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a resumed run must agree in, beyond the rows and targets of each shard."""
    program = provenance.program_hash(
        job.apply_fn, job.solver, job.variables, image, job.num_classes
    )
    found = {
        **job.kind._asdict(),
        "num_classes": job.num_classes,
        "classifier": provenance.classifier_hash(job.variables),
        "program": program,
        "steps": job.solver.steps,
        "tolerance": job.tolerance,
        "quantize": job.quantize,
        "batch_size": job.batch_size,
        "shard_size": job.shard_size,
        "about": dict(about or {}),
    }
    try:
        return json.loads(json.dumps(found))  # tuples become lists, as in the manifest
    except TypeError as error:
        raise ValueError(
            f"{shard.CALLER}: about must hold what JSON can: {error}; convert it first"
        ) from error


# --- shard by shard ---


def _make(
    job: shard.Job, written: shards.Shards, missing: Sequence[int], advance: Callable[[int], object]
) -> None:
    """Makes shards one after another, reading ahead and writing behind in threads."""
    writing: Future[None] | None = None
    with ThreadPoolExecutor(2) as threads:
        coming = [threads.submit(shard.read_inputs, job, index) for index in missing[:1]]
        for place, index in enumerate(missing):
            inputs = coming.pop().result()
            following = missing[place + 1 : place + 2]
            coming = [threads.submit(shard.read_inputs, job, later) for later in following]
            outputs = shard.make_outputs(job, inputs, advance)
            if writing is not None:
                writing.result()
            writing = threads.submit(_write, written, index, inputs, outputs)
    if writing is not None:
        writing.result()


def _write(
    written: shards.Shards, index: int, inputs: shard.Inputs, outputs: shard.Outputs
) -> None:
    shards.write(
        written,
        index,
        shard.examples(inputs, outputs),
        inputs=inputs.digest,
        converged=int(outputs.converged.sum()),
    )


def _is_finished(job: shard.Job, written: shards.Shards, index: int) -> bool:
    """Whether a shard is there and whole; refuses one that was made from other rows."""
    note = shards.finished(written, index)
    if note is None:
        return False
    if note.inputs != shard.read_inputs(job, index).digest:
        chosen = shard.rows_of(job, index)
        raise FileExistsError(
            f"{shard.CALLER}: {str(written.directory)!r} was made from another source or "
            f"other targets: rows {chosen[0]} to {chosen[-1]} differ; choose another directory, or overwrite"
        )
    return True


def _meet(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{shard.CALLER}: {name}")


@contextmanager
def _progress_bar(
    job: shard.Job, mine: Sequence[int], missing: Sequence[int], show: bool
) -> Iterator[Callable[[int], object]]:
    """A bar over the images of this process; those of finished shards are there from the start."""
    if not show:
        yield lambda images: None
        return
    import tqdm

    total, left = (sum(len(shard.rows_of(job, i)) for i in some) for some in (mine, missing))
    with tqdm.tqdm(total=total, initial=total - left, unit="image", mininterval=0.5) as bar:
        yield bar.update
