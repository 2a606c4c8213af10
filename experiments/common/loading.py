"""The classifier and the images that a study begins with."""

from typing import Any, NamedTuple

import outgen_jax as og
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn


class Start(NamedTuple):
    """What a study begins with."""

    class_names: tuple[str, ...]
    network: tuple[ApplyFn, Any]  # apply_fn, variables
    source: sources.ImageSource


def load(
    classifier: str,
    images: str,
    *,
    split: str = "test",
    data_dir: str | None,
    number: int,
    resized: bool = False,
) -> Start:
    """The classifier of a name or file, and the first images of a data set, source or folder.

    Args:
      classifier: as `pretrained.load` takes it.
      images: as `sources.load` takes it.
      split: of a tfds data set.
      data_dir: of prepared tfds data sets.
      number: of images at most.
      resized: whether images are brought to the size that the classifier was trained on.
    """
    known = pretrained.load(classifier)
    size = (known.image_size, known.image_size) if resized else None
    source = sources.load(images, split=split, data_dir=data_dir, size=size, limit=number)
    return Start(known.class_names, og.models.from_nnx(known.model), source)


def load_labelled(classifier: str, images: str, **options: Any) -> Start:
    """`load` of images whose labels number the classifier's classes.

    Raises:
      ValueError: they do not; in the name of the flag --dataset.
    """
    start = load(classifier, images, **options)
    if start.source.labels is None or start.source.class_names != start.class_names:
        raise ValueError(
            f"--dataset={images} must have the classifier's classes: {', '.join(start.class_names)}"
        )
    return start
