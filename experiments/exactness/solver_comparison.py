"""Paper A's ways to generate, side by side: Figs A1, A3, A4 and A5, and a table of numbers for them.

Purpose   The paper compares SGD, momentum SGD and momentum + low-pass by eye ("nearly noise-free", "visible noise",
          "rainbow colours"). Here also by number, over many images: distance to the target, size and high-frequency
          part of the change, before and after rounding to 8 bits.
Command   python -m experiments.exactness.solver_comparison --data_dir=...
              --out=experiments/exactness/results/solver_comparison
Expected  SGD changes least; momentum gets closer and is noisier; the low-pass removes the noise. Measured: README.md.
Output    --out gets results.json (per image), table.md and fig_a3_a5.png.

The same command resumes: every finished solver is kept.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import outgen_jax as og
from experiments.common import distances, loading
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.exactness import changes
from outgen_jax import report, runs, scripts
from outgen_jax.models import pretrained
from outgen_jax.solvers import descent

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = flags.DEFINE_integer("number", 1000, "Test images, from the start of the split.", 10)
_TARGETS = flags.DEFINE_string(
    "targets", "true=0.9,random=0.1", "Target text (paper A, Section 3)."
)
_STEPS = flags.DEFINE_integer("steps", 100, "Updates (paper A, Section 3).", 1)
_BATCH = common_flags.images_at_a_time()
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("solver_comparison")
_OVERWRITE = common_flags.overwrite()

SOLVERS = {
    "sgd": "SGD",
    "momentum": "momentum",
    "momentum_lowpass": "momentum + low-pass",
}
_SHOWN = 5  # images in the figure
# Columns of the table: heading, key of an image's number, how to summarise it over images.
COLUMNS = (
    ("KL, nats", "kl", np.median),
    ("TV", "total_variation", np.median),
    ("TV, 95th pct.", "total_variation", functools.partial(np.percentile, q=95)),
    ("8-bit TV", "total_variation_8bit", np.median),
    ("8-bit TV, 95th pct.", "total_variation_8bit", functools.partial(np.percentile, q=95)),
    ("L2", "l2", np.median),
    ("L∞", "linf", np.median),
    ("L2 above radius 10", "noise", np.median),
)

MEASURES = tuple(dict.fromkeys(key for _, key, _ in COLUMNS))


class Job(NamedTuple):
    """The images, what is wanted of them, and the classifier that is asked."""

    apply_fn: Any
    variables: Any
    images: np.ndarray  # [N, 32, 32, 3] uint8
    labels: np.ndarray  # [N]
    class_names: tuple[str, ...]
    targets: np.ndarray  # [N, K], masked where free


def measure(
    source: np.ndarray, result: og.Result, targets: np.ndarray, reached_8bit: np.ndarray
) -> dict[str, np.ndarray]:
    """Numbers per image [N]: L2 and L∞ of the change, pixels in [0, 1]; `noise`, the L2 of its part above radius 10."""
    change = result.images - source.astype(np.float32) / 255
    energy = jax.jit(jax.vmap(lambda x: og.pixels.high_frequency_energy(x, descent.LOWPASS_RADIUS)))
    return {
        "kl": result.kl,
        "total_variation": result.total_variation,
        "total_variation_8bit": distances.variation(reached_8bit, targets),
        "l2": np.asarray(og.metrics.l2_change(result.images, source)),
        "linf": np.asarray(og.metrics.linf_change(result.images, source)),
        "noise": np.sqrt(np.asarray(energy(change)) * change[0].size),
    }


def run_solver(name: str, job: Job) -> dict[str, np.ndarray]:
    """Images and numbers of one solver."""
    options = {"solver": og.preset(name, steps=_STEPS.value), "batch_size": _BATCH.value or 128}
    network = (job.apply_fn, job.variables)
    start = time.perf_counter()
    result = og.synthesize(*network, job.images, job.targets, progress=True, **options)
    seconds = time.perf_counter() - start
    generated = og.data.to_uint8(result.images)
    reached = og.predict(*network, generated)
    return {
        **measure(job.images, result, job.targets, reached),
        "generated": generated,
        "reached": reached,
        "seconds": np.float64(seconds),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per solver."""
    headings = ["solver", *(heading for heading, _, _ in COLUMNS)]
    rows = []
    for name, numbers in results["per_image"].items():
        cells = [f"{summarise(numbers[key]):.2g}" for _, key, summarise in COLUMNS]
        rows.append([SOLVERS[name], *cells])
    return report.markdown_table(headings, rows)


def shown_rows(labels: np.ndarray) -> np.ndarray:
    """The first image of each of the first classes."""
    return np.array([np.flatnonzero(labels == k)[0] for k in np.unique(labels)[:_SHOWN]])


def figure(job: Job, outcomes: dict[str, dict[str, np.ndarray]], rows: np.ndarray) -> Figure:
    """Figs A1 and A3 to A5 in one: some images, what each solver made of them, and what the network says of that."""
    ways = {
        SOLVERS[name]: changes.Changed(outcome["generated"][rows], outcome["reached"][rows])
        for name, outcome in outcomes.items()
    }
    return changes.changes_figure(job.images[rows], job.targets[rows], job.class_names, ways)


def prepare() -> Job:
    start = loading.load_labelled(
        _CLASSIFIER.value, _DATASET.value, data_dir=_DATA_DIR.value, number=_NUMBER.value
    )
    names, (apply_fn, variables), source = start
    targets = og.targets.parse(
        _TARGETS.value,
        class_names=names,
        labels=source.labels,
        image_ids=source.ids,
        source_probs=og.predict(apply_fn, variables, source.images),
        seed=_SEED.value,
    )
    return Job(apply_fn, variables, source.images, source.labels, names, targets)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    job = prepare()
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    outcomes = {}
    for name, title in SOLVERS.items():
        print(title)
        outcomes[name] = runs.kept(
            out.directory / "cache" / f"{name}.npz", functools.partial(run_solver, name, job)
        )
    shown = figure(job, outcomes, shown_rows(job.labels))
    report.save_figure(shown, out.directory / "fig_a3_a5.png")
    results = {
        "seconds": {name: float(outcome["seconds"]) for name, outcome in outcomes.items()},
        "per_image": {
            name: {key: [float(f"{x:.4g}") for x in outcome[key]] for key in MEASURES}
            for name, outcome in outcomes.items()
        },
    }
    common_tables.write(out, results, table)
    print(table(results))


if __name__ == "__main__":
    scripts.start(main)
