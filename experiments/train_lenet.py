"""Trains the LeNet on MNIST with which generated digits are scored, and exports its weights.

Purpose   Paper C's authors wished for a numerical measure of realism; its scores need a classifier of digits.
Command   python experiments/train_lenet.py --data_dir=... --out=runs/lenet
Expected  at least 99.2 % of the 10,000 test images; measured: outgen_jax/models/weights/mnist_lenet.json
Output    --out gets results.json and weights.npz (bf16) with its model card.

The whole takes minutes and is not resumed.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from absl import flags
from flax import nnx

import outgen_jax as og
from outgen_jax import runs
from outgen_jax.data import augment, sources
from outgen_jax.models import pretrained
from outgen_jax.training import classifier

_DATASET = flags.DEFINE_string("dataset", "mnist", "tfds name, .npz file, or class folders.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of prepared tfds data sets.")
_EPOCHS = flags.DEFINE_integer("epochs", 7, "Passes over the training images.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 125, "Images an update.", 1)
_LR = flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate of Nesterov SGD.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_OUT = flags.DEFINE_string("out", "runs/train_lenet", "Directory of the run.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another run's results in --out.")

SHIFT = 2  # pixels: training images are shifted by up to so many, as digits are not mirrored


def load(split: str) -> sources.ImageSource:
    source = sources.load(_DATASET.value, split=split, data_dir=_DATA_DIR.value)
    if source.labels is None or source.class_names is None:
        raise ValueError(f"--dataset={_DATASET.value} has no labels; use a tfds name or an .npz")
    return source


def make_update(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, key: jax.Array
) -> classifier.Update:
    """As `classifier.make_update`, with shifts as the only augmentation."""

    def loss_fn(
        params: nnx.State, variables: nnx.State, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        model = nnx.merge(graphdef, params, variables, copy=True)
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (nnx.state(model, nnx.Not(nnx.Param)), logits)

    def update(
        state: classifier.TrainState, images: jax.Array, labels: Any, rows: jax.Array
    ) -> tuple[classifier.TrainState, classifier.Metrics]:
        crop_key = jax.random.fold_in(key, state.step)
        batch = augment.random_crop(crop_key, images[rows], padding=SHIFT)
        (loss, (variables, logits)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.variables, batch.astype(jnp.float32) / 255, labels[rows]
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        accuracy = (logits.argmax(-1) == labels[rows]).mean()
        new = classifier.TrainState(params, variables, opt_state, state.step + 1)
        return new, classifier.Metrics(loss, accuracy)

    return update


def accuracy(
    apply: classifier.Apply, state: classifier.TrainState, source: sources.ImageSource
) -> float:
    assert source.labels is not None
    correct = 0
    for start in range(0, len(source.ids), 500):
        rows = slice(start, start + 500)
        logits = apply(state, jnp.asarray(source.images[rows], jnp.float32) / 255)
        correct += int((np.asarray(logits).argmax(-1) == source.labels[rows]).sum())
    return correct / len(source.ids)


def train(run: runs.Run) -> None:
    train_set, test_set = load("train"), load("test")
    assert test_set.class_names is not None
    recipe = classifier.Recipe(_EPOCHS.value, _BATCH.value, learning_rate=_LR.value)
    steps = len(train_set.ids) // recipe.batch_size
    optimizer = classifier.make_optimizer(recipe, steps)
    model = og.models.LeNet(len(test_set.class_names), rngs=nnx.Rngs(_SEED.value))
    channels = [model.conv1.kernel.shape[-1], model.conv2.kernel.shape[-1]]
    graphdef, state = classifier.create(model, optimizer)
    key = jax.random.key(_SEED.value)
    update = classifier.compile_update(make_update(graphdef, optimizer, key))
    apply = jax.jit(classifier.make_apply(graphdef))
    images, labels = jnp.asarray(train_set.images), jnp.asarray(train_set.labels)

    history = []
    for epoch in tqdm.trange(recipe.epochs, desc="epochs", mininterval=1):
        start, losses = time.perf_counter(), []
        rows = classifier.epoch_rows(key, epoch, len(train_set.ids), recipe.batch_size)
        chunks = classifier.run_epoch(update, state, images, labels, rows)
        for state, metrics in chunks:  # noqa: B007 (the last state is the epoch's)
            losses.append(metrics.loss)
        loss = float(np.concatenate(losses).mean())
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss diverged in epoch {epoch + 1}; use a lower --learning_rate"
            )
        row = {
            "epoch": epoch + 1,
            "loss": loss,
            "test_accuracy": accuracy(apply, state, test_set),
            "seconds": time.perf_counter() - start,
        }
        history.append(row)
        tqdm.tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in row.items()))

    rounded = pretrained.rounded(nnx.merge(graphdef, state.params, state.variables, copy=True))
    _, *states = nnx.split(rounded, nnx.Param, ...)
    params, variables = states
    card = {
        "network": "LeNet",
        "channels": channels,
        "class_names": list(test_set.class_names),
        "dataset": _DATASET.value,
        "test_images": len(test_set.ids),
        "test_accuracy": accuracy(
            apply, state._replace(params=params, variables=variables), test_set
        ),
        "recipe": {**recipe._asdict(), "shift": SHIFT},
        "seed": _SEED.value,
        "seconds": sum(row["seconds"] for row in history),
        "device": jax.devices()[0].device_kind,
    }
    pretrained.save(run.directory / "weights.npz", rounded, card)
    run.write_results({"history": history, "card": card})
    print(f"{run.directory}/weights.npz: {card['test_accuracy']:.2%} of the test images")


def main(argv: list[str]) -> None:
    del argv
    runs.enable_compilation_cache()
    train(runs.open_run(_OUT.value, overwrite=_OVERWRITE.value))


if __name__ == "__main__":
    runs.start(main)
