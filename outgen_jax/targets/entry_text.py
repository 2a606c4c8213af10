"""Target texts for `og.outputs.sigmoid()` and `og.outputs.values()`, where every entry has a value of its own.

The grammar is the same, with these differences:

- Values need not sum to 1. A name may appear only once.
- Entries that are not named are free.
- `rest=0.1` gives all entries that are not named the value 0.1.
- `uniform` is an error. For `og.outputs.values()`, so are `true`, `top`, `runnerup` and `random`.
"""

from collections.abc import Sequence

import numpy as np

from outgen_jax.targets.context import Context
from outgen_jax.targets.text import class_terms, terms_in


def entry_rows(text: str, context: Context) -> np.ma.MaskedArray:
    """The targets that the text asks for, float32 [n, K], masked where they are free."""
    terms = terms_in(text, context.caller)
    _check_terms(terms, text, context)
    images, shape = np.arange(len(context.ids)), (len(context.ids), context.num_classes)
    rows = np.ma.masked_all(shape, np.float32)
    rows.data[:] = 0
    values = dict(terms)
    if "rest" in values:
        rows[:] = values["rest"]
    taken = np.zeros(shape, bool)
    for classes, value in class_terms(terms, context):
        both = np.flatnonzero(taken[images, classes])
        if both.size:
            raise ValueError(
                f"{context.caller}: two names of {text!r} mean entry {classes[both[0]]} on image "
                f"{context.ids[both[0]]!r}. Remove one"
            )
        rows[images, classes] = value
        taken[images, classes] = True
    return rows


def check_values(values: np.ma.MaskedArray, context: Context, numbers: list[int]) -> None:
    """Refuses values [n, K], masked where free, outside the output's bounds; messages call the rows by `numbers`."""
    wrong = np.argwhere(~_is_valid(values.data, context) & ~np.ma.getmaskarray(values))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{context.caller}: {_expected(context)}; row {numbers[row]} has {values[row, column]:g} for entry "
            f"{column}. Correct it, or leave the cell empty: the entry is then free"
        )


def _check_terms(terms: Sequence[tuple[str, float]], text: str, context: Context) -> None:
    """Refuses a name that is there twice, and values or words that the output cannot have."""
    names = [name for name, _ in terms]
    twice = [name for name in names if names.count(name) > 1 and name != "random"]
    if twice:
        raise ValueError(f"{context.caller}: {twice[0]!r} is named twice in {text!r}. Remove one")
    for name, value in terms:
        _check_entry(name, value, context)


def _check_entry(name: str, value: float, context: Context) -> None:
    if not _is_valid(np.array(value), context):
        raise ValueError(
            f"{context.caller}: {_expected(context)}; {name!r} has {value:g}. Write pairs such as 'cat=0.9,dog=0.2'"
        )
    is_number = context.form == "numbers"
    if name == "uniform" or (is_number and name in ("true", "top", "runnerup", "random")):
        raise ValueError(
            f"{context.caller}: {name!r} is a word for distributions. Name entries; 'rest' is all the others"
        )


def _is_valid(values: np.ndarray, context: Context) -> np.ndarray:
    """Which values the output can have, as float32."""
    assert context.bounds is not None
    low, high = context.bounds
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(values.astype(np.float32))
    found: np.ndarray = is_finite & (values >= low) & (values <= high)
    return found


def _expected(context: Context) -> str:
    """What values the output can have."""
    assert context.bounds is not None
    low, high = context.bounds
    if context.form == "labels":
        return "probabilities of labels must lie in [0, 1]"
    if (low, high) == (-np.inf, np.inf):
        return "numbers must be finite in float32"
    return f"numbers must lie in [{low:g}, {high:g}]"
