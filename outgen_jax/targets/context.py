"""What the names in a written target refer to, from the arguments of the caller. Classes are int64 [n]."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from outgen_jax.data.image_source import ImageSource
from outgen_jax.targets.draws import ImageIds, id_texts
from outgen_jax.targets.labels import Labels, of_source
from outgen_jax.targets.names import composed, folded
from outgen_jax.whole_numbers import check_integers


class Context(NamedTuple):
    """What the names in a target refer to, for n images and K classes."""

    caller: str  # opens the error messages: the public function and, in a table, the row
    num_classes: int
    exact: Mapping[str, list[int]]  # class name, composed -> its indices; ImageNet has two cranes
    folded: Mapping[str, list[int]]  # the same without regard to case
    ids: Sequence[str]  # n
    labels: np.ndarray | None  # [n] int64; K where an image has none among the classes
    source_probs: np.ndarray | None  # [n, K]
    seed: int
    lacking: np.ndarray | None = None  # [n] str: the source's class that the K lack, or ''
    form: str = "distribution"  # of the output, see `og.outputs.Output.form`
    bounds: tuple[float, float] | None = None  # of an entry of another form

    def take(self, images: Sequence[int], caller: str) -> "Context":
        """The context of some of the images."""
        return self._replace(
            caller=caller,
            ids=[self.ids[image] for image in images],
            labels=None if self.labels is None else self.labels[images],
            source_probs=None if self.source_probs is None else self.source_probs[images],
            lacking=None if self.lacking is None else self.lacking[images],
        )


def make_context(
    caller: str,
    *,
    class_names: Sequence[str] | None,
    num_classes: int | None,
    labels: ArrayLike | None,
    num_images: int | None,
    seed: int,
    image_ids: ImageIds | None,
    source_probs: ArrayLike | None,
    source: ImageSource | None = None,
    output: Any = None,
) -> Context:
    """Check the arguments of `parse` and `from_csv` against each other and gather them."""
    check_integers(caller=caller, num_classes=num_classes, num_images=num_images)
    if isinstance(class_names, str):
        raise ValueError(
            f"{caller}: class_names must be a sequence of names, got the text {class_names!r}. Give a list, "
            "one name per class"
        )
    if output is not None and not hasattr(output, "form"):
        raise ValueError(
            f"{caller}: output must be one of og.outputs, such as og.outputs.sigmoid(), got {output!r:.60}. Call it; "
            "for a network with several outputs, make the targets of each apart"
        )
    class_names = None if class_names is None else tuple(map(str, class_names))
    classes = _agreed(
        caller,
        "classes",
        class_names=None if class_names is None else len(class_names),
        num_classes=num_classes,
    )
    if classes < 1:
        raise ValueError(f"{caller}: there must be a class to name; there are {classes}. Add some")
    label_array = None if labels is None else np.asarray(labels)
    probs = None if source_probs is None else np.atleast_1d(np.asarray(source_probs, np.float32))
    found = None
    if source is not None:
        found = of_source(source, class_names=class_names, num_classes=classes, caller=caller)
    if num_images is not None and num_images < 0:
        raise ValueError(
            f"{caller}: num_images must not be negative; it is {num_images}. Give the number of images"
        )
    counts: dict[str, int | None] = {
        "num_images": num_images,
        "labels": None if label_array is None else label_array.size,
        "image_ids": None if image_ids is None else len(image_ids),
        "source_probs": None if probs is None else len(probs),
        "source": None if source is None else len(source.ids),
    }
    images = _agreed(caller, "images", **counts)
    ids = id_texts(image_ids, images, caller=caller)
    if label_array is not None:
        label_array = _checked_labels(label_array, classes, caller)
    if source is not None:
        given_ids = None if image_ids is None else ids
        ids, label_array = _of_source(caller, source, found, given_ids, label_array)
    names = class_names or ()
    return Context(
        caller=caller,
        num_classes=classes,
        exact=_indices_by_name([composed(name) for name in names]),
        folded=_indices_by_name([folded(name) for name in names]),
        ids=ids,
        labels=label_array,
        source_probs=None if probs is None else _checked_probs(probs, classes, caller),
        seed=seed,
        lacking=None if found is None else found.lacking,
        form="distribution" if output is None else output.form,
        bounds=None if output is None else output.bounds,
    )


def _of_source(
    caller: str,
    source: ImageSource,
    found: Labels | None,
    given_ids: Sequence[str] | None,
    given_labels: np.ndarray | None,
) -> tuple[list[str], np.ndarray | None]:
    """Ids and labels of the source, which those that are given must not contradict."""
    if given_ids is not None:
        _check_same(caller, "image_ids", given_ids, source.ids, source)
    if found is None:
        return list(source.ids), given_labels
    if given_labels is not None:
        _check_same(caller, "labels", given_labels.tolist(), found.classes.tolist(), source)
    return list(source.ids), found.classes


def _check_same(
    caller: str, name: str, given: Sequence[Any], own: Sequence[Any], source: ImageSource
) -> None:
    """Refuses an argument that contradicts the source."""
    for row, (left, right) in enumerate(zip(given, own, strict=True)):
        if left != right:
            raise ValueError(
                f"{caller}: {name} and source contradict each other: {left!r} and {right!r} for "
                f"image {row} ({source.ids[row]!r}). Leave {name} out"
            )


def _indices_by_name(names: Sequence[str]) -> dict[str, list[int]]:
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        indices[name].append(index)
    return dict(indices)


def _agreed(caller: str, things: str, **counts: int | None) -> int:
    """The one number that the arguments which were given agree on."""
    given = {name: count for name, count in counts.items() if count is not None}
    if not given:
        raise ValueError(
            f"{caller}: the number of {things} is not known. Give {' or '.join(counts)}"
        )
    if len(set(given.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in given.items())
        raise ValueError(
            f"{caller}: arguments must agree on the number of {things}; found {found}. "
            "Correct the odd one"
        )
    return next(iter(given.values()))


def _checked_labels(labels: np.ndarray, classes: int, caller: str) -> np.ndarray:
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise ValueError(
            f"{caller}: labels must be int [B]; they are {labels.dtype} {list(labels.shape)}. "
            "Give one class index per image"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"{caller}: labels must be 0 to {classes - 1}; image {wrong[0]} has {labels[wrong[0]]}. "
            "Leave labels out where images have none"
        )
    return labels.astype(np.int64)


def _checked_probs(probs: np.ndarray, classes: int, caller: str) -> np.ndarray:
    if probs.shape[1:] != (classes,) or not np.isfinite(probs).all():
        raise ValueError(
            f"{caller}: source_probs must be [B, {classes}] and finite; they are "
            f"{list(probs.shape)} with {np.sum(~np.isfinite(probs))} values not finite. "
            "Give the classifier's output on the source images"
        )
    return probs
