"""Several views at once: images that keep their target when they are mirrored and shifted.

Purpose   Paper A's crops and flips destroyed the outputs of its images. `og.views` asks for the target under 18 views,
          2 flips and 9 shifts of up to 3 pixels. Judged under these, and under all 162 crops and flips of the paper's
          augmentation, next to an image made without views.
Command   python -m experiments.any_output.several_views --data_dir=...
              --out=experiments/any_output/results/several_views
Expected  The largest total variation over the 18 views at most 1e-3 for 95 % of the images. Measured: README.md.
Output    --out gets results.json (per image), table.md and several_views.png. The same command resumes.
"""

import functools
from typing import Any

import numpy as np
from absl import flags

import outgen_jax as og
from experiments.any_output import measures
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common.cells import percentile_headings, percentiles
from experiments.common.crops import flips_and_shifts, largest, variations
from outgen_jax import report, runs, scripts
from outgen_jax.models import pretrained

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = common_flags.unchosen_split()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(100, of="split", at_least=1)
_TARGETS = flags.DEFINE_string(
    "targets", "true=0.9,random=0.1", "Target text, the same in every view."
)
_SHIFTS = flags.DEFINE_list("shifts", ["-3", "0", "3"], "Pixels, in both directions.")
_CROP = flags.DEFINE_integer("crop", 4, "Pixels by which the augmentation shifts at most.", 1)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-3, "Largest total variation over the views.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("several_views")
_OVERWRITE = common_flags.overwrite()

_AT_ONCE = 4  # images judged at a time under all crops and flips
METHODS = ("without views", measures.OURS)


def measured(
    case: measures.Case, plain: Any, everywhere: Any, method: str
) -> dict[str, np.ndarray]:
    """The numbers of a method, and the mean total variation under all crops and flips before and after."""
    made = case._replace(apply_fn=plain)
    if method == measures.OURS:
        made = case._replace(targets=case.targets[:, None])  # of an image, the same in every view
    found, images = measures.synthesized_images(made, case, tolerance=_TOLERANCE.value)
    for name, shown in (("mean_before", case.images), ("mean_after", images)):
        said = og.predict(everywhere, case.variables, shown, batch_size=_AT_ONCE)
        found[name] = variations(said, case.targets).mean(1)
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`: exactness, its price, and what all crops and flips leave of it."""
    within = results["flags"]["tolerance"]
    rows = []
    for task, methods in results["tasks"].items():
        for method, found in methods.items():
            before, after = found["mean_before"], found["mean_after"]
            rows.append([task, method, *percentiles(before, 50, 95), *percentiles(after, 50, 95)])
    headings = (
        *("target", "method"),
        *percentile_headings("source", 50, 95),
        *percentile_headings("image", 50, 95),
    )
    parts = measures.tables(results["tasks"], name="worst TV", within=within)
    return "\n".join((*parts, report.markdown_table(headings, rows)))


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names, (plain, variables), source = loading.load(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
    )
    targets = og.targets.parse(
        _TARGETS.value,
        class_names=names,
        source=source,
        source_probs=og.predict(plain, variables, source.images),
        seed=_SEED.value,
    )
    seen = og.views(plain, flips_and_shifts([int(pixels) for pixels in _SHIFTS.value]))
    everywhere = og.views(plain, flips_and_shifts(range(-_CROP.value, _CROP.value + 1)))
    case = measures.Case(
        *(seen, variables, og.outputs.softmax(), source.images, targets, largest, _BATCH.value)
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    study = measures.Study(run, table, "tasks")
    for method in METHODS:
        compute = functools.partial(measured, case, plain, everywhere, method)
        study.keep("tasks", _TARGETS.value, method, compute)
    study.finish(source.images, "several_views.png")


if __name__ == "__main__":
    scripts.start(main)
