"""Trains VGG16 on CIFAR-10 (or any labelled source) and exports its weights.

Purpose   The frozen classifier of paper A (there: VGG16, 92.27 % top-1), and the weights the package ships.
Command   python experiments/train_classifier.py --dataset=cifar10 --data_dir=... --width=0.5 --epochs=16
              --optimizer=muon --batch_size=512 --learning_rate=0.08 --weight_decay=0.05 --out=runs/vgg16_half
Expected  91.2 % of the CIFAR-10 test images with half the width, 4.4 minutes an epoch on 2 shared cores
Hardware  see `results.json` of the run (epochs, seconds, accuracy) and outgen_jax/models/weights/*.json
Output    --out gets results.json, weights.npz (bf16) with its model card, checkpoints/ and TensorBoard logs/.

The same command resumes an interrupted run, at the last whole epoch and to the same bits (on CPU).
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags
from flax import nnx
from tensorboardX import SummaryWriter

import outgen_jax as og
from outgen_jax import runs
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.training import classifier
from outgen_jax.training.checkpoints import Checkpoints

_DATASET = flags.DEFINE_string(
    "dataset", "cifar10", "tfds name, .npz file, class folders, or 'digits'."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of prepared tfds data sets.")
_EXCLUDE = flags.DEFINE_string(
    "exclude_ids", None, "File of test ids, one a line, left out of the accuracy."
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", None, "Train on the first so many images only."
)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_HIDDEN = flags.DEFINE_integer(
    "hidden", None, "Units of two hidden linear layers; none by default.", 1
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Passes over the training images.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images an update.", 1)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", classifier.OPTIMIZERS, "Optimiser.")
_LR = flags.DEFINE_float("learning_rate", 0.1, "Peak learning rate.", 0)
_DECAY = flags.DEFINE_float("weight_decay", 5e-4, "Weight decay of the kernels.", 0)
_SMOOTHING = flags.DEFINE_float("label_smoothing", 0.0, "Mass spread over all classes.", 0, 1)
_SCHEDULE = flags.DEFINE_enum("schedule", "cosine", classifier.SCHEDULES, "Learning rate schedule.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "auto", ("auto", "float32", "bfloat16"), "auto: bfloat16 off the CPU."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_OUT = flags.DEFINE_string("out", "runs/train_classifier", "Directory of the run.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another run's results in --out.")


def load_split(split: str, limit: int | None = None) -> sources.ImageSource:
    source = sources.load(_DATASET.value, split=split, data_dir=_DATA_DIR.value, limit=limit)
    if source.labels is None or source.class_names is None:
        raise ValueError(
            f"--dataset={_DATASET.value} has no labels; use a tfds name or a folder of class folders"
        )
    return source


def exact_test_split() -> sources.ImageSource:
    """The test images without those that --exclude_ids names."""
    source = load_split("test")
    excluded = set(Path(_EXCLUDE.value).read_text().split()) if _EXCLUDE.value else set()
    if unknown := excluded - set(source.ids):
        raise ValueError(
            f"--exclude_ids: {len(unknown)} ids are not in the test split, e.g. {min(unknown)}"
        )
    keep = np.array([name not in excluded for name in source.ids])
    assert source.labels is not None
    return source._replace(
        images=source.images[keep],
        labels=source.labels[keep],
        ids=tuple(name for name, k in zip(source.ids, keep, strict=True) if k),
    )


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


def recipe_from_flags() -> classifier.Recipe:
    return classifier.Recipe(
        epochs=_EPOCHS.value,
        batch_size=_BATCH.value,
        optimizer=_OPTIMIZER.value,
        learning_rate=_LR.value,
        weight_decay=_DECAY.value,
        label_smoothing=_SMOOTHING.value,
        schedule=_SCHEDULE.value,
    )


def build_model(num_classes: int) -> og.models.VGG16:
    on_cpu = jax.default_backend() == "cpu"
    bfloat16 = _DTYPE.value == "bfloat16" or (_DTYPE.value == "auto" and not on_cpu)
    return og.models.VGG16(
        num_classes,
        _WIDTH.value,
        hidden=_HIDDEN.value,
        dtype=jnp.bfloat16 if bfloat16 else jnp.float32,
        rngs=nnx.Rngs(_SEED.value),
    )


def train(run: runs.Run, recipe: classifier.Recipe) -> None:
    train_set, test_set = load_split("train", _TRAIN_IMAGES.value), exact_test_split()
    assert train_set.class_names is not None
    steps = len(train_set.ids) // recipe.batch_size
    optimizer = classifier.make_optimizer(recipe, steps)
    graphdef, state = classifier.create(build_model(len(train_set.class_names)), optimizer)
    key = jax.random.key(_SEED.value)
    update = classifier.compile_update(
        classifier.make_update(graphdef, optimizer, key=key, label_smoothing=recipe.label_smoothing)
    )
    apply = jax.jit(classifier.make_apply(graphdef))
    images, labels = jnp.asarray(train_set.images), jnp.asarray(train_set.labels)

    checkpoints = Checkpoints(run.directory / "checkpoints")
    history: list[dict[str, float]] = []
    if checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        history = notes["history"]
        print(f"resuming after epoch {len(history)}")

    with SummaryWriter(str(run.directory / "logs")) as log:
        for epoch in range(len(history), recipe.epochs):
            start, losses = time.perf_counter(), []
            rows = classifier.epoch_rows(key, epoch, len(train_set.ids), recipe.batch_size)
            with tqdm.tqdm(
                total=steps, desc=f"epoch {epoch + 1}/{recipe.epochs}", mininterval=1
            ) as bar:
                chunks = classifier.run_epoch(update, state, images, labels, rows)
                for state, metrics in chunks:  # noqa: B007 (the last state is the epoch's)
                    losses.append(metrics)
                    bar.update(metrics.loss.size)
            loss, train_accuracy = (
                float(np.concatenate(m).mean()) for m in zip(*losses, strict=True)
            )
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss diverged in epoch {epoch + 1}; the checkpoint of epoch {epoch} is kept. "
                    "Use a lower --learning_rate"
                )
            row = {
                "epoch": epoch + 1,
                "loss": loss,
                "train_accuracy": train_accuracy,
                "test_accuracy": accuracy(apply, state, test_set),
                "seconds": time.perf_counter() - start,
            }
            history.append(row)
            for name in ("loss", "train_accuracy", "test_accuracy"):
                log.add_scalar(name, row[name], epoch + 1)
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
            checkpoints.save(epoch + 1, state, {"history": history})

    finish(run, recipe, graphdef, state, history, test_set)


def finish(
    run: runs.Run,
    recipe: classifier.Recipe,
    graphdef: nnx.GraphDef,
    state: classifier.TrainState,
    history: list[dict[str, float]],
    test_set: sources.ImageSource,
) -> None:
    """Exports the weights, rounded to bf16, with the accuracy of exactly these weights, and writes the results."""
    assert test_set.class_names is not None
    model = pretrained.rounded(nnx.merge(graphdef, state.params, state.variables, copy=True))
    _, params, variables = nnx.split(model, nnx.Param, ...)
    exported = state._replace(params=params, variables=variables)
    card = {
        "network": "VGG16",
        "width_multiplier": _WIDTH.value,
        "hidden": _HIDDEN.value,
        "class_names": list(test_set.class_names),
        "dataset": _DATASET.value,
        "test_images": len(test_set.ids),
        "test_accuracy": accuracy(jax.jit(classifier.make_apply(graphdef)), exported, test_set),
        "recipe": recipe._asdict(),
        "seed": _SEED.value,
        "seconds": sum(row["seconds"] for row in history),
        "device": jax.devices()[0].device_kind,
    }
    pretrained.save(run.directory / "weights.npz", model, card)
    run.write_results({"history": history, "card": card})
    print(
        f"{run.directory}/results.json and weights.npz: {card['test_accuracy']:.2%} of "
        f"{card['test_images']} test images"
    )


def main(argv: list[str]) -> None:
    del argv
    runs.enable_compilation_cache()
    train(runs.open_run(_OUT.value, overwrite=_OVERWRITE.value), recipe_from_flags())


if __name__ == "__main__":
    runs.start(main)
