"""What a target written as text means for each of a batch of images.

The grammar stands in the header of `targets`, the module that outside code calls. Here are the
names it may use (a `Context`) and the classes they stand for. Classes are int64 [n], targets are
float32 [n, K], all numpy.
"""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from outgen_jax.data.image_source import ImageSource
from outgen_jax.targets.draws import ImageIds, distinct_classes, id_texts
from outgen_jax.targets.labels import of_source

WORDS = ("true", "top", "runnerup", "random", "uniform", "rest")
DRAWN_OR_SHARED = ("random", "uniform", "rest")
SUM_TOLERANCE = 1.001e-3  # a hair over 1e-3, so that three times 0.333 passes
LISTED = 10  # names that a message quotes before it cuts the list short


class Context(NamedTuple):
    """What the names in a target refer to, for n images and K classes."""

    where: str  # opens the error messages: the public function and, in a table, the row
    num_classes: int
    exact: Mapping[str, list[int]]  # class name -> its indices; ImageNet has two cranes
    folded: Mapping[str, list[int]]  # the same without regard to case
    ids: Sequence[str]  # n
    labels: np.ndarray | None  # [n] int64; K where an image has none among the classes
    source_probs: np.ndarray | None  # [n, K]
    seed: int
    lacking: np.ndarray | None = None  # [n] str: the source's class that the K lack, or ''
    # Of an entry that stands for itself, as those of labels and numbers do; None: the entries of a row sum to 1.
    bounds: tuple[float, float] | None = None

    def take(self, images: Sequence[int], where: str) -> "Context":
        """The context of some of the images."""
        return self._replace(
            where=where,
            ids=[self.ids[image] for image in images],
            labels=None if self.labels is None else self.labels[images],
            source_probs=None if self.source_probs is None else self.source_probs[images],
            lacking=None if self.lacking is None else self.lacking[images],
        )


def make_context(
    where: str,
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
    classes = _agreed(
        where,
        "classes",
        class_names=None if class_names is None else len(class_names),
        num_classes=num_classes,
    )
    if classes < 1:
        raise ValueError(f"{where}: there must be a class to name; there are {classes}. Add some")
    label_array = None if labels is None else np.asarray(labels)
    probs = None if source_probs is None else np.atleast_1d(np.asarray(source_probs, np.float32))
    found = None
    if source is not None:
        found = of_source(source, class_names=class_names, num_classes=classes, where=where)
    counts: dict[str, int | None] = {
        "num_images": num_images,
        "labels": None if label_array is None else label_array.size,
        "image_ids": None if image_ids is None else len(image_ids),
        "source_probs": None if probs is None else len(probs),
        "source": None if source is None else len(source.ids),
    }
    images = _agreed(where, "images", **counts)
    ids = id_texts(image_ids, images, where=where)
    if label_array is not None:
        label_array = _checked_labels(label_array, classes, where)
    if source is not None:
        if image_ids is not None:
            _check_same(where, "image_ids", ids, source.ids, source)
        if label_array is not None and found is not None:
            _check_same(where, "labels", label_array.tolist(), found.classes.tolist(), source)
        ids = list(source.ids)
        label_array = label_array if found is None else found.classes
    names = class_names or ()
    return Context(
        where=where,
        num_classes=classes,
        exact=_indices_by_name(names),
        folded=_indices_by_name([name.casefold() for name in names]),
        ids=ids,
        labels=label_array,
        source_probs=None if probs is None else _checked_probs(probs, classes, where),
        seed=seed,
        lacking=None if found is None else found.lacking,
        bounds=None if output is None else output.bounds,
    )


def _check_same(
    where: str, name: str, given: Sequence[Any], own: Sequence[Any], source: ImageSource
) -> None:
    """Refuses an argument that contradicts the source."""
    for row, (left, right) in enumerate(zip(given, own, strict=True)):
        if left != right:
            raise ValueError(
                f"{where}: {name} and source contradict each other: {left!r} and {right!r} for "
                f"image {row} ({source.ids[row]!r}). Leave {name} out"
            )


def _indices_by_name(names: Sequence[str]) -> dict[str, list[int]]:
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        indices[name].append(index)
    return dict(indices)


def _agreed(where: str, things: str, **counts: int | None) -> int:
    """The one number that the arguments which were given agree on."""
    given = {name: count for name, count in counts.items() if count is not None}
    if not given:
        raise ValueError(
            f"{where}: the number of {things} is not known. Give {' or '.join(counts)}"
        )
    if len(set(given.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in given.items())
        raise ValueError(
            f"{where}: arguments must agree on the number of {things}; found {found}. "
            "Correct the odd one"
        )
    return next(iter(given.values()))


def _checked_labels(labels: np.ndarray, classes: int, where: str) -> np.ndarray:
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise ValueError(
            f"{where}: labels must be int [B]; they are {labels.dtype} {list(labels.shape)}. "
            "Give one class index per image"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"{where}: labels must be 0 to {classes - 1}; image {wrong[0]} has {labels[wrong[0]]}. "
            "Leave labels out where images have none"
        )
    return labels.astype(np.int64)


def _checked_probs(probs: np.ndarray, classes: int, where: str) -> np.ndarray:
    if probs.shape[1:] != (classes,) or not np.isfinite(probs).all():
        raise ValueError(
            f"{where}: source_probs must be [B, {classes}] and finite; they are "
            f"{list(probs.shape)} with {np.sum(~np.isfinite(probs))} values not finite. "
            "Give the classifier's output on the source images"
        )
    return probs


def target_rows(text: str, context: Context) -> np.ndarray:
    """The targets that the text asks for, float32 [n, K]; masked where it has `rest`."""
    terms = _distribution(text, context.where)
    fixed = [(name, weight) for name, weight in terms if name not in DRAWN_OR_SHARED]
    drawn = [weight for name, weight in terms if name == "random"]
    spread = sum(weight for name, weight in terms if name == "uniform")
    # `top` changes what `runnerup` means: together they are the first two choices, never one class.
    beside_top = "top" in dict(terms)
    classes = [named_classes(name, context, beside_top=beside_top) for name, _ in fixed]
    avoided = classes + ([] if context.labels is None else [context.labels])
    classes += distinct_classes(
        len(drawn),
        context.num_classes,
        avoided,
        seed=context.seed,
        ids=context.ids,
        where=context.where,
    )
    images = np.arange(len(context.ids))
    shape = len(images), context.num_classes
    rows = np.full(shape, spread / context.num_classes, np.float32)
    for indices, weight in zip(classes, [*(w for _, w in fixed), *drawn], strict=True):
        rows[images, indices] += np.float32(weight)
    if "rest" not in dict(terms):
        return rows
    if spread:
        raise ValueError(
            f"{context.where}: 'uniform' names every class and leaves none for 'rest'. Write one of them"
        )
    free = np.ones(shape, bool)
    for indices in classes:
        free[images, indices] = False
    return np.ma.masked_array(rows, free)


def terms_in(text: str, where: str) -> list[tuple[str, float]]:
    """The pairs (name, value) of the text."""
    if text.strip() and "=" not in text and "," not in text:
        return [(text.strip(), 1.0)]
    terms = []
    for term in text.split(","):
        name, _, written = term.partition("=")
        try:
            value = float(written)
        except ValueError:
            raise ValueError(
                f"{where}: expected name=weight, got {term.strip()!r}. "
                "Write pairs such as 'true=0.9,random=0.1'"
            ) from None
        terms.append((name.strip(), value))
    return terms


def _distribution(text: str, where: str) -> list[tuple[str, float]]:
    """The pairs (name, weight) of the text, the weights divided by their sum."""
    terms = terms_in(text, where)
    for name, weight in terms:
        if not 0 <= weight < np.inf:
            raise ValueError(
                f"{where}: weights must be 0 or more; {name!r} has {weight:g}. "
                "Write pairs such as 'true=0.9,random=0.1'"
            )
    total = sum(weight for _, weight in terms)
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise ValueError(
            f"{where}: weights must sum to 1; those of {text!r} sum to {total:.6g}. "
            "Change them, or give the rest to 'uniform'; for labels that are independent, give "
            "output=og.outputs.sigmoid()"
        )
    return [(name, weight / total) for name, weight in terms]


def named_classes(name: str, context: Context, *, beside_top: bool) -> np.ndarray:
    """The class that a name stands for on each image, int64 [n]."""
    if name not in ("true", "top", "runnerup"):
        return np.full(len(context.ids), class_index(name, context))
    if name == "true":
        if context.labels is None:
            raise ValueError(
                f"{context.where}: 'true' needs labels and there are none. Give labels, or write "
                "'top', the classifier's first choice"
            )
        _check_labelled(context, context.labels)
        return context.labels
    if context.source_probs is None:
        raise ValueError(
            f"{context.where}: {name!r} needs the classifier's output on the source images. "
            "Give source_probs"
        )
    top: np.ndarray = np.argmax(context.source_probs, axis=1)
    if name == "top":
        return top
    if context.num_classes < 2:
        raise ValueError(f"{context.where}: 'runnerup' needs two classes or more; there is one")
    first = top
    if context.labels is not None and not beside_top:
        first = np.where(context.labels < context.num_classes, context.labels, top)
    others = context.source_probs.copy()
    others[np.arange(len(others)), first] = -np.inf
    runnerup: np.ndarray = np.argmax(others, axis=1)
    return runnerup


def _check_labelled(context: Context, labels: np.ndarray) -> None:
    """Refuses 'true' where the label of an image is no class of the classifier's."""
    without = np.flatnonzero(labels >= context.num_classes)
    if not without.size:
        return
    names = [] if context.lacking is None else list(dict.fromkeys(context.lacking[without]))
    missing = [repr(str(name)) for name in names if name]
    if not missing:
        raise ValueError(
            f"{context.where}: 'true' needs the label of every image; {context.ids[without[0]]!r} "
            "has none. Leave such images out (source.take), or write 'top'"
        )
    raise ValueError(
        f"{context.where}: 'true' needs classes that the classifier has; it lacks the source's "
        f"{listed(missing)}. Rename them with source._replace(class_names=...), leave their "
        "images out with source.take(rows), or write 'top', the classifier's first choice"
    )


def class_index(name: str, context: Context) -> int:
    """The index of a class, from its exact name, its index or its name in another case."""
    matches = context.exact.get(name)
    if matches is None and name.isascii() and name.isdigit() and int(name) < context.num_classes:
        return int(name)
    if matches is None:
        matches = context.folded.get(name.casefold(), [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(
            f"{context.where}: {name!r} is the name of classes {' and '.join(map(str, matches))}. "
            "Write the index of the one you mean"
        )
    known = {word.casefold(): word for word in (*WORDS, *context.exact) if word != name}
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    raise ValueError(
        f"{context.where}: no class {name!r}"
        + (f"; did you mean {known[near[0]]!r}? " if near else ". ")
        + (
            f"Classes: {listed(list(context.exact))}"
            if context.exact
            else f"Write an index from 0 to {context.num_classes - 1}, or give class_names"
        )
    )


def listed(names: Sequence[str]) -> str:
    """The names for a message, the first few if they are many."""
    more = f", ... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
