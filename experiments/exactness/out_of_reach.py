"""Are targets that `og.exact` leaves out of reach? Long first-order searches from several starts.

Purpose   Beyond paper A: on some networks `og.exact` gives up on most images. The images that it leaves get Adam at two
          rates and L-BFGS, each from the source, the source with noise, another image, and noise. If no search meets a
          target either, it may have no solution near these starts.
Command   python -m experiments.exactness.out_of_reach --classifier=WEIGHTS.npz --data_dir=...
Expected  On the shipped classifiers hardly any image is left. Measured on a harder network: README.md.
Output    --out gets results.json (per image) and table.md. The same command resumes: every finished search is kept.
"""

from typing import Any

import numpy as np
import optax
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import report, runs, scripts
from outgen_jax.models import pretrained
from outgen_jax.solvers.descent import GradientDescent

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = common_flags.unchosen_split()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(24, of="split", at_least=2)
_TARGETS = flags.DEFINE_string("targets", "true=0.9,random=0.1", "Target text.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Total variation to reach.", 1e-9)
_UPDATES = flags.DEFINE_integer("updates", 2000, "Of Adam, from each start.", 1)
_ITERATIONS = flags.DEFINE_integer("iterations", 200, "Of L-BFGS, from each start.", 1)
_SEED = common_flags.seed("the random classes and the noise")
_OUT = common_flags.out("out_of_reach")
_OVERWRITE = common_flags.overwrite()

RATES = (0.003, 0.03)  # of Adam, falling along a cosine
_NOISE = 0.1  # standard deviation of the noise that is added to the source
EXACT, BEST = "og.exact", "best of all searches"


def starts(images: np.ndarray, left: np.ndarray) -> dict[str, np.ndarray]:
    """Where the searches start: float32 [n, H, W, C] for the rows `left` of the images [N, H, W, C] uint8."""
    rng = np.random.default_rng(_SEED.value)
    own, following = (images[rows] / np.float32(255) for rows in (left, (left + 1) % len(images)))
    noise = rng.normal(0, _NOISE, own.shape).astype(np.float32)
    return {
        "source": own,
        "source with noise": np.clip(own + noise, 0, 1),
        "another image": following,
        "noise": rng.random(own.shape, np.float32),
    }


def searches() -> dict[str, GradientDescent]:
    """The solvers, by name."""
    found = {}
    for rate in RATES:
        adam = optax.adam(optax.cosine_decay_schedule(rate, _UPDATES.value))
        found[f"Adam, rate {rate:g}"] = og.gradient_descent(
            adam, pixels=og.pixels.identity(), weight_decay=0.0, steps=_UPDATES.value
        )
    found["L-BFGS"] = og.gradient_descent(
        optax.lbfgs(), pixels=og.pixels.tanh(), weight_decay=0.0, steps=_ITERATIONS.value
    )
    return found


def measure(result: og.Result, sources: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers per image [n]."""
    return {
        "total_variation": result.total_variation,
        "l2": np.asarray(og.metrics.l2_change(result.images, sources)),
        "gave_up": result.gave_up,
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row for `og.exact` and each search and start."""
    tolerance = results["flags"]["tolerance"]
    rows = [_row(EXACT, "source", results["exact"], tolerance)]
    best = None
    for name, by_start in results["searches"].items():
        for start, numbers in by_start.items():
            rows.append(_row(name, start, numbers, tolerance))
            distance = np.array(numbers["total_variation"])
            best = distance if best is None else np.minimum(best, distance)
    if best is not None:
        rows.append(_row(BEST, "all", {"total_variation": best}, tolerance))
    headings = (
        *("search", "start", "images", f"within {tolerance:g}", "gave up"),
        *("TV, min", *percentile_headings("TV", 25, 50, 75, 100)),
        "L2, median",
    )
    return report.markdown_table(headings, rows)


def _row(name: str, start: str, numbers: dict[str, Any], tolerance: float) -> list[str]:
    distance = np.array(numbers["total_variation"])
    measured = "l2" in numbers  # not for the best of several searches
    gave_up = str(int(np.sum(numbers["gave_up"]))) if measured else ""
    change = f"{np.median(numbers['l2']):.2g}" if measured else ""
    return [
        *(name, start, str(len(distance)), f"{(distance <= tolerance).mean():.0%}", gave_up),
        *percentiles(distance, 0, 25, 50, 75, 100),
        change,
    ]


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    begin = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
        resized=True,
    )
    images = begin.source.images
    targets = og.targets.parse(
        _TARGETS.value,
        class_names=begin.class_names,
        labels=begin.source.labels,
        image_ids=begin.source.ids,
        source_probs=og.predict(*begin.network, images),
        seed=_SEED.value,
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {"exact": {}, "searches": {}}

    def solved(
        solver: Any, start: np.ndarray, rows: np.ndarray, file: str
    ) -> dict[str, list[float]]:
        def compute() -> dict[str, np.ndarray]:
            options = {"solver": solver, "tolerance": _TOLERANCE.value, "progress": True}
            return measure(
                og.synthesize(*begin.network, start, targets[rows], **options), images[rows]
            )

        found = runs.kept(run.directory / "cache" / f"{file}.npz", compute)
        return {key: [float(f"{x:.4g}") for x in values] for key, values in found.items()}

    everyone = np.arange(len(images))
    print(EXACT)
    results["exact"] = solved(og.exact(), images, everyone, "exact")
    left = np.flatnonzero(np.array(results["exact"]["total_variation"]) > _TOLERANCE.value)
    common_tables.write(run, results, table)
    for number, (name, solver) in enumerate(searches().items()):
        for place, (start, pixels) in enumerate(starts(images, left).items() if len(left) else ()):
            print(f"{name}, {start}", flush=True)
            found = solved(solver, pixels, left, f"{number}-{place}")
            results["searches"].setdefault(name, {})[start] = found
            common_tables.write(run, results, table)
    print(table({"flags": run.flags, **results}))


if __name__ == "__main__":
    scripts.start(main)
