"""Makes CIFAR-10 readable by tfds without TensorFlow: archive in, prepared directory out.

Purpose   The data set of the CIFAR-10 experiments: tfds' features, class names, ids and order.
Command   python experiments/prepare_cifar.py --archive=cifar-10-python.tar.gz --data_dir=DIR
Hardware  26 s of one CPU core
Output    DIR/cifar10/3.0.2, 140 MB: tfds.data_source("cifar10", split="test", data_dir=DIR)

The archive, Python or binary, is at https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from outgen_jax import scripts
from outgen_jax.data import cifar, records
from outgen_jax.data.sources import ImageSource

_ARCHIVE = flags.DEFINE_string("archive", "cifar-10-python.tar.gz", "The archive, or its folder.")
_DATA_DIR = flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Where tfds data sets lie.")

VERSION = "3.0.2"
ABOUT: dict[str, Any] = {
    "description": (
        "The CIFAR-10 dataset consists of 60000 32x32 colour images in 10 classes, with 6000 "
        "images per class. There are 50000 training images and 10000 test images."
    ),
    "homepage": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "supervised_keys": ("image", "label"),
    "citation": """@TECHREPORT{Krizhevsky09learningmultiple,
    author = {Alex Krizhevsky},
    title = {Learning multiple layers of features from tiny images},
    institution = {},
    year = {2009}
}""",
}


def tfds_order(split: str, count: int) -> list[int]:
    """The rows of a split in the order in which tfds stores them: by MD5 of split name and row."""
    return sorted(range(count), key=lambda row: hashlib.md5(f"{split}{row}".encode()).digest())


def examples(split: str, source: ImageSource) -> Iterator[records.Example]:
    """The examples of tfds' cifar10, in its order."""
    assert source.labels is not None  # the archives have labels
    for row in tqdm(tfds_order(split, len(source.images)), desc=split, unit="image"):
        label = int(source.labels[row])
        yield {"id": source.ids[row], "image": source.images[row], "label": label}


def main(argv: list[str]) -> None:
    """Writes <data_dir>/cifar10/3.0.2 from the archive."""
    del argv
    target = Path(_DATA_DIR.value).expanduser() / "cifar10" / VERSION
    if target.exists():  # before half a minute of reading and decompressing
        raise FileExistsError(f"{str(target)!r} exists; remove it to make it anew")
    splits = cifar.cifar_archive(_ARCHIVE.value)
    class_names = splits["train"].class_names or ()
    if len(class_names) != 10:
        raise ValueError(
            f"{_ARCHIVE.value!r} has {len(class_names)} classes; pass CIFAR-10's archive"
        )
    records.write_dataset(
        target,
        name="cifar10",
        version=VERSION,
        fields={
            "id": records.text(),
            "image": records.image((32, 32, 3)),
            "label": records.label(class_names),
        },
        splits={split: examples(split, source) for split, source in splits.items()},
        **ABOUT,
    )
    print(f"{target}: read it with --data_dir={target.parent.parent}")


if __name__ == "__main__":
    scripts.start(main)
