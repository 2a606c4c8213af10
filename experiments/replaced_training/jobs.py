"""The jobs: each trains and measures one network, for one arm and one seed."""

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import outgen_jax as og
from experiments.replaced_training import arms, measures, sets
from experiments.replaced_training.arms import Arm
from outgen_jax import devices, files, versions
from outgen_jax.data import sources
from outgen_jax.json_text import to_json
from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn
from outgen_jax.training import classifier, classifier_fit, classifier_recipe, replaced, updates
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.objectives import Objective, Supervision

# The decay of "normalized_muon" is its own.
_WEIGHT_DECAY = {"sgd": 5e-4, "muon": 0.05, "normalized_muon": 0.0}
NETWORKS = {"vgg16": og.models.VGG16, "whitened_cnn": og.models.WhitenedCNN}
_WHITENED_ON = 5000  # original training images; the first ones
_FROZEN_SEED = 1_000_000  # of a frozen classifier that is trained here: no arm's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How every network is trained; see `classifier_recipe.ClassifierRecipe`."""

    network: str  # of `NETWORKS`
    width: float
    epochs: int  # of an arm without a multiple
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    schedule: str
    precision: str | None  # of products, as `updates.with_precision` takes it
    crop_padding: int
    radius: float  # of the L2 ball in which the arms of `arms.CHANGES` change images


class Study(NamedTuple):
    """What all jobs share."""

    directory: Path
    settings: Settings
    train: sources.ImageSource
    frozen: sets.Frozen
    exam: measures.Exam
    graphdef: nnx.GraphDef  # of the network in training
    own: ApplyFn  # the network in training, in inference mode
    steering: Mapping[str, arms.Steering]  # by method that generates in the step


Network = og.models.VGG16 | og.models.WhitenedCNN


class Program(NamedTuple):
    """A training step, compiled once for all seeds."""

    update: updates.Update
    optimizer: optax.GradientTransformation
    epochs: int


class Lesson(NamedTuple):
    """The training set of an arm, on the device."""

    images: jax.Array
    given: Supervision
    replaced: int  # images generated before training


def build_model(train: sources.ImageSource, settings: Settings, seed: int) -> Network:
    """The network with the seed's weights; it computes in bfloat16 off the CPU.

    A first layer that is whitened is computed from the original images, and so is the same in all arms.
    """
    assert train.class_names is not None
    dtype = jnp.float32 if devices.platform_of() == "cpu" else jnp.bfloat16
    options: dict[str, Any] = {"dtype": dtype, "rngs": nnx.Rngs(seed)}
    classes = len(train.class_names)
    if settings.network == "vgg16":
        return og.models.VGG16(classes, settings.width, image_size=train.images.shape[1], **options)
    model = og.models.WhitenedCNN(classes, settings.width, **options)
    model.whiten(train.images[:_WHITENED_ON])
    return model


@functools.cache
def compile_program(
    graphdef: nnx.GraphDef,
    settings: Settings,
    num_images: int,
    *,
    objective: Objective | None,
    multiple: float,
) -> Program:
    """The training step for a set of so many images and a multiple of the epochs; cached.

    Without an objective it is plain training.
    """
    recipe = classifier_recipe.ClassifierRecipe(
        epochs=max(1, round(settings.epochs * multiple)),
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
        schedule=settings.schedule,
        weight_decay=_WEIGHT_DECAY[settings.optimizer],
    )
    optimizer = classifier_recipe.make_optimizer(recipe, num_images // recipe.batch_size)
    update = classifier.make_update(
        graphdef, optimizer, objective=objective, crop_padding=settings.crop_padding
    )
    compiled = updates.compile_updates(updates.with_precision(update, settings.precision))
    return Program(compiled, optimizer, recipe.epochs)


def program_of(study: Study, arm: Arm) -> Program:
    """The training step of an arm."""
    objective = arms.objective(
        arm,
        frozen=study.frozen.apply_fn,
        own=study.own,
        as_trained=classifier.make_apply(study.graphdef, batch_statistics=True),
        steering=study.steering,
        radius=study.settings.radius,
    )
    return compile_program(
        study.graphdef,
        study.settings,
        len(study.train.ids),
        objective=objective,
        multiple=arm.multiple,
    )


def lesson_of(study: Study, arm: Arm, generated: Mapping[str, replaced.GeneratedSet]) -> Lesson:
    """What an arm trains on; `generated` by method."""
    train = study.train
    labels = jnp.asarray(train.labels)
    if arm.method not in arms.SETS:
        asks = arm.method in ("during", "distillation", *arms.BOUNDARY)
        frozen = study.frozen.variables if asks else None
        return Lesson(jnp.asarray(train.images), Supervision(labels, frozen=frozen), 0)
    found = generated[arm.method]
    classifier_hash = sets.classifier_hash(study.frozen)
    rows = replaced.rows_of(found, train, classifier=classifier_hash)
    exchanged = replaced.replace(train, found, rows, arm.fraction)
    teacher, marks = jnp.asarray(exchanged.teacher_logits), jnp.asarray(exchanged.generated)
    given = Supervision(labels, teacher, marks)
    return Lesson(jnp.asarray(exchanged.images), given, int(exchanged.generated.sum()))


def result_path(directory: Path, arm: Arm, seed: int) -> Path:
    """The file of a finished job."""
    return _job_directory(directory, arm.name, seed) / "result.json"


def run_job(study: Study, arm: Arm, seed: int, program: Program, lesson: Lesson) -> dict[str, Any]:
    """Trains and measures one network, writes the result and deletes the checkpoints.

    Raises:
      FloatingPointError: the loss diverged.
    """
    model = build_model(study.train, study.settings, seed)
    job = _job_directory(study.directory, arm.name, seed)
    title = f"{arm.name}/{seed}"
    try:
        state, history = _fit(study.settings, model, program, lesson, seed, job, title)
    except FloatingPointError as error:
        raise FloatingPointError(f"{title}: {error}") from error
    without_optimizer = state._replace(opt_state=())
    result = {
        "arm": arm.name,
        "method": arm.method,
        "seed": seed,
        "epochs": program.epochs,
        "replaced_images": lesson.replaced,
        "seconds": sum(row.seconds for row in history),
        # The first epoch of a process compiles.
        "seconds_per_epoch": float(np.median([row.seconds for row in history])),
        "frozen_accuracy": measures.frozen_accuracy(study.exam),
        "measures": measures.measure(study.own, without_optimizer, study.exam),
        "history": [row._asdict() for row in history],
        **versions.code_version()._asdict(),
    }
    files.write_atomic(result_path(study.directory, arm, seed), to_json(result))
    shutil.rmtree(job / "checkpoints")
    return result


def train_frozen(
    directory: Path, settings: Settings, train: sources.ImageSource
) -> pretrained.Pretrained:
    """A frozen classifier like the networks of the arm `plain`, trained once; kept in `directory`."""
    weights = directory / "weights.npz"
    if not weights.exists():
        assert train.class_names is not None
        model = build_model(train, settings, _FROZEN_SEED)
        graphdef = nnx.graphdef(_in_training(model))
        program = compile_program(graphdef, settings, len(train.ids), objective=None, multiple=1.0)
        lesson = Lesson(jnp.asarray(train.images), Supervision(jnp.asarray(train.labels)), 0)
        state, _ = _fit(settings, model, program, lesson, _FROZEN_SEED, directory, "classifier")
        card = {
            "network": type(model).__name__,
            "width_multiplier": settings.width,
            **({"hidden": None} if settings.network == "vgg16" else {}),
            "image_size": train.images.shape[1],
            "class_names": list(train.class_names),
            "recipe": dataclasses.asdict(settings),
            "seed": _FROZEN_SEED,
        }
        nnx.update(model, state.params, state.variables)
        pretrained.save(weights, model, card)
        shutil.rmtree(directory / "checkpoints")
    return pretrained.load(weights)


def network(train: sources.ImageSource, settings: Settings) -> tuple[nnx.GraphDef, ApplyFn]:
    """Definition of the network in training, and the network in inference mode."""
    graphdef = nnx.graphdef(_in_training(build_model(train, settings, 0)))
    return graphdef, classifier.make_apply(graphdef)


def _in_training(model: Network) -> Network:
    model.train()
    return model


def _fit(
    settings: Settings,
    model: Network,
    program: Program,
    lesson: Lesson,
    seed: int,
    directory: Path,
    title: str,
) -> tuple[classifier.TrainState, list[classifier_fit.Epoch]]:
    key = jax.random.key(seed)
    return classifier_fit.fit(
        program.update,
        classifier.create(model, program.optimizer)[1],
        lesson.images,
        lesson.given._replace(key=key),
        key=key,
        epochs=program.epochs,
        batch_size=settings.batch_size,
        checkpoints=Checkpoints(directory / "checkpoints"),
        title=title,
    )


def _job_directory(directory: Path, arm: str, seed: int) -> Path:
    return directory / "jobs" / arm.replace(":", "-") / str(seed)
