"""Flags that several scripts define in the same words; each belongs to the script whose module calls the function.

_DATA_DIR, _OUT, _OVERWRITE = common_flags.data_dir(), common_flags.out("labels"), common_flags.overwrite()
"""

from typing import Any

from absl import flags

from outgen_jax.tools.common_flags import data_dir as data_dir
from outgen_jax.tools.common_flags import out as out
from outgen_jax.tools.common_flags import overwrite as overwrite

# absl gives a flag to the module that defines it. These are the caller's, in --help and in results.json.
flags.disclaim_key_flags()

Holder = flags.FlagHolder[Any]


def labelled_dataset(default: str) -> Holder:
    """--dataset, of images with labels."""
    return flags.DEFINE_string("dataset", default, "tfds name, .npz file, or class folders.")


def photographs() -> Holder:
    """--source, of images that need no labels."""
    return flags.DEFINE_string(
        "source", "photographs", "Folder of images, .npz, tfds name or 'photographs'."
    )


def unchosen_split() -> Holder:
    """--split: the test images of which the first thousand are left to choose settings on."""
    return flags.DEFINE_string(
        "split", "test[1000:]", "Split; no setting was chosen on these rows."
    )


def number(default: int, *, of: str, at_least: int) -> Holder:
    """--number of images, from the start `of` a source or split."""
    return flags.DEFINE_integer("number", default, f"Images, from the start of the {of}.", at_least)


def more_samples(run: str, job: str) -> tuple[Holder, Holder, Holder, Holder, Holder]:
    """--run, --job, --seed, --number and --out: which samples of a finished job, and where they go."""
    return (
        flags.DEFINE_string("run", f"runs/{run}", "Directory of a run of the study, its --out."),
        flags.DEFINE_string("job", None, f"Whose generator: {job}.", required=True),
        flags.DEFINE_integer("seed", 0, "Of the latent vectors."),
        flags.DEFINE_integer("number", 64, "Images.", 1),
        flags.DEFINE_string("out", "samples.npz", "File of the images."),
    )


def classifier(default: str) -> Holder:
    """--classifier, frozen."""
    return flags.DEFINE_string(
        "classifier",
        default,
        "Name of a network that `pretrained.load` knows, or an .npz that train_classifier.py wrote.",
    )


def images_an_update(default: int | None) -> Holder:
    """--batch_size in training."""
    return flags.DEFINE_integer("batch_size", default, "Images an update.", 1)


def images_at_a_time() -> Holder:
    """--batch_size in synthesis."""
    return flags.DEFINE_integer(
        "batch_size", None, "Images at a time; by default chosen for the device.", 1
    )


def epochs(default: int | None) -> Holder:
    """--epochs of training."""
    return flags.DEFINE_integer("epochs", default, "Passes over the training images.", 1)


def seed(what: str, *, default: int = 0) -> Holder:
    """--seed of `what` is drawn."""
    return flags.DEFINE_integer("seed", default, f"Seed of {what}.")
