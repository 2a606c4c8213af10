r"""Trains classifiers on sets of which a part was replaced by generated images, and on controls.

Purpose   Paper A, Section 3 (Table A1): does training gain from images whose whole output was prescribed? Beyond the
          paper: from images generated during training? More than from label smoothing, mixup, CutMix, distillation, or
          more epochs?
Command   python -m experiments.replaced_training --preset=cpu --data_dir=... --out=runs/replaced_training
          python -m experiments.replaced_training --preset=table_a1 --width=0.5 --data_dir=... --out=...
          python -m experiments.replaced_training --preset=paper --only=sgd:0.3/2 --data_dir=... --out=...
          The same command resumes, also after a kill; --only runs some of the jobs of the same run.
Arms      method[:fraction][@multiple of the epochs]. Before training: sgd (100 updates), exact (Gauss-Newton). In the
          step: during (by the frozen classifier), own (by the network itself, towards --own_targets). Controls: pgd
          and fgsm (adversarial training), noise, all within --radius; plain, smoothing, mixup, cutmix, distillation.
          Distillation with images at the frozen classifier's boundaries: heo (Heo et al. 2019), boundary.
Expected  Paper: 92.476 % without, 92.560 % with 30 % replaced (mean of 5). Measured: README.md in this folder.
Output    --out gets results.json (every seed's numbers), table.md, figure.png, generated/ (the sets, as tfds reads
          them) and jobs/ (each job's result, and its checkpoints while it trains).
"""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import jobs as common_jobs
from experiments.common import tables as common_tables
from experiments.replaced_training import data, jobs, measures, report, sets
from experiments.replaced_training.arms import SETS, Arm, Steering, parse
from experiments.replaced_training.jobs import Study
from experiments.replaced_training.presets import PRESETS
from outgen_jax import runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.training import classifier_recipe, replaced

_TRIALS = 2  # steps tried with each Jacobian in the step

_PRESET = flags.DEFINE_enum(
    "preset", "cpu", PRESETS, "What flags that are not given stand for: presets.py of this folder."
)
_DATASET = flags.DEFINE_string("dataset", None, "tfds name, .npz file, class folders, or 'digits'.")
_TEST = flags.DEFINE_string(
    "test_dataset",
    None,
    "Test images; by default --dataset's own, or some of it where it has no splits.",
)
_TEST_SPLIT = flags.DEFINE_string(
    "test_split", None, "Of the data set, or of --test_dataset; such as train[40000:]."
)
_DATA_DIR = common_flags.data_dir()
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", None, "From the start of the set; 0: all.", 0)
_TEST_IMAGES = flags.DEFINE_integer("test_images", None, "From the start of the test set.", 1)
_DISTORTED = flags.DEFINE_integer(
    "distorted_images", None, "Of the test images, at every level of noise and of blur; 0: none.", 0
)
_ATTACKED = flags.DEFINE_integer("attacked_images", None, "Of the test images; 0: none.", 0)
_SIDE = flags.DEFINE_integer("size", None, "Side that images are brought to.", 8)
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Frozen classifier: shipped name, .npz, or 'train': one like plain."
)
_ARMS = flags.DEFINE_list("arms", None, "What is compared: method[:fraction][@multiple],...")
_SEEDS = flags.DEFINE_integer("seeds", None, "Seeds 0, 1, ... of each arm.", 1)
_ONLY = flags.DEFINE_list("only", [], "Jobs to run now, as arm/seed,...; by default all.")
_EPOCHS = common_flags.epochs(None)
_BATCH = common_flags.images_an_update(None)
_NETWORK = flags.DEFINE_enum("network", None, jobs.NETWORKS, "Network in training.")
_WIDTH = flags.DEFINE_float("width", None, "Width multiplier of the network in training.", 1 / 64)
_OPTIMIZER = flags.DEFINE_enum("optimizer", None, classifier_recipe.OPTIMIZERS, "Optimiser.")
_LR = flags.DEFINE_float("learning_rate", None, "Peak learning rate; 0.08 suits Muon.", 0)
_MOMENTUM = flags.DEFINE_float("momentum", None, "Momentum of the optimiser.", 0, 1)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", None, classifier_recipe.SCHEDULES, "Learning rate schedule."
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ("bfloat16", "highest"),
    "Of products in training, as jax.default_matmul_precision.",
)
_CROP = flags.DEFINE_integer(
    "crop_padding", None, "Pixels of zeros around an image before it is cropped at random.", 0
)
_TARGETS = flags.DEFINE_string(
    "targets",
    "true=0.9,random=0.1",
    "Wanted outputs, as og.targets reads them; 'confused' is a class that the classifier confuses with the label.",
)
_OWN_TARGETS = flags.DEFINE_string(
    "own_targets",
    "true=0.4,random=0.6",
    "Of the arms 'own', beyond the boundary: a network has nothing to learn where it already says what it shall say.",
)
_BOUNDARY_TARGETS = flags.DEFINE_string(
    "boundary_targets", "true=0.5,random=0.5", "Of the arms 'boundary'."
)
_RADIUS = flags.DEFINE_float(
    "radius",
    measures.ATTACK_RADIUS,
    "L2 radius of the arms pgd, fgsm and noise; by default that of the attack.",
    1e-6,
)
_UPDATES = flags.DEFINE_integer("updates", 1, "Gauss-Newton updates in the step.", 1)
_OUT = common_flags.out("replaced_training")
_OVERWRITE = common_flags.overwrite()


def wanted_jobs(arms: tuple[Arm, ...], only: list[str]) -> list[tuple[Arm, int]]:
    """Arms and seeds to run now.

    Raises:
      ValueError: two arms have one name, or --only names a job that this run does not have.
    """
    common_jobs.check_names([arm.name for arm in arms], flag="arms")
    every = {f"{arm.name}/{seed}": (arm, seed) for arm in arms for seed in range(_SEEDS.value)}
    return [every[name] for name in common_jobs.selected(list(every), only)]


def target_texts() -> tuple[str, str, str]:
    """All descriptions of targets."""
    return _TARGETS.value, _OWN_TARGETS.value, _BOUNDARY_TARGETS.value


def load_data() -> tuple[sources.ImageSource, sources.ImageSource]:
    """Training and test images, checked against the other flags before anything is written."""
    train, test = data.load(
        _DATASET.value,
        test_dataset=_TEST.value,
        test_split=_TEST_SPLIT.value,
        data_dir=_DATA_DIR.value,
        side=_SIDE.value,
        train_images=_TRAIN_IMAGES.value,
        test_images=_TEST_IMAGES.value,
    )
    assert train.class_names is not None
    if _BATCH.value > len(train.ids):
        raise ValueError(f"--batch_size={_BATCH.value} exceeds the {len(train.ids)} images")
    trains_it = _CLASSIFIER.value == "train"
    if not trains_it and pretrained.load(_CLASSIFIER.value).class_names != train.class_names:
        raise ValueError(
            f"--classifier={_CLASSIFIER.value} knows other classes than --dataset={_DATASET.value}; "
            "name one that was trained on it, or 'train'"
        )
    for text in target_texts():
        sets.check_text(text, train.class_names)
    return train, test


def prepare(out: Path, train: sources.ImageSource, test: sources.ImageSource) -> Study:
    """The frozen classifier, and everything else that the jobs share."""
    settings = jobs.Settings(
        network=_NETWORK.value,
        width=_WIDTH.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH.value,
        optimizer=_OPTIMIZER.value,
        learning_rate=_LR.value,
        momentum=_MOMENTUM.value,
        schedule=_SCHEDULE.value,
        precision=_PRECISION.value,
        crop_padding=_CROP.value,
        radius=_RADIUS.value,
    )
    if _CLASSIFIER.value == "train":
        known = jobs.train_frozen(out / "classifier", settings, train)
    else:
        known = pretrained.load(_CLASSIFIER.value)
    apply_fn, variables = og.models.from_nnx(known.model)
    asks = any(sets.CONFUSED in text for text in target_texts())
    confusion = sets.confusion(apply_fn, variables, train) if asks else None
    frozen = sets.Frozen(apply_fn, variables, known.class_names, confusion)
    steering = {
        "during": steer(_TARGETS.value, frozen),
        "own": steer(_OWN_TARGETS.value, frozen),
        "boundary": steer(_BOUNDARY_TARGETS.value, frozen),
    }
    exam = measures.prepare(
        test, apply_fn, variables, distorted=_DISTORTED.value, attacked=_ATTACKED.value
    )
    graphdef, own = jobs.network(train, settings)
    return Study(out, settings, train, frozen, exam, graphdef, own, steering)


def steer(text: str, frozen: sets.Frozen) -> Steering:
    """Generation in the step, towards the targets that `text` describes."""
    bank = sets.bank(text, frozen, seed=0)
    solver = og.gauss_newton(steps=_UPDATES.value, trials=_TRIALS, stride=None)
    return Steering(solver, sets.steered_classes(bank), jnp.asarray(bank))


def make_set(study: Study, method: str, arms: tuple[Arm, ...]) -> replaced.GeneratedSet:
    """The generated set of a method, as large as its largest arm needs; smaller arms take its first images."""
    fraction = max(arm.fraction for arm in arms if arm.method == method)
    print(f"generating {fraction:.0%} of the training images: {method}", flush=True)
    directory = _set_directory(study.directory, method)
    sets.make(
        method,
        _TARGETS.value,
        study.frozen,
        study.train,
        fraction=fraction,
        directory=directory,
        seed=0,
    )
    return replaced.load(directory)


def _set_directory(out: Path, method: str) -> Path:
    return out / "generated" / method


def write_report(run: runs.Run, arms: tuple[Arm, ...]) -> None:
    """Writes table, figure and results.json of all finished jobs."""
    costs = {
        method: sets.seconds_an_image(_set_directory(run.directory, method)) for method in SETS
    }
    paths = [
        jobs.result_path(run.directory, arm, seed) for arm in arms for seed in range(_SEEDS.value)
    ]
    finished = common_jobs.finished(paths)
    summary = report.summarise(finished, costs)
    directories = {method: _set_directory(run.directory, method) for method in SETS}
    used = {job["method"] for job in finished}
    results = {
        "seconds_per_generated_image": costs,
        "generated": {
            method: sets.distances(directory)
            for method, directory in directories.items()
            if method in used and directory.exists()
        },
        "arms": summary,
        "jobs": finished,
    }
    text = common_tables.write(run, results, report.table)
    report.save(run.directory / "figure.png", summary, finished)
    print(text)
    print(f"{run.directory}/results.json: {len(finished)} of {len(paths)} jobs")


def main(argv: list[str]) -> None:
    """Runs the study with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    scripts.apply_preset(PRESETS[_PRESET.value])
    arms = tuple(parse(name) for name in _ARMS.value)
    wanted = wanted_jobs(arms, _ONLY.value)
    train, test = load_data()
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    out = run.directory
    missing = [job for job in wanted if not jobs.result_path(out, *job).exists()]
    if missing:
        study = prepare(out, train, test)
        generated: dict[str, replaced.GeneratedSet] = {}
        for arm in arms:
            seeds = [seed for other, seed in missing if other == arm]
            # Only now, so that the arms before have finished when a long generation begins.
            if seeds and arm.method in SETS and arm.method not in generated:
                generated[arm.method] = make_set(study, arm.method, arms)
            if seeds:
                run_arm(study, arm, seeds, generated)
    write_report(run, arms)


def run_arm(
    study: Study, arm: Arm, seeds: list[int], generated: Mapping[str, replaced.GeneratedSet]
) -> None:
    """The jobs of an arm, which share program and training set."""
    lesson = jobs.lesson_of(study, arm, generated)
    program = jobs.program_of(study, arm)
    for seed in seeds:
        result = jobs.run_job(study, arm, seed, program, lesson)
        measured = {k: v for k, v in result["measures"].items() if k in report.MEASURES}
        shown = "  ".join(f"{key} {value:.4g}" for key, value in measured.items())
        print(f"{arm.name}/{seed}: {result['seconds']:.0f} s  {shown}", flush=True)


if __name__ == "__main__":
    scripts.start(main)
