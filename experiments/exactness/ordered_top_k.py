"""Ordered top-K at will: K classes drawn at random, with prescribed probabilities and in prescribed order.

Purpose   Beyond paper A, on ImageNet's 1,000 classes: partial targets. The K named classes get probabilities that
          halve from one to the next, or for large K fall more gently, 0.9 in all; the others share 0.1 as they like.
Command   python -m experiments.exactness.ordered_top_k --source=IMAGES --out=runs/ordered_top_k
          One plain call of `og.synthesize`.
Expected  All K in order, and within --tolerance of the probabilities asked for. Measured: README.md.
Output    --out gets results.json (per image) and table.md. The same command resumes: every finished K is kept.

Without --source it takes the photographs that scikit-image carries.
"""

import functools
import time
from typing import Any

import numpy as np
from absl import flags

import outgen_jax as og
from experiments.common import distances, loading
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.targets import draws as target_draws

_SOURCE = common_flags.photographs()
_DATA_DIR = common_flags.data_dir()
_CLASSIFIER = common_flags.classifier("efficientnet_lite0")
_NUMBER = common_flags.number(100, of="source", at_least=1)
_SIZES = flags.DEFINE_list("k", ["1", "5", "20"], "Numbers of classes.")
_NAMED = flags.DEFINE_float("named", 0.9, "Probability of the K classes together.", 0, 1)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Total variation to reach.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_SEED = common_flags.seed("the classes")
_OUT = common_flags.out("ordered_top_k")
_OVERWRITE = common_flags.overwrite()

MEASURES = (
    *("in_order", "total_variation", "in_order_8bit", "total_variation_8bit"),
    *("l2", "steps"),
)


def falling(count: int, total: float) -> np.ndarray:
    """Probabilities [K] in falling geometric order, the first at most 16 times the last."""
    ratio = min(2.0, 16 ** (1 / max(count - 1, 1)))
    weights = ratio ** -np.arange(count)
    return total * weights / weights.sum()


def targets(classes: np.ndarray, num_classes: int) -> np.ma.MaskedArray:
    """Partial targets [N, num_classes]: `classes` [N, K] get `falling` probabilities, the rest is free."""
    rows = np.ma.array(np.zeros((len(classes), num_classes), np.float32), mask=True)
    np.put_along_axis(rows.data, classes, falling(classes.shape[1], _NAMED.value), 1)
    np.put_along_axis(rows.mask, classes, False, 1)
    return rows


def run_size(
    count: int, network: tuple[Any, Any], source: sources.ImageSource, num_classes: int
) -> dict[str, np.ndarray]:
    """The numbers of one K, per image."""
    drawn = target_draws.distinct_classes(
        count, num_classes, [], seed=_SEED.value, ids=source.ids, caller="--k"
    )
    classes = np.stack(drawn, 1)
    rows = targets(classes, num_classes)
    start = time.perf_counter()
    ended = og.synthesize(
        *network,
        source.images,
        rows,
        tolerance=_TOLERANCE.value,
        batch_size=_BATCH.value,
        progress=True,
    )
    saved = og.quantize(*network, ended.images, rows, batch_size=_BATCH.value)
    seconds = time.perf_counter() - start
    reached, probs = (
        og.predict(*network, x, batch_size=_BATCH.value) for x in (ended.images, saved)
    )
    return {
        "in_order": np.asarray(og.metrics.ordered_top_k(reached, classes)),
        "total_variation": distances.variation(reached, rows),
        "in_order_8bit": np.asarray(og.metrics.ordered_top_k(probs, classes)),
        "total_variation_8bit": distances.variation(probs, rows),
        "l2": np.asarray(og.metrics.l2_change(ended.images, source.images)),
        "steps": ended.steps,
        "seconds": np.array(seconds),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per K."""
    tolerance = results["flags"]["tolerance"]
    headings = (
        *("K", "images", "in order", f"within {tolerance:g}"),
        *percentile_headings("TV", 50, 95, 100),
        *("in order, 8-bit", "8-bit TV, median", *percentile_headings("L2", 50, 100)),
        *("steps, median", "s per image"),
    )
    rows = []
    for count, found in results["k"].items():
        distance, images = found["total_variation"], len(found["l2"])
        cells = [
            count,
            str(images),
            f"{np.mean(found['in_order']):.0%}",
            f"{np.mean(np.array(distance) <= tolerance):.0%}",
            *percentiles(distance, 50, 95, 100),
            f"{np.mean(found['in_order_8bit']):.0%}",
            *percentiles(found["total_variation_8bit"], 50),
            *percentiles(found["l2"], 50, 100),
            f"{np.median(found['steps']):.0f}",
            f"{found['seconds'] / images:.1f}",
        ]
        rows.append(cells)
    return report.markdown_table(headings, rows)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names, network, source = loading.load(
        _CLASSIFIER.value,
        _SOURCE.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
        resized=True,
    )
    num_classes = len(names)
    sizes = [int(size) for size in _SIZES.value]
    if any(not 1 <= size < num_classes for size in sizes):
        raise ValueError(f"--k must lie in 1..{num_classes - 1}, got {', '.join(_SIZES.value)}")
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {}
    for size in sizes:
        print(f"K = {size}")
        found = runs.kept(
            run.directory / "cache" / f"{size}.npz",
            functools.partial(run_size, size, network, source, num_classes),
        )
        results[str(size)] = {key: found[key].tolist() for key in (*MEASURES, "seconds")}
        common_tables.write(run, {"k": results}, table)
    print(table({"flags": run.flags, "k": results}))


if __name__ == "__main__":
    scripts.start(main)
