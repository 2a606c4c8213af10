"""Changes of other kinds: under a mask, with a largest change of a pixel, and smooth ones.

Purpose   Beyond paper A, whose low-pass filter is the one way to keep changes from looking like noise: the same targets
          reached by `og.exact` with each of its limits on the change, side by side, each image beside its change.
Command   python -m experiments.exactness.norm_choices --data_dir=... --out=experiments/exactness/results/norm_choices
Expected  Most images reach the target, fewest under the mask; the masked change stays in the middle, the capped one is
          even, the smooth one has little fine detail and a larger L2. Measured: README.md.
Output    --out gets results.json (per image), table.md and norm_choices.png.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import label
from experiments.exactness import changes
from outgen_jax import report, runs, scripts
from outgen_jax.models import pretrained
from outgen_jax.solvers.exact import Exact

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_TARGETS = flags.DEFINE_string("targets", "top=0.6,runnerup=0.4", "Target text.")
_NUMBER = flags.DEFINE_integer("number", 100, "Test images, from the start of the split.", 1)
_SHOWN = flags.DEFINE_integer("shown", 5, "Of them in the picture.", 1)
_CAP = flags.DEFINE_float("max_change", 0.03, "L∞ cap, pixels in [0, 1].", 0)
_RADIUS = flags.DEFINE_float("lowpass_radius", 4.0, "Of smooth changes, cycles per image side.", 0)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-3, "Total variation to reach.", 1e-9)
_OUT = common_flags.out("norm_choices")
_OVERWRITE = common_flags.overwrite()

_FINE = 8.0  # radius beyond which a change is called fine detail
MEASURES = ("total_variation", "l2", "linf", "fine_share", "steps")


def middle(height: int, width: int) -> np.ndarray:
    """A mask [H, W] of the middle half, by side."""
    mask = np.zeros((height, width))
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    return mask


def solvers(shape: tuple[int, ...]) -> dict[str, Exact]:
    """The ways compared, by the heading of their column."""
    return {
        "no limit": og.exact(),
        "middle only": og.exact(mask=middle(*shape[:2])),
        f"L∞ ≤ {_CAP.value:g}": og.exact(max_change=_CAP.value),
        "smooth": og.exact(lowpass_radius=_RADIUS.value),
    }


def measure(source: np.ndarray, result: og.Result) -> dict[str, np.ndarray]:
    """Numbers per image [N]; `fine_share` is the part of the squared change beyond radius 8."""
    change = jnp.asarray(result.images - source)
    fine = jax.vmap(lambda x: og.pixels.high_frequency_energy(x, _FINE))(change)
    return {
        "total_variation": result.total_variation,
        "l2": np.asarray(og.metrics.l2_change(result.images, source)),
        "linf": np.asarray(og.metrics.linf_change(result.images, source)),
        "fine_share": np.asarray(fine / jnp.maximum((change**2).mean((1, 2, 3)), 1e-30)),
        "steps": result.steps,
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per way, medians over images."""
    tolerance = results["flags"]["tolerance"]
    headings = (
        "change",
        f"within {tolerance:g}",
        "TV",
        "L2",
        "L∞",
        "fine detail",
        "steps",
    )
    rows = []
    for name, numbers in results["per_image"].items():
        reached = np.mean(np.array(numbers["total_variation"]) <= tolerance)
        medians = (f"{np.median(numbers[key]):.2g}" for key in MEASURES)
        rows.append([label(name), f"{reached:.0%}", *medians])
    return report.markdown_table(headings, rows)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names, network, data = loading.load_labelled(
        _CLASSIFIER.value, _DATASET.value, data_dir=_DATA_DIR.value, number=_NUMBER.value
    )
    targets = og.targets.parse(
        _TARGETS.value,
        class_names=names,
        labels=data.labels,
        image_ids=data.ids,
        source_probs=og.predict(*network, data.images),
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    source = data.images.astype(np.float32) / 255
    shown = slice(0, min(_SHOWN.value, len(source)))
    ways: dict[str, changes.Changed] = {}
    found: dict[str, Any] = {}
    for name, solver in solvers(source.shape[1:]).items():
        print(name)
        result = og.synthesize(
            *network, source, targets, solver=solver, tolerance=_TOLERANCE.value, progress=True
        )
        ways[name] = changes.Changed(result.images[shown], result.probs[shown])
        found[name] = {
            key: [float(f"{x:.4g}") for x in values]
            for key, values in measure(source, result).items()
        }
    results = {"flags": run.flags, "per_image": found}
    common_tables.write(run, results, table)
    figure = changes.changes_figure(data.images[shown], targets[shown], names, ways)
    report.save_figure(figure, run.directory / "norm_choices.png")
    print(table(results))


if __name__ == "__main__":
    scripts.start(main)
