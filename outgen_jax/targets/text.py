"""What a target written as text means for each of a batch of images.

The grammar stands in the header of `parsing`. Here are the classes that the names of a `Context` stand for. Classes
are int64 [n], targets are float32 [n, K], all numpy.
"""

import difflib
from collections.abc import Sequence

import numpy as np

from outgen_jax.targets.context import Context
from outgen_jax.targets.distributions import SUM_TOLERANCE
from outgen_jax.targets.draws import distinct_classes
from outgen_jax.targets.names import composed, folded

WORDS = ("true", "top", "runnerup", "random", "uniform", "rest")
DRAWN_OR_SHARED = ("random", "uniform", "rest")
LISTED = 10  # names that a message quotes before it cuts the list short
_MOST_DIGITS = 20  # of an index; Python refuses to read very long numbers


def target_rows(text: str, context: Context) -> np.ndarray:
    """The targets that the text asks for, float32 [n, K]; masked where it has `rest`."""
    terms = _distribution(text, context.caller)
    spread = sum(weight for name, weight in terms if name == "uniform")
    images = np.arange(len(context.ids))
    shape = len(images), context.num_classes
    rows = np.full(shape, spread / context.num_classes, np.float32)
    named = class_terms(terms, context)
    for classes, weight in named:
        rows[images, classes] += np.float32(weight)
    if "rest" not in dict(terms):
        return rows
    if spread:
        raise ValueError(
            f"{context.caller}: 'uniform' names every class and leaves none for 'rest'. Write one of them"
        )
    free = np.ones(shape, bool)
    for classes, _ in named:
        free[images, classes] = False
    without = np.flatnonzero(~free.any(1))
    if without.size and dict(terms)["rest"] > 0:
        raise ValueError(
            f"{context.caller}: 'rest' is for the classes that are not named, and {text!r} names every class for image "
            f"{context.ids[without[0]]!r}. Leave 'rest' out, and let the other weights sum to 1"
        )
    return np.ma.masked_array(rows, free)


def class_terms(
    terms: Sequence[tuple[str, float]], context: Context
) -> list[tuple[np.ndarray, float]]:
    """The classes [n] and the value of every term that stands for one class of an image, drawn ones last."""
    fixed = [(name, value) for name, value in terms if name not in DRAWN_OR_SHARED]
    drawn = [value for name, value in terms if name == "random"]
    values = [value for _, value in fixed] + drawn
    # `top` changes what `runnerup` means: together they are the first two choices, never one class.
    beside_top = "top" in dict(fixed)
    classes = [named_classes(name, context, beside_top=beside_top) for name, _ in fixed]
    labels = [] if context.labels is None else [context.labels]
    classes += distinct_classes(
        len(drawn),
        context.num_classes,
        avoided=classes + labels,
        seed=context.seed,
        ids=context.ids,
        caller=context.caller,
    )
    return list(zip(classes, values, strict=True))


def terms_in(text: str, caller: str) -> list[tuple[str, float]]:
    """The pairs (name, value) of the text."""
    if text.strip() and "=" not in text and "," not in text:
        return [(text.strip(), 1.0)]
    terms = []
    for term in text.split(","):
        name, _, written = term.partition("=")
        try:
            value = float(written)
        except ValueError:
            is_percentage = written.strip().endswith("%")
            remedy = "0.6 for 60%" if is_percentage else "pairs such as 'true=0.9,random=0.1'"
            raise ValueError(
                f"{caller}: expected name=weight, got {term.strip()!r}. Write {remedy}"
            ) from None
        terms.append((name.strip(), value))
    return terms


def _distribution(text: str, caller: str) -> list[tuple[str, float]]:
    """The pairs (name, weight) of the text, the weights divided by their sum."""
    terms = terms_in(text, caller)
    for name, weight in terms:
        if not 0 <= weight < np.inf:
            raise ValueError(
                f"{caller}: weights must be 0 or more; {name!r} has {weight:g}. "
                "Write pairs such as 'true=0.9,random=0.1'"
            )
    total = sum(weight for _, weight in terms)
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise ValueError(
            f"{caller}: weights must sum to 1; those of {text!r} sum to {total:.6g}. "
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
                f"{context.caller}: 'true' needs labels and there are none. Give labels, or write "
                "'top', the classifier's first choice"
            )
        _check_labelled(context, context.labels)
        return context.labels
    if context.source_probs is None:
        raise ValueError(
            f"{context.caller}: {name!r} needs the classifier's output on the source images. "
            "Give source_probs"
        )
    top: np.ndarray = np.argmax(context.source_probs, axis=1)
    if name == "top":
        return top
    if context.num_classes < 2:
        raise ValueError(f"{context.caller}: 'runnerup' needs two classes or more; there is one")
    first = top
    if context.labels is not None and not beside_top:
        first = np.where(context.labels < context.num_classes, context.labels, top)
    others = context.source_probs.copy()
    others[np.arange(len(others)), first] = -np.inf
    runnerup: np.ndarray = np.argmax(others, axis=1)
    return runnerup


def _check_labelled(context: Context, labels: np.ndarray) -> None:
    """Refuses 'true' where the label of an image is not a class of the classifier."""
    without = np.flatnonzero(labels >= context.num_classes)
    if not without.size:
        return
    names = [] if context.lacking is None else list(dict.fromkeys(context.lacking[without]))
    missing = [repr(str(name)) for name in names if name]
    if not missing:
        raise ValueError(
            f"{context.caller}: 'true' needs the label of every image; {context.ids[without[0]]!r} "
            "has none. Leave such images out (source.take), or write 'top'"
        )
    raise ValueError(
        f"{context.caller}: 'true' needs classes that the classifier has; it lacks the source's "
        f"{listed(missing)}. Rename them with source._replace(class_names=...), leave their "
        "images out with source.take(rows), or write 'top', the classifier's first choice"
    )


def class_index(name: str, context: Context) -> int:
    """The index of a class, from its exact name, its index or its name in another case."""
    name = composed(name)
    matches = context.exact.get(name)
    is_index = name.isascii() and name.isdigit() and len(name) < _MOST_DIGITS
    if matches is None and is_index and int(name) < context.num_classes:
        return int(name)
    if matches is None:
        matches = context.folded.get(folded(name), [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(
            f"{context.caller}: {name!r} is the name of classes {' and '.join(map(str, matches))}. "
            "Write the index of the one you mean"
        )
    known = {word.casefold(): word for word in (*WORDS, *context.exact) if word != name}
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    raise ValueError(
        f"{context.caller}: no class {name!r}"
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
