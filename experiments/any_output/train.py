"""Trains a small network whose output is no softmax: several labels of a canvas of digits, or numbers of a digit.

Purpose   Networks for `labels` and `values`; see `networks` for what they say.
Command   python -m experiments.any_output.train --kind=twenty --data_dir=... --out=runs/twenty
          also --kind=ten, --kind=numbers
Expected  Measured: README.md.
Duration  about 4 minutes on one CPU core
Output    --out gets results.json, table.md, and weights.npz (bf16) with its card. The weights are not shipped.

The same command resumes an interrupted run.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from absl import flags

import outgen_jax as og
from experiments.any_output import networks
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from outgen_jax import report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.training import classifier_fit, classifier_recipe
from outgen_jax.training.checkpoints import Checkpoints

_KIND = flags.DEFINE_enum("kind", "twenty", networks.KINDS, "What it learns.")
_DATASET = common_flags.labelled_dataset("mnist")
_DATA_DIR = common_flags.data_dir()
_IMAGES = flags.DEFINE_integer("images", 30_000, "Images to train on.", 1)
_TEST = flags.DEFINE_integer("test_images", 5000, "Images to measure it on, of test digits.", 1)
_EPOCHS = common_flags.epochs(5)
_BATCH = common_flags.images_an_update(125)
_LR = flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate of Nesterov SGD.", 0)
_SEED = common_flags.seed("images, weights and order")
_OUT = common_flags.out("networks")
_OVERWRITE = common_flags.overwrite()

_SHIFT = 2  # pixels by which canvases are shifted at random


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: how good the network is on test digits."""
    card = results["card"]
    found = {
        "training images": f"{card['recipe']['images']:,}",
        "test images": f"{card['test_images']:,}",
    }
    if card["kind"] == "numbers":
        errors = zip(card["names"], card["rms_error"], strict=True)
        found |= {f"rms error, {name}": f"{error:.2f}" for name, error in errors}
    else:
        found["labels right"] = f"{card['labels_right']:.1%}"
        found["canvases with all labels right"] = f"{card['images_right']:.1%}"
    return report.markdown_table(list(found), [list(found.values())])


def train(run: runs.Run) -> None:
    kind, seed = _KIND.value, _SEED.value
    train_set, test_set = (
        networks.drawn(
            kind,
            sources.load(_DATASET.value, split=split, data_dir=_DATA_DIR.value),
            count,
            seed=seed + offset,
        )
        for split, count, offset in (("train", _IMAGES.value, 0), ("test", _TEST.value, 1))
    )
    # Numbers are learnt in units of their standard deviation.
    middle, spread = np.zeros(1), np.ones(1)
    if kind == "numbers":
        middle, spread = train_set.wanted.mean(0), train_set.wanted.std(0)
    wanted, test_wanted = ((x - middle) / spread for x in (train_set.wanted, test_set.wanted))
    recipe = classifier_recipe.ClassifierRecipe(
        epochs=_EPOCHS.value,
        batch_size=_BATCH.value,
        learning_rate=_LR.value,
        crop_padding=0 if kind == "numbers" else _SHIFT,
        flip=False,
    )
    trained = classifier_fit.train(
        networks.empty(kind, seed=seed),
        train_set.images,
        wanted.astype(np.float32),
        recipe,
        key=jax.random.key(seed),
        objective=networks.numbers_objective()
        if kind == "numbers"
        else networks.labels_objective(),
        checkpoints=Checkpoints(run.directory / "checkpoints"),
        title="training",
    )
    rounded = pretrained.rounded(trained.model)
    network = og.models.from_nnx(rounded)
    said = og.predict(*network, test_set.images, output=networks.output_of(kind))
    card = {
        "kind": kind,
        **networks.entries_for_the_package(kind, wanted),
        "names": networks.output_names(kind),
        "mean": middle.tolist(),
        "std": spread.tolist(),
        "dataset": _DATASET.value,
        "test_images": len(test_wanted),
        **networks.scores(kind, said, test_wanted),
        "recipe": {**dataclasses.asdict(recipe), "images": len(wanted)},
        "seed": seed,
        "seconds": sum(row.seconds for row in trained.history),
        "device": jax.devices()[0].device_kind,
    }
    pretrained.save(run.directory / "weights.npz", rounded, card)
    results = {"history": [row._asdict() for row in trained.history], "card": card}
    common_tables.write(run, results, table)
    print(table(results))


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    train(runs.open_run(_OUT.value, overwrite=_OVERWRITE.value))


if __name__ == "__main__":
    scripts.start(main)
