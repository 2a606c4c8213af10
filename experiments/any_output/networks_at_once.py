"""Several networks at once: one image on which all give the prescribed answer, and one on which each gives another.

Purpose   EfficientNet-Lite0, -Lite1 and -Lite2 see one image, each resized to what it takes. Five classes drawn at
          random get prescribed probabilities, 0.9 in all; the other 995 share 0.1 as they like. Either all networks get
          the same target, or each a target over classes of its own. Networks in --asked take no part: they are asked
          what they say of the image.
Command   python -m experiments.any_output.networks_at_once --source=IMAGES
              --out=experiments/any_output/results/networks_at_once
          What the third says of images made for two: --networks=efficientnet_lite0,efficientnet_lite1
              --asked=efficientnet_lite2 --out=experiments/any_output/results/networks_transfer
Expected  A total variation of at most 1e-3 in all networks for 95 % of the images. Measured: README.md.
Output    --out gets results.json (per image), table.md, networks_at_once.png, and for each kind of target a picture of
          what the networks say of the first image. The same command resumes.

Without --source it takes the photographs that scikit-image carries.
"""

import functools
from typing import Any

import jax
import numpy as np
from absl import flags

import outgen_jax as og
from experiments.any_output import measures
from experiments.common import distances
from experiments.common import flags as common_flags
from experiments.common import jobs as common_jobs
from experiments.common.cells import percentiles
from outgen_jax import report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn
from outgen_jax.targets import draws

_SOURCE = common_flags.photographs()
_DATA_DIR = common_flags.data_dir()
_NETWORKS = flags.DEFINE_list("networks", list(pretrained.IMAGENET), "Names or .npz, steered.")
_ASKED = flags.DEFINE_list("asked", [], "Names or .npz of networks that take no part.")
_SIDE = flags.DEFINE_integer("side", 240, "Pixels of the image; networks see it resized.", 28)
_CLASSES = flags.DEFINE_integer("classes", 5, "That have a prescribed probability.", 1)
_NAMED = flags.DEFINE_float("named", 0.9, "Probability of these together.", 0, 1)
_NUMBER = common_flags.number(50, of="source", at_least=1)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-3, "Total variation in every network.", 1e-9)
_REACHED = flags.DEFINE_float(
    "reached",
    0.01,
    "Total variation up to which the picture says that a saved image is reached.",
    0,
)
_BATCH = common_flags.images_at_a_time()
_SEED = common_flags.seed("the classes")
_OUT = common_flags.out("networks_at_once")
_OVERWRITE = common_flags.overwrite()

TASKS = ("the same for all", "another for each")


def together(models: dict[str, pretrained.Pretrained]) -> tuple[ApplyFn, dict[str, Any]]:
    """One `apply_fn` of several networks: a dict of their logits, the image resized to what each takes."""
    networks = {name: og.models.from_nnx(found.model) for name, found in models.items()}
    sides = {name: found.image_size for name, found in models.items()}

    def apply_fn(variables: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        batch, _, _, channels = images.shape
        return {
            name: apply(
                variables[name],
                jax.image.resize(images, (batch, sides[name], sides[name], channels), "linear"),
            )
            for name, (apply, _) in networks.items()
        }

    return apply_fn, {name: variables for name, (_, variables) in networks.items()}


def falling(count: int, num_classes: int, seed: int, ids: tuple[str, ...]) -> np.ma.MaskedArray:
    """Partial targets [N, K]: `count` random classes, each wanted with three quarters of the one before."""
    drawn = draws.distinct_classes(count, num_classes, [], seed=seed, ids=ids, caller="--classes")
    weights = 0.75 ** np.arange(count)
    rows = np.ma.array(np.zeros((len(ids), num_classes), np.float32), mask=True)
    for classes, weight in zip(drawn, weights / weights.sum(), strict=True):
        rows[np.arange(len(ids)), classes] = _NAMED.value * weight
    return rows


def wanted(task: str, names: list[str], num_classes: int, ids: tuple[str, ...]) -> dict[str, Any]:
    """Targets of every network."""
    seeds = {
        name: _SEED.value + (index if task == "another for each" else 0)
        for index, name in enumerate(names)
    }
    return {name: falling(_CLASSES.value, num_classes, seed, ids) for name, seed in seeds.items()}


def largest(said: dict[str, np.ndarray], targets: dict[str, Any]) -> np.ndarray:
    """The largest total variation of all networks: [N]."""
    return np.max([distances.variation(said[name], targets[name]) for name in targets], axis=0)


def measured(case: measures.Case, asked: tuple[ApplyFn, Any] | None) -> dict[str, np.ndarray]:
    """The numbers of a task, and for each network that took no part its distance to the first network's target."""
    found, images = measures.synthesized_images(case, case, tolerance=_TOLERANCE.value)
    if asked is None:
        return found
    target = next(iter(case.targets.values()))
    first = target.filled(0).argmax(1)
    for when, shown in (("before", case.images), ("after", images)):
        said = og.predict(*asked, shown, batch_size=case.batch_size)
        for name, probs in said.items():
            found[f"asked {name}: TV {when}"] = distances.variation(probs, target)
            found[f"asked {name}: top-1 {when}"] = (probs.argmax(1) == first).astype(np.float32)
    return found


def answers(
    case: measures.Case, saved: np.ndarray, steps: int, class_names: tuple[str, ...]
) -> Any:
    """A figure of the first image, saved as `saved` [1, H, W, C] uint8: a row for what each network says of it."""
    before, reached = (
        og.predict(case.apply_fn, case.variables, x) for x in (case.images[:1], saved)
    )
    wanted = {k: og.targets.completed(rows[:1], reached[k]) for k, rows in case.targets.items()}
    left = np.array(
        [distances.variation(reached[name], rows[:1])[0] for name, rows in case.targets.items()]
    )
    rows = (np.concatenate([said[name] for name in wanted]) for said in (wanted, before, reached))
    run = report.SynthesisRun(
        source=np.repeat(case.images[:1], len(wanted), 0),
        generated=np.repeat(saved, len(wanted), 0),
        parts=(report.Part(class_names, *rows),),
        ids=tuple(wanted),
        steps=np.full(len(wanted), steps),
        distance=left,
        converged=left <= _REACHED.value,
    )
    return report.synthesis_figure(run, rows=range(len(wanted)))


def transfer_table(tasks: dict[str, Any]) -> str:
    """Markdown table of what networks that took no part say."""
    rows = []
    for task, methods in tasks.items():
        found = methods[measures.OURS]
        names = [
            key.removeprefix("asked ").removesuffix(": TV after")
            for key in found
            if key.endswith("TV after")
        ]
        for name in names:
            distances = (
                percentiles(found[f"asked {name}: TV {when}"], 50)[0]
                for when in ("before", "after")
            )
            hits = (
                f"{np.mean(found[f'asked {name}: top-1 {when}']):.0%}"
                for when in ("before", "after")
            )
            rows.append([task, name, *distances, *hits])
    headings = (
        "target",
        "asked",
        "TV, source",
        "TV, image",
        "top-1 wanted, source",
        "top-1 wanted, image",
    )
    return report.markdown_table(headings, rows)


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`: exactness, its price, and what networks that took no part say."""
    within = results["flags"]["tolerance"]
    parts = measures.tables(results["tasks"], name="worst TV", within=within)
    if results["flags"]["asked"]:
        parts.append(transfer_table(results["tasks"]))
    return "\n".join(parts)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    common_jobs.check_names(_NETWORKS.value, flag="networks")
    models = {name: pretrained.load(name) for name in _NETWORKS.value}
    class_names = next(iter(models.values())).class_names
    source = sources.load(
        _SOURCE.value,
        data_dir=_DATA_DIR.value,
        size=(_SIDE.value, _SIDE.value),
        limit=_NUMBER.value,
    )
    network = together(models)
    others = {name: pretrained.load(name) for name in _ASKED.value}
    asked = together(others) if others else None
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    study = measures.Study(run, table, "tasks")
    for task in TASKS:
        targets = wanted(task, list(models), len(class_names), source.ids)
        case = measures.Case(
            *(*network, og.outputs.softmax(), source.images, targets, largest, _BATCH.value)
        )
        study.keep("tasks", task, measures.OURS, functools.partial(measured, case, asked))
        steps = int(study.results["tasks"][task][measures.OURS]["steps"][0])
        figure = answers(case, study.images[task][:1], steps, class_names)
        name = f"{task.replace(' ', '_')}.png"
        report.save_figure(figure, run.directory / name, dpi=120)
    study.finish(source.images, "networks_at_once.png")


if __name__ == "__main__":
    scripts.start(main)
