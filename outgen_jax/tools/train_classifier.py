"""Trains a classifier on CIFAR-10 (or any labelled source) and exports its weights.

Purpose   The frozen classifier of paper A (there: VGG16, 92.27 % top-1), and the weights the package ships.
Command   python -m outgen_jax.tools.train_classifier --dataset=cifar10 --data_dir=... --width=0.5 --epochs=16
              --optimizer=muon --batch_size=512 --learning_rate=0.08 --weight_decay=0.05 --out=runs/vgg16_half
          python -m outgen_jax.tools.train_classifier --network=whitened_cnn --data_dir=... --epochs=8 --crop_padding=2
              --optimizer=normalized_muon --batch_size=2000 --learning_rate=0.24 --momentum=0.6 --schedule=linear
              --label_smoothing=0.2 --precision=bfloat16 --out=runs/whitened_cnn
          --robust_radius=0.5 trains on adversarial examples (Madry et al. 2018)
Expected  91.2 % of the CIFAR-10 test images with the first command
Hardware  see `results.json` of the run (epochs, seconds, accuracy) and outgen_jax/models/weights/*.json
Output    --out gets results.json, weights.npz (bf16) with its model card, checkpoints/ and TensorBoard logs/.

A source without a test split, such as class folders, is split: --held_out of its images measure the accuracy, and are
not trained on. --size brings images of several sizes to one.

The same command resumes an interrupted run, at the last checkpoint (an epoch's end, half a minute or more after the
one before) and to the same bits (on CPU).
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from tensorboardX import SummaryWriter

import outgen_jax as og
from outgen_jax import devices, runs, scripts
from outgen_jax.data import sources, splits
from outgen_jax.data.splits import Splits
from outgen_jax.models import pretrained
from outgen_jax.tools import common_flags
from outgen_jax.training import classifier_fit, classifier_recipe, export
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier_fit import Epoch, Trained
from outgen_jax.training.classifier_recipe import ClassifierRecipe

_DATASET = flags.DEFINE_string(
    "dataset", "cifar10", "tfds name, .npz file, class folders, or 'digits'."
)
_DATA_DIR = common_flags.data_dir()
_EXCLUDE = flags.DEFINE_string(
    "exclude_ids", None, "File of test ids, one a line, left out of the accuracy."
)
_SIZE = flags.DEFINE_integer(
    "size", None, "Side that images are brought to; by default as stored.", 8
)
_HELD_OUT = flags.DEFINE_float(
    "held_out", splits.HELD_OUT, "Share to measure with, where --dataset has no test split.", 0, 1
)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", None, "Training images; by default all.", 1)
_NETWORK = flags.DEFINE_enum("network", "vgg16", ("vgg16", "whitened_cnn"), "Network.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of the network.", 1 / 64)
_HIDDEN = flags.DEFINE_integer(
    "hidden", None, "Units of VGG16's two hidden linear layers; none by default.", 1
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Passes over the training images.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images an update.", 1)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", classifier_recipe.OPTIMIZERS, "Optimiser.")
_LR = flags.DEFINE_float("learning_rate", 0.1, "Peak learning rate.", 0)
_MOMENTUM = flags.DEFINE_float("momentum", 0.9, "Momentum of the optimiser.", 0, 1)
_DECAY = flags.DEFINE_float("weight_decay", 5e-4, "Weight decay of the kernels.", 0)
_SMOOTHING = flags.DEFINE_float("label_smoothing", 0.0, "Mass spread over all classes.", 0, 1)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", "cosine", classifier_recipe.SCHEDULES, "Learning rate schedule."
)
_RADIUS, _ATTACK_STEPS = common_flags.robust()
_DTYPE = flags.DEFINE_enum(
    "dtype", "auto", ("auto", "float32", "bfloat16"), "auto: bfloat16 off the CPU."
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ("bfloat16", "highest"),
    "Of products, as jax.default_matmul_precision; on CPU bfloat16 is faster where the processor has it.",
)
_CROP = flags.DEFINE_integer(
    "crop_padding", 4, "Pixels of zeros around an image before it is cropped at random.", 0
)
_FLIP = flags.DEFINE_bool(
    "flip", True, "Mirror images at random; --noflip for digits, text and the like."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_OUT, _OVERWRITE = common_flags.out("train_classifier"), common_flags.overwrite()

_WHITENED_ON = 5000  # training images; the first ones


def load_splits() -> Splits:
    """The images of --dataset that are trained on, and those that the accuracy is of."""
    size = None if _SIZE.value is None else (_SIZE.value, _SIZE.value)
    found = splits.train_and_test(
        _DATASET.value,
        data_dir=_DATA_DIR.value,
        size=size,
        held_out=_HELD_OUT.value,
        limit=_TRAIN_IMAGES.value,
    )
    height, width = found.train.images.shape[1:3]
    multiple = 32 if _NETWORK.value == "vgg16" else 8
    if height != width or height % multiple:
        raise ValueError(
            f"--dataset={_DATASET.value}: images are {height}x{width} (height x width), and --network={_NETWORK.value} "
            f"takes squares of a side that is a multiple of {multiple}; pass --size=32 or another"
        )
    return found._replace(
        train=found.train.with_channels(3), test=without_excluded(found).with_channels(3)
    )


def without_excluded(found: Splits) -> sources.ImageSource:
    """The test images without those that --exclude_ids names."""
    if _EXCLUDE.value is None:
        return found.test
    lines = Path(_EXCLUDE.value).expanduser().read_text(encoding="utf-8").splitlines()
    excluded = {line.strip() for line in lines} - {""}
    # What is held out is unknown to whoever writes the list: it may name any image.
    known = {*found.test.ids, *(() if found.held_out is None else found.train.ids)}
    if unknown := excluded - known:
        raise ValueError(
            f"--exclude_ids: {len(unknown)} ids are not in the test split, e.g. {min(unknown)}"
        )
    return found.test.take([row for row, name in enumerate(found.test.ids) if name not in excluded])


def recipe_from_flags() -> ClassifierRecipe:
    """The recipe of the flags.

    Raises:
      ValueError: flags that would have no effect beside the others.
    """
    if _OPTIMIZER.value == "normalized_muon" and _DECAY.present:
        raise ValueError(
            f"--weight_decay={_DECAY.value}: the decay of --optimizer=normalized_muon is its own; leave the flag out"
        )
    if _NETWORK.value != "vgg16" and _HIDDEN.value is not None:
        raise ValueError(
            f"--hidden={_HIDDEN.value}: --network={_NETWORK.value} has no hidden linear layers; leave the flag out"
        )
    return ClassifierRecipe(
        epochs=_EPOCHS.value,
        batch_size=_BATCH.value,
        optimizer=_OPTIMIZER.value,
        learning_rate=_LR.value,
        momentum=_MOMENTUM.value,
        weight_decay=_DECAY.value,
        label_smoothing=_SMOOTHING.value,
        schedule=_SCHEDULE.value,
        crop_padding=_CROP.value,
        flip=_FLIP.value,
        robust_radius=_RADIUS.value,
        robust_steps=common_flags.steps_of_attack(_RADIUS, _ATTACK_STEPS),
    )


def build_model(num_classes: int, images: np.ndarray) -> og.models.VGG16 | og.models.WhitenedCNN:
    """An untrained network of the flags, for the training images [N, H, W, 3] uint8."""
    on_cpu = devices.platform_of() == "cpu"
    bfloat16 = _DTYPE.value == "bfloat16" or (_DTYPE.value == "auto" and not on_cpu)
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    rngs = nnx.Rngs(_SEED.value)
    if _NETWORK.value == "vgg16":
        return og.models.VGG16(
            num_classes,
            _WIDTH.value,
            hidden=_HIDDEN.value,
            image_size=images.shape[1],
            dtype=dtype,
            rngs=rngs,
        )
    model = og.models.WhitenedCNN(num_classes, _WIDTH.value, dtype=dtype, rngs=rngs)
    model.whiten(images[:_WHITENED_ON])
    return model


def train() -> None:
    """Trains, from the last checkpoint on, and writes the results."""
    recipe, found = recipe_from_flags(), load_splits()
    train_set = found.train
    assert train_set.class_names is not None
    assert train_set.labels is not None
    assert found.test.labels is not None
    model = build_model(len(train_set.class_names), train_set.images)
    # Flags that do not fit are refused before there is a directory.
    classifier_recipe.make_optimizer(recipe, len(train_set.ids) // recipe.batch_size)
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    checkpoints = Checkpoints(run.directory / "checkpoints")
    if checkpoints.latest is not None:
        print(f"resuming after epoch {checkpoints.latest}")
    with SummaryWriter(str(run.directory / "logs")) as log:
        trained = classifier_fit.train(
            model,
            train_set.images,
            train_set.labels,
            recipe,
            key=jax.random.key(_SEED.value),
            precision=_PRECISION.value,
            test=(found.test.images, found.test.labels),
            checkpoints=checkpoints,
            title="training",
            on_epoch=functools.partial(log_epoch, log),
        )
    finish(run, recipe, trained, found)


def log_epoch(log: SummaryWriter, row: Epoch) -> None:
    """Logs and prints the numbers of an epoch."""
    shown = {"loss": row.loss, "train_accuracy": row.train_accuracy, **(row.measured or {})}
    for name, value in shown.items():
        log.add_scalar(name, value, row.epoch)
    print("  ".join(f"{k} {v:.4g}" for k, v in shown.items()), flush=True)


def finish(run: runs.Run, recipe: ClassifierRecipe, trained: Trained, found: Splits) -> None:
    """Exports the weights, rounded to bf16, with the accuracy of exactly these weights, and writes the results."""
    test_set = found.test
    assert test_set.class_names is not None
    assert test_set.labels is not None
    model, measured = export.prepare(
        trained, test_set.images, test_set.labels, robust_radius=recipe.robust_radius
    )
    hidden = {"hidden": _HIDDEN.value} if _NETWORK.value == "vgg16" else {}
    card = {
        "network": type(model).__name__,
        "width_multiplier": _WIDTH.value,
        **hidden,
        "image_size": test_set.images.shape[1],
        "class_names": list(test_set.class_names),
        "dataset": _DATASET.value,
        "held_out": found.held_out,
        "recipe": dataclasses.asdict(recipe),
        "precision": _PRECISION.value,
        "seed": _SEED.value,
        **measured,
    }
    pretrained.save(run.directory / "weights.npz", model, card)
    run.write_results({"history": [row._asdict() for row in trained.history], "card": card})
    print(
        f"{run.directory}/results.json and weights.npz: {card['test_accuracy']:.2%} of "
        f"{card['test_images']} {found.test_name}"
    )


def main(argv: list[str]) -> None:
    """Runs the program with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    train()


if __name__ == "__main__":
    scripts.start(main)
