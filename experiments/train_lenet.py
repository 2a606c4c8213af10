"""Trains the LeNet on MNIST with which generated digits are scored, and exports its weights.

Purpose   Paper C's authors wished for a numerical measure of realism; its scores need a classifier of digits.
Command   python experiments/train_lenet.py --data_dir=... --out=runs/lenet
          robust to changes of L2 norm 2: --robust_radius=2 --epochs=10
Expected  at least 99.2 % of the 10,000 test images; measured: outgen_jax/models/weights/mnist_lenet.json
Output    --out gets results.json and weights.npz (bf16) with its model card.

The same command resumes an interrupted run.
"""

import dataclasses

import jax
from absl import flags
from flax import nnx

import outgen_jax as og
from outgen_jax import runs, scripts
from outgen_jax.data import splits
from outgen_jax.models import pretrained
from outgen_jax.tools import common_flags
from outgen_jax.training import classifier_fit, classifier_recipe, export
from outgen_jax.training.checkpoints import Checkpoints

_DATASET = flags.DEFINE_string("dataset", "mnist", "tfds name, .npz file, or class folders.")
_DATA_DIR = common_flags.data_dir()
_SIZE = flags.DEFINE_integer(
    "size", None, "Side that images are brought to; by default as stored.", 1
)
_HELD_OUT = flags.DEFINE_float(
    "held_out", splits.HELD_OUT, "Share to measure with, where --dataset has no test split.", 0, 1
)
_EPOCHS = flags.DEFINE_integer("epochs", 7, "Passes over the training images.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 125, "Images an update.", 1)
_LR = flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate of Nesterov SGD.", 0)
_RADIUS, _ATTACK_STEPS = common_flags.robust()
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_OUT, _OVERWRITE = common_flags.out("train_lenet"), common_flags.overwrite()

SIDE = 28  # pixels: of LeNet's images
SHIFT = 2  # pixels: training images are shifted by up to so many, as digits are not mirrored


def load_splits() -> splits.Splits:
    """The images of --dataset that are trained on, and those that the accuracy is of; grey."""
    size = None if _SIZE.value is None else (_SIZE.value, _SIZE.value)
    found = splits.train_and_test(
        _DATASET.value, data_dir=_DATA_DIR.value, size=size, held_out=_HELD_OUT.value
    )
    height, width = found.train.images.shape[1:3]
    if (height, width) != (SIDE, SIDE):
        raise ValueError(
            f"--dataset={_DATASET.value}: images are {height}x{width} (height x width), and LeNet takes {SIDE}x{SIDE}; "
            f"pass --size={SIDE}"
        )
    return found._replace(train=found.train.with_channels(1), test=found.test.with_channels(1))


def recipe_from_flags() -> classifier_recipe.ClassifierRecipe:
    """The recipe of the flags."""
    return classifier_recipe.ClassifierRecipe(
        epochs=_EPOCHS.value,
        batch_size=_BATCH.value,
        learning_rate=_LR.value,
        crop_padding=SHIFT,
        flip=False,
        robust_radius=_RADIUS.value,
        robust_steps=common_flags.steps_of_attack(_RADIUS, _ATTACK_STEPS),
    )


def train() -> None:
    """Trains, from the last checkpoint on, exports the weights and writes the results."""
    recipe, found = recipe_from_flags(), load_splits()
    train_set, test_set = found.train, found.test
    images, labels = test_set.images, test_set.labels
    assert labels is not None
    assert test_set.class_names is not None
    # Flags that do not fit are refused before there is a directory.
    classifier_recipe.make_optimizer(recipe, len(train_set.ids) // recipe.batch_size)
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    model = og.models.LeNet(len(test_set.class_names), rngs=nnx.Rngs(_SEED.value))
    channels = [model.conv1.kernel.shape[-1], model.conv2.kernel.shape[-1]]
    trained = classifier_fit.train(
        model,
        train_set.images,
        train_set.labels,
        recipe,
        key=jax.random.key(_SEED.value),
        test=(images, labels),
        checkpoints=Checkpoints(run.directory / "checkpoints"),
        title="training",
    )
    rounded, measured = export.prepare(trained, images, labels, robust_radius=recipe.robust_radius)
    card = {
        "network": "LeNet",
        "channels": channels,
        "class_names": list(test_set.class_names),
        "dataset": _DATASET.value,
        "held_out": found.held_out,
        "recipe": dataclasses.asdict(recipe),
        "seed": _SEED.value,
        **measured,
    }
    pretrained.save(run.directory / "weights.npz", rounded, card)
    run.write_results({"history": [row._asdict() for row in trained.history], "card": card})
    print(f"{run.directory}/weights.npz: {card['test_accuracy']:.2%} of the {found.test_name}")


def main(argv: list[str]) -> None:
    """Runs the program with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    train()


if __name__ == "__main__":
    scripts.start(main)
