"""What a training's crops and flips leave of the outputs of generated images.

Purpose   Paper A's diagnosis of its small gain: images are generated before training, so crops and flips make their
          labels wrong. Measured as the total variation between the prescribed output and the output of a stored image,
          as it is and as the mean over all 162 crops (zero padding of 4) and flips that training may draw.
Command   python -m experiments.replaced_training.augmented_outputs --data_dir=...
              --out=experiments/replaced_training/results/augmented_outputs
Expected  Paper A: "wrong labels", without a number. Measured: README.md in this folder.
Output    --out gets results.json (per image), table.md and figure.png. The same command resumes, method by method.
"""

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import outgen_jax as og
from experiments.common import crops, distances, loading
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.common.cells import percentiles
from outgen_jax import files, report, runs, scripts
from outgen_jax.metrics import statistics
from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn
from outgen_jax.report import plotting

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "train", "Split; paper A's images come from training images.")
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(50, of="split", at_least=2)
_TARGETS = flags.DEFINE_string("targets", "true=0.9,random=0.1", "Target text.")
_SHIFTS = flags.DEFINE_list(
    "shifts", ["-3", "0", "3"], "Pixels, both ways, of `exact under views`."
)
_PADDING = flags.DEFINE_integer("crop_padding", 4, "Pixels by which a crop shifts at most.", 0)
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "Of the exact images.", 1e-6)
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("augmented_outputs")
_OVERWRITE = common_flags.overwrite()

METHODS = ("original", "paper A's SGD", "exact", "exact under views")
_AT_ONCE = 4  # images judged at a time under all crops and flips


class Case(NamedTuple):
    """The frozen network, its images and what is wanted of them."""

    apply_fn: ApplyFn
    shifted: ApplyFn  # under the views of `exact under views`
    variables: Any
    images: np.ndarray  # [N, H, W, C] uint8
    targets: np.ndarray  # [N, K], masked where free


def stored_images(case: Case, method: str) -> np.ndarray:
    """The images of a method as a training set stores them: [N, H, W, C] uint8."""
    network, targets = (case.apply_fn, case.variables), case.targets
    if method == "original":
        return case.images
    if method == "paper A's SGD":
        solver = og.preset("sgd")
        found = og.synthesize(
            *network, case.images, case.targets, solver=solver, tolerance=1e-9, progress=True
        )
        return og.data.to_uint8(found.images)
    if method == "exact under views":
        network = case.shifted, case.variables
        targets = targets[:, None]  # the same in every view
    found = og.synthesize(*network, case.images, targets, tolerance=_TOLERANCE.value, progress=True)
    return og.quantize(*network, found.images, targets)


def measured(case: Case, method: str) -> dict[str, np.ndarray]:
    """Total variations [N] of the stored images: as they are, and mean and largest over all crops and flips."""
    start = time.perf_counter()
    images = stored_images(case, method)
    seconds = time.perf_counter() - start
    padding = _PADDING.value
    everywhere = og.views(case.apply_fn, crops.flips_and_shifts(range(-padding, padding + 1)))
    said = og.predict(everywhere, case.variables, images, batch_size=_AT_ONCE)
    augmented = crops.variations(said, case.targets)
    plain = og.predict(case.apply_fn, case.variables, images)
    return {
        "stored": distances.variation(plain, case.targets),
        "augmented_mean": augmented.mean(1),
        "augmented_largest": augmented.max(1),
        "l2": np.asarray(og.metrics.l2_change(images, case.images)),
        "seconds": np.array(seconds),
    }


def table(results: Mapping[str, Any]) -> str:
    """Markdown of `results.json`: a row per method, means over images ± half of the 95 % interval."""
    rows = []
    for method, found in results["methods"].items():
        augmented = found["augmented_mean"]
        rows.append(
            [
                method,
                str(len(augmented)),
                _mean(found["stored"]),
                _mean(augmented),
                *percentiles(augmented, 50, 95),
                _mean(found["augmented_largest"]),
                f"{np.median(found['l2']):.2f}",
            ]
        )
    headings = (
        "images",
        "number",
        "TV as stored",
        "TV under crops and flips",
        "median",
        "95th pct.",
        "TV in the worst crop or flip",
        "L2 change, median",
    )
    return report.markdown_table(headings, rows)


def _mean(values: list[float]) -> str:
    found = statistics.mean_interval(values)
    return f"{found.estimate:.3f} ± {found.high - found.estimate:.3f}"


def figure(results: Mapping[str, Any]) -> Figure:
    """A line per image of each method, from its total variation as stored to that under crops and flips."""
    methods = results["methods"]
    left, bottom, gap = 0.75, 0.4, 0.2
    width = min(1.9, (plotting.WIDTH - left) / len(methods) - gap)
    shown = plotting.blank_figure(left + len(methods) * (width + gap), 2.9)
    for place, (method, found) in enumerate(methods.items()):
        axes = plotting.place_axes(shown, left + place * (width + gap), bottom, width, 2.2)
        pairs = np.array([found["stored"], found["augmented_mean"]])
        axes.plot([0, 1], pairs, color=plotting.SKY, linewidth=0.6)
        axes.plot([0, 1], pairs.mean(1), "o-", color=plotting.INK, linewidth=2, markersize=4)
        axes.set_xlim(-0.25, 1.25)
        axes.set_ylim(0, 1)
        axes.set_xticks([0, 1], ["as stored", "augmented"])
        plotting.finish_axes(axes, ylabel="total variation to the target" if place == 0 else "")
        axes.tick_params(axis="y", labelleft=place == 0)
        plotting.write_title(axes, method)
    return shown


def load_case() -> Case:
    """The classifier of the flags with its images and targets."""
    start = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
    )
    apply_fn, variables = start.network
    targets = og.targets.parse(
        _TARGETS.value,
        class_names=start.class_names,
        source=start.source,
        source_probs=og.predict(apply_fn, variables, start.source.images),
        seed=_SEED.value,
    )
    shifted = og.views(apply_fn, crops.flips_and_shifts([int(p) for p in _SHIFTS.value]))
    return Case(apply_fn, shifted, variables, start.source.images, targets)


def main(argv: list[str]) -> None:
    """Runs the script with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    case = load_case()
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {"methods": {}}
    for method in METHODS:
        name = files.unique_file_names([method], ".npz")[0]
        compute = functools.partial(measured, case, method)
        found = runs.kept(run.directory / "cache" / name, compute)
        results["methods"][method] = {
            measure: values.round(5).tolist() for measure, values in found.items()
        }
        print(common_tables.write(run, results, table), flush=True)
    report.save_figure(figure(results), run.directory / "figure.png")


if __name__ == "__main__":
    scripts.start(main)
