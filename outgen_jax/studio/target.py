"""The bars of a target: whole tenths of a percent, which sum to 1 as long as they are a distribution's.

Whole numbers keep the sum exact, whatever is moved how often. A bar stands for one class, or for all classes that have
no bar of their own ("rest", free to share what the bar leaves them).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from outgen_jax.targets.names import composed
from outgen_jax.targets.text import WORDS

TOTAL = 1000  # a probability of 1
REST = -1  # the entry of the bar of all other classes
_NAMED_AT_FIRST = 3


@dataclasses.dataclass(frozen=True)
class Bar:
    """What is wanted of one entry of the output."""

    entry: int  # the class, or `REST`
    value: int  # in tenths of a percent
    locked: bool = False  # other bars leave it as it is


Bars = tuple[Bar, ...]


def apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in the proportion of `weights` that sum to `total`, by largest remainders.

    Weights that are all 0 share alike.

    >>> apportioned(1000, [1, 1, 1])
    [334, 333, 333]
    """
    weights = weights if sum(weights) > 0 else [1] * len(weights)
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def every_class(probs: Sequence[float]) -> Bars:
    """A bar for each class, at a distribution [K]."""
    return tuple(Bar(k, value) for k, value in enumerate(apportioned(TOTAL, list(probs))))


def likeliest(probs: np.ndarray) -> Bars:
    """Bars for the likeliest classes of a distribution [K], and one for the rest."""
    entries = np.argsort(-probs, kind="stable")[:_NAMED_AT_FIRST]
    shares = [*probs[entries], max(0, 1 - probs[entries].sum())]
    values = apportioned(TOTAL, [float(share) for share in shares])
    return tuple(Bar(int(k), v) for k, v in zip([*entries, REST], values, strict=True))


def independent(probs: Sequence[float]) -> Bars:
    """A bar for each label, at its probability [L]; they have no sum to keep."""
    return tuple(Bar(k, round(TOTAL * float(p))) for k, p in enumerate(probs))


def moved(bars: Bars, place: int, value: int, *, sums_to_one: bool = True) -> Bars:
    """The bars with one at `value`, as near as the locked ones allow; the others keep their proportions.

    >>> bars = (Bar(0, 500), Bar(1, 300), Bar(2, 200, locked=True))
    >>> [bar.value for bar in moved(bars, 0, 700)]
    [700, 100, 200]
    """
    if bars[place].locked:
        return bars
    value = min(max(value, 0), TOTAL)
    if not sums_to_one:
        return _with_values(bars, {place: value})
    others = [i for i, bar in enumerate(bars) if i != place and not bar.locked]
    room = TOTAL - sum(bar.value for i, bar in enumerate(bars) if i != place and bar.locked)
    value = min(value, room) if others else room
    shares = apportioned(room - value, [bars[i].value for i in others]) if others else []
    return _with_values(bars, {place: value, **dict(zip(others, shares, strict=True))})


def with_lock(bars: Bars, place: int, locked: bool) -> Bars:
    """The bars with one locked or not."""
    changed = dataclasses.replace(bars[place], locked=locked)
    return (*bars[:place], changed, *bars[place + 1 :])


def with_class(bars: Bars, entry: int, num_entries: int) -> Bars:
    """The bars with one more, at 0, before that of the rest; one that is there already stays.

    The last of all entries takes the place of the rest: it is what the rest was.

    >>> [bar.entry for bar in with_class((Bar(3, 600), Bar(REST, 400)), 7, 10)]
    [3, 7, -1]
    >>> with_class((Bar(0, 600), Bar(REST, 400)), 1, 2)[1]
    Bar(entry=1, value=400, locked=False)
    """
    if any(bar.entry == entry for bar in bars):
        return bars
    named, rest = _apart(bars)
    if rest is not None and len(named) == num_entries - 1:
        return (*named, dataclasses.replace(rest, entry=entry))
    return (*named, Bar(entry, 0), *(() if rest is None else (rest,)))


def without(bars: Bars, place: int) -> Bars:
    """The bars without one; the rest takes what it had. The bar of the rest stays, or comes back.

    >>> without((Bar(0, 600), Bar(1, 400)), 0)
    (Bar(entry=1, value=400, locked=False), Bar(entry=-1, value=600, locked=False))
    """
    if bars[place].entry == REST:
        return bars
    named, rest = _apart((*bars[:place], *bars[place + 1 :]))
    rest = Bar(REST, 0) if rest is None else rest
    return (*named, dataclasses.replace(rest, value=rest.value + bars[place].value))


def _apart(bars: Bars) -> tuple[Bars, Bar | None]:
    """The bars of single entries, and that of the rest where there is one."""
    named = tuple(bar for bar in bars if bar.entry != REST)
    return named, next((bar for bar in bars if bar.entry == REST), None)


def as_array(bars: Bars, num_entries: int) -> np.ma.MaskedArray:
    """The target [K] as `synthesize` takes it; entries without a bar are masked where the rest has a share.

    >>> as_array((Bar(1, 750), Bar(REST, 250)), 3).tolist()
    [None, 0.75, None]
    """
    free = any(bar.entry == REST and bar.value > 0 for bar in bars)
    target = np.ma.array(np.zeros(num_entries), mask=np.full(num_entries, free))
    for bar in bars:
        if bar.entry != REST:
            target[bar.entry] = bar.value / TOTAL
    return target


def as_text(bars: Bars, class_names: Sequence[str], *, sums_to_one: bool = True) -> str:
    """The target as `og.targets.parse` reads it; classes that share their name are given by index.

    >>> as_text((Bar(0, 600), Bar(1, 0), Bar(REST, 400)), ["cat", "dog", "ship"])
    'cat=0.6,dog=0,rest=0.4'
    """
    rest = any(bar.entry == REST and bar.value > 0 for bar in bars)
    terms = []
    for bar in bars:
        if bar.entry == REST:
            terms += [f"rest={bar.value / TOTAL:g}"] if rest else []
        elif bar.value or rest or not sums_to_one:
            terms.append(f"{written(bar.entry, class_names)}={bar.value / TOTAL:g}")
    return ",".join(terms)


def written(entry: int, class_names: Sequence[str]) -> str:
    """What `og.targets.parse` calls an entry: its name, or its index where the name could be misread.

    An index that is the name of another entry gets zeros in front.

    >>> written(0, ["cat", "dog"]), written(1, ["cat", "rest"]), written(1, ["1", "dog "])
    ('cat', '1', '01')
    """
    known = [composed(name) for name in class_names]
    name, index = known[entry], str(entry)
    is_plain = name == name.strip() != "" and not set(name) & set(",=") and name not in WORDS
    if is_plain and known.count(name) == 1:
        return class_names[entry]
    while index in known:
        index = f"0{index}"
    return index


def _with_values(bars: Bars, values: dict[int, int]) -> Bars:
    return tuple(
        dataclasses.replace(bar, value=values[i]) if i in values else bar
        for i, bar in enumerate(bars)
    )
