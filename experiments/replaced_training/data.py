"""The images: squares with three channels and labels."""

from pathlib import Path

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
    """Training and test images of a side in pixels; a data set without splits gives its last rows for the test.

    Raises:
      ValueError: images without labels, two sets of other classes, or none left to train on.
    """
    train = _labelled(dataset, "train", data_dir, side)
    if test_dataset is not None:
        test = _labelled(test_dataset, test_split, data_dir, side)
    elif _has_splits(dataset):
        test = _labelled(dataset, test_split, data_dir, side)
    else:
        left = len(train.ids) - test_images
        if left < 1:
            raise ValueError(
                f"--dataset={dataset} has {len(train.ids)} images, of which --test_images={test_images} "
                "would be held out; name a --test_dataset, or hold out fewer"
            )
        test, train = _some(train, left, len(train.ids)), _some(train, 0, left)
    if train.class_names != test.class_names:
        raise ValueError(
            f"--test_dataset={test_dataset} has other classes than --dataset={dataset}"
        )
    return _some(train, 0, train_images or None), _some(test, 0, test_images)


def _has_splits(dataset: str) -> bool:
    path = Path(dataset)
    folder = path.is_dir() and not (path / "dataset_info.json").is_file()
    return dataset != "digits" and path.suffix != ".npz" and not folder


def _labelled(dataset: str, split: str, data_dir: str | None, side: int) -> sources.ImageSource:
    found = sources.load(dataset, split=split, data_dir=data_dir, size=(side, side))
    if found.labels is None:
        raise ValueError(f"{dataset!r} has no labels; use a data set that has")
    names = found.class_names or tuple(str(k) for k in range(int(found.labels.max()) + 1))
    # Grey images in three equal channels.
    images = np.repeat(found.images, 3 // found.images.shape[-1], -1)
    return found._replace(images=images, class_names=names)


def _some(source: sources.ImageSource, start: int, stop: int | None) -> sources.ImageSource:
    assert source.labels is not None
    rows = slice(start, stop)
    return source._replace(
        images=source.images[rows], labels=source.labels[rows], ids=source.ids[rows]
    )
