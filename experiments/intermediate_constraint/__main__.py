"""Table D1: fine-tuning on noise and blur under the intermediate constraint, against MSE and plain fine-tuning.

Purpose   Paper D: are distorted images recognised better if deep neurons are held on or off, as they were on the clean
          image? Three arms, λ chosen on validation images, several seeds, paired tests. Beyond the paper: other α and
          layers, AugMix-style consistency at equal cost, and output-targeted images in place of distortions.
Command   python -m experiments.intermediate_constraint --data_dir=...                          (preset cifar10)
          python -m experiments.intermediate_constraint --preset=cpu --data_dir=...     (λ and variants on validation)
          python -m experiments.intermediate_constraint --preset=paper --dataset=IMAGENET --network=vgg16-397923af.pth
          python -m experiments.intermediate_constraint --preset=smoke                              (seconds, digits)
Expected  paper: clean 67.69 %, noise 57.69 %, blur 51.29 % (proposed); 67.44, 56.60, 50.73 % (plain)
Output    --out gets results.json (every seed), table.md, levels.png, correct.npz (which test images each
          job gets right: conditions by images, packed bits); cache/ holds each job's result.

Presets cifar10 and cpu: CIFAR-10 and a VGG16 of half or a quarter of the width with three fully connected layers,
trained here first; blur levels are the paper's times presets.BLUR_FACTOR (cifar10) or 32/224 (cpu). The same command
resumes, at a job's last checkpoint and to the same bits.
IMAGENET is a directory with train/ and val/, one folder a class, or the tfds name imagenet2012. Of an .npz or of class
folders without train/ and val/, a random fifth is the test set.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from absl import flags
from flax import nnx

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.intermediate_constraint import checks
from experiments.intermediate_constraint.comparisons import chosen_weights, comparisons
from experiments.intermediate_constraint.data import (
    Split,
    begin_with_convolutions,
    load_network,
    load_splits,
)
from experiments.intermediate_constraint.figures import levels_figure
from experiments.intermediate_constraint.presets import PRESETS, Preset, grid
from experiments.intermediate_constraint.study import (
    AUGMIX,
    MAIN,
    PLAIN,
    Job,
    Settings,
    Study,
    before,
    conditions,
    distortion,
    recipe_of,
    run_job,
    variants,
)
from experiments.intermediate_constraint.tables import records_of, table
from outgen_jax import files, report, runs, scripts
from outgen_jax.data import distort
from outgen_jax.training import finetuning_fit
from outgen_jax.training.checkpoints import Checkpoints

_PRESET = flags.DEFINE_enum("preset", "cifar10", tuple(PRESETS), "What is run.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "tfds name, .npz, class folders, or directory with train/ and val/ of such."
)
_DATA_DIR = common_flags.data_dir()
_NETWORK = flags.DEFINE_string(
    "network", None, "Name, .npz with card, or torchvision's .pth; else trained here."
)
_SHA256 = flags.DEFINE_string("sha256", None, "Of the .pth, where it is not torchvision's own.")
_LAYERS = flags.DEFINE_list("layers", ["fc1", "fc2"], "Layers to constrain.")
_WEIGHTS = flags.DEFINE_list("weights", None, "Values of λ to try.")
_KINDS = flags.DEFINE_list("kinds", None, "Distortions to train on: both, noise, blur.")
_VARIANTS = flags.DEFINE_list("variants", None, "Arms beyond the paper's three; '' for none.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Seeds of the final runs.", 1)
_EPOCHS = flags.DEFINE_float("epochs", None, "Of fine-tuning.", 0)
_BATCH = common_flags.images_an_update(None)
_LR = flags.DEFINE_float("learning_rate", None, "Of fine-tuning.", 0)
_TRAIN = flags.DEFINE_integer("train_images", None, "Images to fine-tune on.", 1)
_TEST = flags.DEFINE_integer("test_images", None, "Images to test on.", 1)
_TARGETED = flags.DEFINE_integer(
    "targeted_images", None, "Output-targeted training images; 0: none.", 0
)
_WIDTH = flags.DEFINE_float("width", None, "Width of the VGG16 trained here.", 1 / 64)
_BASE_EPOCHS = flags.DEFINE_float("base_epochs", None, "Of training that network first.", 0)
_OUT = common_flags.out("intermediate_constraint")
_OVERWRITE = common_flags.overwrite()


def settings_of(preset: Preset, train_images: int) -> Settings:
    """What the flags and the preset fix, for so many training images."""
    batch = _BATCH.value or preset.recipe.batch_size
    epochs = preset.epochs if _EPOCHS.value is None else _EPOCHS.value
    weights = weights_of_flags(preset)
    if unknown := set(_KINDS.value or ()) - {"both", *distort.KINDS}:
        raise ValueError(f"--kinds: unknown {sorted(unknown)}; use both, noise, blur")
    beyond = [v for v in _VARIANTS.value if v] if _VARIANTS.value is not None else preset.variants
    targeted = preset.targeted_images if _TARGETED.value is None else _TARGETED.value
    return Settings(
        levels=preset.levels,
        compared=preset.compared,
        recipe=dataclasses.replace(
            preset.recipe,
            updates=max(1, int(epochs * (train_images // batch))),
            batch_size=batch,
            learning_rate=preset.recipe.learning_rate if _LR.value is None else _LR.value,
        ),
        layers=tuple(_LAYERS.value),
        variants=variants(tuple(_LAYERS.value), tuple(beyond)),
        weights=weights,
        kinds=tuple(_KINDS.value or preset.kinds),
        seeds=_SEEDS.value or preset.seeds,
        targeted_images=targeted,
        hardness_images=64,
        batch_size=preset.evaluation_batch,
    )


def weights_of_flags(preset: Preset) -> tuple[float, ...]:
    """The values of λ to try."""
    given = _WEIGHTS.value or preset.weights
    try:
        weights = tuple(map(float, given))
    except ValueError:
        raise ValueError(
            f"--weights={','.join(given)}: λ must be numbers, such as 0.1,0.05"
        ) from None
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ValueError(f"--weights: λ must be finite and not negative, got {weight:g}")
    return weights


def prepare(preset: Preset, directory: Callable[[], Path]) -> Study:
    """The data, cut into training, validation and test images, and the network to start from.

    `directory` opens the run. It is called late, so that flags that do not fit leave an earlier run as it is.
    """
    # Refuses flags before data are read.
    checks.check_choice(settings_of(preset, train_images=preset.recipe.batch_size), preset)
    path = _NETWORK.value or preset.network
    network = load_network(path, _SHA256.value) if path else None
    size = preset.size if network is None else network.image_size
    dataset = _DATASET.value or preset.dataset
    names = None if network is None else network.class_names
    train, test, classes = load_splits(dataset, _DATA_DIR.value, names, size, directory)
    held_out = min(preset.validation_images, len(train.labels) // 2)
    cut = len(train.labels) - held_out
    whole, validation = train.part(0, cut), train.part(cut, len(train.labels))
    train = whole.part(0, min(cut, _TRAIN.value or preset.train_images))
    test = test.part(0, min(len(test.labels), _TEST.value or preset.test_images))
    settings = settings_of(preset, len(train.labels))
    checks.check_numbers(settings, len(train.labels))
    if network is None:
        model = base_network(whole, classes, size, preset, settings, directory)
    else:
        model = network.model
        checks.check_network(model, train, settings)
    return Study(model, train, validation, test, settings, directory())


def base_network(
    split: Split,
    classes: tuple[str, ...],
    size: int,
    preset: Preset,
    settings: Settings,
    directory: Callable[[], Path],
) -> nnx.Module:
    """A small network with fully connected layers, trained on clean images; kept in `directory`."""
    width = _WIDTH.value or preset.width
    epochs = preset.base_epochs if _BASE_EPOCHS.value is None else _BASE_EPOCHS.value
    if size == 28:
        model: nnx.Module = og.models.LeNet(len(classes), (6, 16), rngs=nnx.Rngs(0))
    else:
        model = og.models.VGG16(
            len(classes), width, hidden=int(1024 * width), image_size=size, rngs=nnx.Rngs(0)
        )
        if preset.convolutions is not None and width == preset.width:
            begin_with_convolutions(model, preset.convolutions)
    checks.check_network(model, split, settings)  # before the time is spent
    batch_size = min(128, len(split.labels))
    recipe = dataclasses.replace(
        settings.recipe,
        updates=max(1, int(epochs * (len(split.labels) // batch_size))),
        batch_size=batch_size,
        learning_rate=preset.base_rate,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
    )
    with tqdm.tqdm(total=recipe.updates, desc="training the network", mininterval=1) as bar:
        trained = finetuning_fit.finetune(
            model,
            split.images,
            split.labels,
            recipe,
            distort=distortion("clean", settings.levels),
            key=jax.random.key(0),
            checkpoints=Checkpoints(directory() / "network", keep=1),
            on_updates=bar.update,
        )
    return trained.model


def grid_jobs(settings: Settings) -> list[Job]:
    """One seed of every variant and λ; none where there is nothing to choose."""
    jobs = [
        Job("grid", name, weight, "both", 0)
        for name in settings.variants
        for weight in grid(name, settings.weights)
    ]
    return jobs if len(jobs) > len(settings.variants) else []


def final_jobs(settings: Settings, weights: dict[str, float], best: str | None) -> list[Job]:
    """All seeds of the paper's arms, the best constraint and AugMix; the first seed of every arm comes first.

    Where nothing was tried on validation images, there is no best one, and all arms take part.
    """
    chosen = [v for v in (best, AUGMIX) if v in settings.variants]
    on_both = dict.fromkeys([*MAIN, *(settings.variants if best is None else chosen)])
    kinds = [*settings.kinds, *(["targeted"] if settings.targeted_images else [])]
    return [
        Job("final", name, weights[name], kind, seed)
        for seed in range(1, settings.seeds + 1)
        for kind in kinds
        for name in (on_both if kind == "both" else MAIN)
    ]


def record(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """What results.json says of a job."""
    about = job._asdict() | {
        "accuracy": [round(float(x), 6) for x in result["correct"].mean(-1)],
        "agreement": [round(float(x), 6) for x in result["agreement"].mean(-1)],
        "seconds": [round(float(x), 2) for x in result.get("seconds", ())],
    }
    for name in result:
        if name.startswith(("history_", "target_")):
            about[name] = [float(f"{x:.5g}") for x in result[name]]
    return about


def results_of(study: Study, found: dict[Job, Any], weights: dict[str, float]) -> dict[str, Any]:
    """What results.json says of what is there so far."""
    first, tried = before(study), conditions(study.settings, compare=True)
    return {
        "conditions": [(c.group, c.noise, c.blur) for c in tried],
        "images": {
            name: len(getattr(study, name).labels) for name in ("train", "validation", "test")
        },
        "chosen_weights": weights,
        "before": record(Job("before", "before fine-tuning", 0, "-", 0), first),
        "jobs": [record(job, result) for job, result in found.items()],
        "comparisons": [c._asdict() for c in comparisons(found, tried)],
    }


def write(run: runs.Run, study: Study, found: dict[Job, Any], weights: dict[str, float]) -> str:
    """results.json, table.md, and which images each job gets right, of what is there so far."""
    text = common_tables.write(run, results_of(study, found, weights), table)
    bits = {job.name: np.packbits(result["correct"], axis=-1) for job, result in found.items()}
    files.save_arrays(run.directory / "correct.npz", bits)
    return text


def run_all(jobs: list[Job], study: Study, found: dict[Job, Any], after: Any) -> None:
    """Runs `jobs` in order, and `after()` after each.

    Linux allows a process 65,530 mappings, of which one arm's programs take some 3,000 on CPU. So the grid, which is
    done with one arm before it comes to the next, drops them in between.
    """
    total = sum(recipe_of(job, study.settings).updates for job in jobs)
    last = None
    with tqdm.tqdm(total=total, unit="update", mininterval=1) as bar:
        for number, job in enumerate(jobs, 1):
            if job.stage == "grid" and job.variant != last:
                jax.clear_caches()
            last = job.variant
            bar.set_description(
                f"{number}/{len(jobs)} {job.stage} {job.variant} {job.weight:g} {job.kind}"
            )
            found[job] = run_job(job, study, bar.update)
            after()


def main(argv: list[str]) -> None:
    """Runs the study with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    opened = functools.cache(lambda: runs.open_run(_OUT.value, overwrite=_OVERWRITE.value))
    study = prepare(PRESETS[_PRESET.value], lambda: opened().directory)
    out, settings = opened(), study.settings
    found: dict[Job, Any] = {}
    run_all(grid_jobs(settings), study, found, lambda: None)
    scores = chosen_weights(found, conditions(settings, compare=False))
    weights = {n: grid(n, settings.weights)[0] for n in settings.variants}
    weights |= {name: weight for name, (weight, _) in scores.items()}
    jax.clear_caches()
    held = [n for n, penalty in settings.variants.items() if penalty.kind == "constraint"]
    best = max(held, key=lambda name: scores[name][1]) if scores else None
    run_all(
        final_jobs(settings, weights, best),
        study,
        found,
        functools.partial(write, out, study, found, weights),
    )
    print(write(out, study, found, weights))
    results = results_of(study, found, weights)
    if records_of(results, PLAIN, "both"):
        report.save_figure(levels_figure(results), out.directory / "levels.png")


if __name__ == "__main__":
    scripts.start(main)
