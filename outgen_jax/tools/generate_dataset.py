r"""Makes a data set of images for which a network says what you ask for, of any length, to train or test on.

Purpose   Paper A, Section 2, at scale: every image of a source, changed to a target, as a data set that tfds reads.
Command   python -m outgen_jax.tools.generate_dataset --data_dir=... --source=cifar10 --split=train --number=50000 \\
              --targets=true=0.9,random=0.1 --out=runs/cifar10_soft
          The same command resumes, whatever ended it; finished shards are checked and kept.
          Several processes: the same command in each, JAX_COORDINATOR_ADDRESS=host:port set, and JAX_NUM_PROCESSES
          and JAX_PROCESS_ID where JAX does not know the cluster; --out on a file system that all see.
Output    --out gets generated/1.0.0 (array_record shards, manifest.json with checksums) and results.json:
          tfds.data_source("generated", split="train", data_dir=OUT), or --source=generated --data_dir=OUT here.
"""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

import outgen_jax as og
from outgen_jax import runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.tools import common_flags, loading

_SOURCE = flags.DEFINE_string(
    "source", "digits", "'photographs', 'digits', a tfds name, a folder of images, or an .npz file."
)
_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "train", "Split of a tfds source.")
_NUMBER = flags.DEFINE_integer(
    "number", None, "Images at most, from the start of the source; by default all.", 1
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier",
    pretrained.SHIPPED[0],
    f"{', '.join(pretrained.NAMES)}, or an .npz that train_classifier.py wrote. Images are brought to its size.",
)
_TARGETS = flags.DEFINE_string(
    "targets",
    "top=0.9,random=0.1",
    "What the network shall say: text such as 'true=0.9,random=0.1', 'cat=0.6,dog=0.4', 'uniform' (words: true, "
    "top, runnerup, random, uniform), 'dirichlet', or a .csv with a row per image.",
)
_OUTPUT = common_flags.output()
_SOLVER, _STEPS, _TOLERANCE = common_flags.solver()
_QUANTIZE = common_flags.quantize()
_SAVE_FLOAT = flags.DEFINE_bool(
    "save_float", False, "Store the float32 images before rounding too."
)
_BATCH = flags.DEFINE_integer(
    "batch_size", None, "Images at a time on each device; by default chosen for it.", 1
)
_SHARD = flags.DEFINE_integer("shard_size", 1000, "Images in one file.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random classes and of 'dirichlet'.")
_OUT, _OVERWRITE = common_flags.out("generate_dataset"), common_flags.overwrite()


class Job(NamedTuple):
    """What is to be done, validated."""

    source: sources.ImageSource
    classifier: pretrained.Pretrained
    apply_fn: Any
    variables: Any
    output: og.outputs.Output


def prepare() -> Job:
    """The job of the flags."""
    classifier, source = loading.load(
        _SOURCE.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        limit=_NUMBER.value,
        classifier=_CLASSIFIER.value,
    )
    output = getattr(og.outputs, _OUTPUT.value)()
    return Job(source, classifier, *og.models.from_nnx(classifier.model), output)


def wanted(job: Job) -> Any:
    """The targets as `generate_dataset` takes them, from --targets."""
    source, text = job.source, _TARGETS.value
    names = job.classifier.class_names
    known: dict[str, Any] = {"class_names": names, "seed": _SEED.value, "output": job.output}
    if text == "dirichlet" and _OUTPUT.value != "softmax":
        raise ValueError(
            f"--targets=dirichlet draws distributions; for --output={_OUTPUT.value} write entries, such as "
            "--targets=3=0.9,8=0.2, or give a .csv"
        )
    if text.endswith(".csv"):
        before = og.predict(job.apply_fn, job.variables, source.images, output=job.output)
        return og.targets.from_csv(text, source=source, source_probs=before, **known)

    def of_rows(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
        chosen = source.take(rows)
        if text == "dirichlet":
            return og.targets.dirichlet(_SEED.value, len(rows), len(names), image_ids=chosen.ids)
        # The network is asked only where the text speaks of it.
        asks = any(word in text for word in ("top", "runnerup"))
        probs = None
        if asks:
            probs = og.predict(job.apply_fn, job.variables, chosen.images, output=job.output)
        return og.targets.parse(text, source=chosen, source_probs=probs, **known)

    of_rows(np.arange(1), np.zeros(1))  # an error in the text is found before a file is written
    return of_rows


def join_others() -> None:
    """Makes this one of several processes, where the environment says so."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        count, index = (os.environ.get(f"JAX_{key}") for key in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            address,
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
        )


def settings() -> dict[str, Any]:
    """The flags that the data set depends on."""
    free = {"out", "overwrite", "data_dir"}
    own = flags.FLAGS.get_key_flags_for_module(__name__)
    return {f.name: f.value for f in own if f.name not in free}


def main(argv: list[str]) -> None:
    """Runs the program with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    join_others()
    job = prepare()
    targets = wanted(job)
    first = jax.process_index() == 0
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value) if first else None
    if jax.process_count() > 1:
        # With --overwrite the first process empties the directory; the others must not read it before that.
        multihost_utils.sync_global_devices("generate_dataset: run opened")
    start = time.perf_counter()
    report = og.generate_dataset(
        job.apply_fn,
        job.variables,
        job.source,
        targets,
        Path(_OUT.value) / "generated" / "1.0.0",
        output=job.output,
        solver=og.preset(_SOLVER.value, steps=_STEPS.value),
        tolerance=_TOLERANCE.value,
        quantize=_QUANTIZE.value,
        save_float=_SAVE_FLOAT.value,
        batch_size=_BATCH.value,
        shard_size=_SHARD.value,
        about={"source": _SOURCE.value, "script": "generate_dataset.py", "flags": settings()},
        progress=True,
    )
    seconds = time.perf_counter() - start
    if out is not None:
        results = {key: value for key, value in report._asdict().items() if key != "directory"}
        kind = {"output": repr(job.output), "distance": job.output.measure}
        out.write_results({**kind, "seconds": seconds, **results})
    print(
        f"{report.examples} images in {report.shards} shards ({report.made} made now, {seconds:.0f} s); "
        f"{report.converged} met their target before rounding, {report.within[1e-3]} are within 0.001 as stored\n"
        f"{report.directory}"
    )


if __name__ == "__main__":
    scripts.start(main)
