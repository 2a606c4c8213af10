"""The labels of a source as classes of the classifier, matched by name.

A label of a source is a number in the source's own list of classes. Here it becomes the number of
the class of that name among the classifier's K; K itself stands for a class that is not there.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from outgen_jax.data.image_source import ImageSource, check_lengths
from outgen_jax.targets.names import composed, folded


class Labels(NamedTuple):
    """Labels of n images among K classes."""

    classes: np.ndarray  # [n] int64; K where the image has no label, or one that is no class
    lacking: np.ndarray  # [n] str: the source's name of a class that is not there, or ''


def of_source(
    source: ImageSource, *, class_names: Sequence[str] | None, num_classes: int, caller: str
) -> Labels | None:
    """The labels of a source, None if it has none.

    A class is matched by its exact name, then without regard to case. The labels of a source that
    does not name its classes are taken to number the classifier's.

    Raises:
      ValueError: the source names its classes and `class_names` are not given; a name fits
          several classes; or a label is out of range.
    """
    if not isinstance(source, ImageSource):
        raise ValueError(
            f"{caller}: source must be an ImageSource, as data.sources.load returns; it is a "
            f"{type(source).__name__}. Give its labels, image_ids and num_images by those names"
        )
    check_lengths(source, caller=caller)
    if source.labels is None:
        return None
    if source.class_names is not None and class_names is None:
        raise ValueError(
            f"{caller}: the source's labels number its own classes ({source.class_names[0]!r}, ...). "
            "Give class_names, the classifier's, to match them by name"
        )
    labels = np.asarray(source.labels, np.int64)
    count = num_classes if source.class_names is None else len(source.class_names)
    wrong = np.flatnonzero((labels < -1) | (labels >= count))
    if wrong.size:
        raise ValueError(
            f"{caller}: labels of the source must be 0 to {count - 1}, or -1 for none; image "
            f"{source.ids[wrong[0]]!r} has {labels[wrong[0]]}. Correct them, or the class_names "
            "that they number"
        )
    classes = () if class_names is None else tuple(map(str, class_names))
    if source.class_names is None or tuple(map(str, source.class_names)) == classes:
        none = np.full(len(labels), "")
        return Labels(np.where(labels < 0, num_classes, labels), none)
    places = _places(source.class_names, classes, caller)
    numbers = [num_classes if place is None else place for place in places]
    lacking = [
        name if place is None else ""
        for name, place in zip(source.class_names, places, strict=True)
    ]
    # The label -1 picks the last entry: an image without a label.
    return Labels(np.array([*numbers, num_classes])[labels], np.array([*lacking, ""])[labels])


def _places(own: Sequence[str], classes: Sequence[str], caller: str) -> list[int | None]:
    """The number among `classes` of each of the source's own class names, None if it is not there."""
    exact, any_case = defaultdict(list), defaultdict(list)
    for place, name in enumerate(classes):
        exact[composed(name)].append(place)
        any_case[folded(name)].append(place)
    found: list[int | None] = []
    for name in own:
        matches = exact.get(composed(name)) or any_case.get(folded(name), [])
        if len(matches) > 1:
            raise ValueError(
                f"{caller}: the source's class {name!r} is the name of classes "
                f"{' and '.join(map(str, matches))}. Give labels instead of source"
            )
        found.append(matches[0] if matches else None)
    return found
