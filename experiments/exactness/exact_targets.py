"""How exactly images reach their targets with one plain call, and whether they keep them when saved as PNG.

Purpose   Beyond paper A, whose descent only approaches a target: `og.synthesize` as it is, on six kinds of targets, in
          float32 and, with `og.quantize`, as 8-bit PNG files.
Command   python -m experiments.exactness.exact_targets --data_dir=... --out=experiments/exactness/results/exact_targets
          MNIST: --dataset=mnist --classifier=mnist_lenet
Expected  Total variation at most 1e-5 in float32 for at least 99.5 % of 1,000 images, and below 2e-3 after saving;
          targets with zeros in them are the hard ones. Measured: README.md.
Duration  about an hour on one CPU core
Output    --out gets results.json (per image) and table.md.

The same command resumes: every finished kind of target is kept. With --only, two processes can share the kinds.
"""

import functools
import io
import time
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from PIL import Image

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import files, report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = common_flags.unchosen_split()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(1000, of="split", at_least=2)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Total variation to reach.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_ONLY = flags.DEFINE_list("only", [], "Kinds of targets to run now; by default all.")
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("exact_targets")
_OVERWRITE = common_flags.overwrite()

KINDS = {
    "0.9 / 0.1": "true=0.9,random=0.1",
    "0.5 / 0.5": "true=0.5,random=0.5",
    "uniform": "uniform",
    "one-hot": "random=1",
    "Dirichlet(1)": None,
    "another image's output": None,
}
MEASURES = ("total_variation", "l2", "total_variation_png", "steps")
# Steps after which the table counts who has converged.
EARLY = 40


class Job(NamedTuple):
    """The images and the classifier that is asked."""

    apply_fn: Any
    variables: Any
    source: sources.ImageSource
    before: np.ndarray  # [N, K] probabilities of the source images


def wanted(kind: str, job: Job) -> np.ndarray:
    """The targets [N, K] of a kind."""
    count, classes = job.before.shape
    if kind == "Dirichlet(1)":
        return og.targets.dirichlet(_SEED.value, count, classes, image_ids=job.source.ids)
    if kind == "another image's output":
        return np.roll(job.before, 1, axis=0)
    return og.targets.parse(
        KINDS[kind],
        class_names=job.source.class_names,
        labels=job.source.labels,
        image_ids=job.source.ids,
        source_probs=job.before,
        seed=_SEED.value,
    )


def through_png(images: np.ndarray) -> np.ndarray:
    """What comes back from uint8 images [N, H, W, C] saved as PNG."""
    loaded = [np.asarray(Image.open(io.BytesIO(files.png_bytes(image)))) for image in images]
    return np.stack(loaded).reshape(images.shape)


def run_kind(kind: str, job: Job) -> dict[str, np.ndarray]:
    """The numbers of one kind of target, per image."""
    network, targets = (job.apply_fn, job.variables), wanted(kind, job)
    start = time.perf_counter()
    result = og.synthesize(
        *network,
        job.source.images,
        targets,
        tolerance=_TOLERANCE.value,
        batch_size=_BATCH.value,
        progress=True,
    )
    middle = time.perf_counter()
    rounded = og.quantize(*network, result.images, targets, batch_size=_BATCH.value)
    end = time.perf_counter()
    # Judged in batches of another shape than the solver's, as a user would.
    reached, saved = (og.predict(*network, x) for x in (result.images, through_png(rounded)))
    return {
        "total_variation": np.asarray(og.metrics.total_variation(reached, targets)),
        "l2": np.asarray(og.metrics.l2_change(result.images, job.source.images)),
        "total_variation_png": np.asarray(og.metrics.total_variation(saved, targets)),
        "steps": result.steps,
        "seconds": np.array([middle - start, end - middle]),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`, as results.json has them: summary and tails, with a row per kind of target."""
    tolerance = results["flags"]["tolerance"]
    summary, tails = [], []
    for kind, numbers in results["per_image"].items():
        distance, l2, png, steps = (np.array(numbers[key]) for key in MEASURES)
        within = distance <= tolerance
        solving, rounding = (f"{x / len(distance):.2g}" for x in results["seconds"][kind])
        summary.append(
            [
                *(kind, f"{within.mean():.1%}"),
                *percentiles(distance, 100),
                *percentiles(png, 50),
                *percentiles(l2, 50, 100),
                *(f"{np.median(steps):.0f}", solving),
            ]
        )
        tails.append(
            [
                *(kind, f"{(within & (steps <= EARLY)).mean():.1%}"),
                *percentiles(distance, 50, 99),
                *percentiles(png, 99, 100),
                *percentiles(l2, 95, 99),
                *(f"{np.percentile(steps, q):.0f}" for q in (95, 99, 100)),
                rounding,
            ]
        )
    summary_headings = (
        *("target", f"within {tolerance:g}"),
        *percentile_headings("TV", 100),
        *percentile_headings("PNG TV", 50),
        *percentile_headings("L2", 50, 100),
        *("steps, median", "s per image"),
    )
    tails_headings = (
        *("target", f"within, and ≤ {EARLY} steps"),
        *percentile_headings("TV", 50, 99),
        *percentile_headings("PNG TV", 99, 100),
        *percentile_headings("L2", 95, 99),
        *percentile_headings("steps", 95, 99, 100),
        "s per image, quantize",
    )
    return "\n".join(
        (
            report.markdown_table(summary_headings, summary),
            report.markdown_table(tails_headings, tails),
        )
    )


def prepare() -> Job:
    start = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
    )
    return Job(*start.network, start.source, og.predict(*start.network, start.source.images))


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    unknown = [kind for kind in _ONLY.value if kind not in KINDS]
    if unknown:
        raise ValueError(f"--only: unknown kinds {', '.join(unknown)}; they are {', '.join(KINDS)}")
    job = prepare()
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {"flags": out.flags, "per_image": {}, "seconds": {}}
    for index, kind in enumerate(KINDS):
        kept = out.directory / "cache" / f"{index}.npz"
        if kind not in (_ONLY.value or KINDS) and not kept.exists():
            continue
        print(kind)
        outcome = runs.kept(kept, functools.partial(run_kind, kind, job))
        results["per_image"][kind] = {
            key: [float(f"{x:.4g}") for x in outcome[key]] for key in MEASURES
        }
        results["seconds"][kind] = outcome["seconds"].tolist()
        common_tables.write(out, results, table)
    print(table(results))


if __name__ == "__main__":
    scripts.start(main)
