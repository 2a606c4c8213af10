"""All of a thousand probabilities at will: every image gets the whole output of another.

Purpose   Beyond paper A, on ImageNet's 1,000 classes: full targets, for which a row of the Jacobian for every class
          would be too dear. `og.gauss_newton_cg` against Adam on the pixels, whose 2,000 updates take as long.
Command   python -m experiments.exactness.full_targets --source=IMAGES --out=experiments/exactness/results/full_targets
Expected  Gauss-Newton closer to the target, by a change of about the same size. Measured: README.md.
Output    --out gets results.json (per image) and table.md. The same command resumes: every finished solver is kept.

Without --source it takes the photographs that scikit-image carries.
"""

import functools
import time
from typing import Any

import numpy as np
import optax
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import label, percentile_headings
from outgen_jax import report, runs, scripts

_SOURCE = common_flags.photographs()
_DATA_DIR = common_flags.data_dir()
_CLASSIFIER = common_flags.classifier("efficientnet_lite0")
_NUMBER = common_flags.number(12, of="source", at_least=2)
_STEPS = flags.DEFINE_integer("steps", 80, "Of Gauss-Newton.", 1)
_UPDATES = flags.DEFINE_integer("updates", 2000, "Of Adam.", 1)
_LR = flags.DEFINE_float("learning_rate", 1e-3, "Adam's at first; it falls to 0.", 1e-9)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Total variation at which an image stops.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_OUT = common_flags.out("full_targets")
_OVERWRITE = common_flags.overwrite()

MEASURES = ("total_variation", "kl", "l2")


def solvers() -> dict[str, og.Solver]:
    """What is compared, by name."""
    return {
        "Adam": og.gradient_descent(
            optax.adam(optax.cosine_decay_schedule(_LR.value, _UPDATES.value)),
            pixels=og.pixels.identity(),
            weight_decay=0.0,
            steps=_UPDATES.value,
        ),
        "Gauss-Newton, conjugate gradients": og.gauss_newton_cg(steps=_STEPS.value),
    }


def run_solver(
    solver: og.Solver, network: tuple[Any, Any], images: np.ndarray
) -> dict[str, np.ndarray]:
    """The numbers of one solver, per image."""
    wanted = np.roll(og.predict(*network, images, batch_size=_BATCH.value), 1, axis=0)
    start = time.perf_counter()
    result = og.synthesize(
        *network,
        images,
        wanted,
        solver=solver,
        tolerance=_TOLERANCE.value,
        batch_size=_BATCH.value,
        progress=True,
    )
    return {
        "total_variation": result.total_variation,
        "kl": result.kl,
        "l2": np.asarray(og.metrics.l2_change(result.images, images)),
        "seconds": np.array(time.perf_counter() - start),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per solver."""
    headings = (
        *("solver", "images", *percentile_headings("TV", 50, 100), "KL, nats, median"),
        *("L2, median", "s per image"),
    )
    rows = []
    for name, found in results["solvers"].items():
        distance, images = found["total_variation"], len(found["l2"])
        cells = (np.median(distance), max(distance), np.median(found["kl"]), np.median(found["l2"]))
        shown = (f"{x:.2g}" for x in cells)
        rows.append([label(name), str(images), *shown, f"{found['seconds'] / images:.0f}"])
    return report.markdown_table(headings, rows)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    start = loading.load(
        _CLASSIFIER.value,
        _SOURCE.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
        resized=True,
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {}
    for index, (name, solver) in enumerate(solvers().items()):
        print(name)
        found = runs.kept(
            run.directory / "cache" / f"{index}.npz",
            functools.partial(run_solver, solver, start.network, start.source.images),
        )
        results[name] = {key: found[key].tolist() for key in (*MEASURES, "seconds")}
        common_tables.write(run, {"solvers": results}, table)
    print(table({"solvers": results}))


if __name__ == "__main__":
    scripts.start(main)
