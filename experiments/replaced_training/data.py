"""The images: squares with three channels and labels."""

import numpy as np

from outgen_jax.data import sources


def load(
    dataset: str,
    *,
    test_dataset: str | None,
    test_split: str = "test",
    data_dir: str | None,
    side: int,
    train_images: int,
    test_images: int,
) -> tuple[sources.ImageSource, sources.ImageSource]:
    """Training and test images of a side in pixels.

    A source without splits may be sorted by class: its images are put in a fixed random order. The last of them are
    the test images where there is no `test_dataset`.

    Args:
      dataset: as `sources.load` takes it.
      test_dataset: another one for the test; None: the test images are of `dataset`.
      test_split: of a tfds data set.
      data_dir: of prepared tfds data sets.
      side: that all images are brought to.
      train_images: from the start of the set; 0: all.
      test_images: from the start of the test set, at most.

    Raises:
      ValueError: images without labels, two sets of other classes, none left to train on, or images in both sets.
    """
    train = _labelled(dataset, "train", data_dir, side)
    if not sources.has_splits(dataset):
        train = train.take(np.random.default_rng(0).permutation(len(train.ids)))
    if test_dataset is not None or sources.has_splits(dataset):
        test = _labelled(test_dataset or dataset, test_split, data_dir, side)
    else:
        left = len(train.ids) - test_images
        if left < 1:
            raise ValueError(
                f"--dataset={dataset} has {len(train.ids)} images, of which --test_images={test_images} "
                "would be held out; name a --test_dataset, or hold out fewer"
            )
        test, train = train.take(np.arange(left, len(train.ids))), train.take(np.arange(left))
    if train.class_names != test.class_names:
        raise ValueError(
            f"--test_dataset={test_dataset} has other classes than --dataset={dataset}"
        )
    train, test = _first(train, train_images or None), _first(test, test_images)
    if test_dataset is None:
        _check_apart(train, test, test_split)
    return train, test


def _check_apart(train: sources.ImageSource, test: sources.ImageSource, test_split: str) -> None:
    """Refuses test images that are trained on, as far as ids tell: without any, images are numbered by split."""
    if train.ids[0] == "0":
        return
    if common := set(train.ids) & set(test.ids):
        raise ValueError(
            f"--test_split={test_split}: {len(common):,} of the {len(test.ids):,} test images are trained on too, e.g. "
            f"{min(common)}; lower --train_images, or name another split"
        )


def _labelled(dataset: str, split: str, data_dir: str | None, side: int) -> sources.ImageSource:
    found = sources.load(dataset, split=split, data_dir=data_dir, size=(side, side))
    if found.labels is None:
        raise ValueError(f"{dataset!r} has no labels; use a data set that has")
    names = found.class_names or tuple(str(k) for k in range(int(found.labels.max()) + 1))
    return found.with_channels(3)._replace(class_names=names)


def _first(source: sources.ImageSource, number: int | None) -> sources.ImageSource:
    """The first images, at most `number`."""
    return source.take(np.arange(len(source.ids))[:number])
