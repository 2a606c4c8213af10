"""Training and test images of a source, and a part that is held out where it has no test split of its own."""

from typing import NamedTuple

import numpy as np

from outgen_jax.data import prepared, sources
from outgen_jax.data.image_source import ImageSource, PathLike, Size

HELD_OUT = 0.1


class Splits(NamedTuple):
    """Images to train on, and others to measure with."""

    train: ImageSource
    test: ImageSource
    held_out: float | None  # share of the source in `test`; None: the source's own test split

    @property
    def test_name(self) -> str:
        """What the images of `test` are called."""
        return "test images" if self.held_out is None else "held-out images"


def train_and_test(
    spec: PathLike,
    *,
    data_dir: PathLike | None = None,
    size: Size | None = None,
    held_out: float = HELD_OUT,
    limit: int | None = None,
) -> Splits:
    """The training and test images that `spec` names, with their labels.

    A tfds data set with a split 'test' has both. Of any other source a share is held out, the same images in every
    call; of a tfds data set without that split, a share of 'train'.

    Args:
      spec: as in `data.sources.load`.
      data_dir: as there.
      size: as there.
      held_out: share of the images of a source without a test split, in (0, 1).
      limit: number of training images; None: all. They are the first of a data set with a test split, and random ones
        of another source, which may be sorted by class.

    Raises:
      FileNotFoundError: as `data.sources.load`.
      ValueError: as there; images without labels; a share that leaves no images on a side.

    >>> splits = train_and_test("digits", held_out=0.25)
    >>> len(splits.train.ids), len(splits.test.ids), splits.test_name
    (1348, 449, 'held-out images')
    """
    if sources.has_splits(spec) and "test" in prepared.split_names(spec, data_dir=data_dir):
        train = sources.load(spec, split="train", data_dir=data_dir, size=size, limit=limit)
        test = sources.load(spec, split="test", data_dir=data_dir, size=size)
        return Splits(_labelled(train, spec), _labelled(test, spec), None)
    whole = _labelled(sources.load(spec, split="train", data_dir=data_dir, size=size), spec)
    count = len(whole.ids)
    tested = round(held_out * count)
    if not 0 < tested < count:
        raise ValueError(
            f"train_and_test: held_out must leave images to train on and to measure with, got {held_out} of {count} "
            "images; 0.1 is usual"
        )
    order = np.random.default_rng(0).permutation(count)
    test_rows, train_rows = order[:tested], order[tested:][:limit]
    return Splits(whole.take(np.sort(train_rows)), whole.take(np.sort(test_rows)), held_out)


def _labelled(source: ImageSource, spec: PathLike) -> ImageSource:
    if source.labels is None or source.class_names is None:
        lacks = "labels" if source.labels is None else "names of its classes"
        raise ValueError(
            f"train_and_test: {str(spec)!r} has no {lacks}; use a tfds name, a folder of "
            "class folders, or an .npz with labels and class_names"
        )
    return source
