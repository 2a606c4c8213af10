"""The numbers of a target: each is free until it is moved or checked. And the ends of their bars.

A number is in the network's own units. Bars move in steps of a power of ten; a field takes any finite number.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from outgen_jax.studio import target

LARGEST = float(np.finfo(np.float32).max)
# Arrow keys move by ten steps. A bar has 20 to 200 such moves.
_FEWEST_MOVES = 20
_DIGITS = 3  # of the unit, so that texts show it whole


@dataclasses.dataclass(frozen=True)
class Number:
    """What is wanted of one output."""

    entry: int
    value: float
    free: bool = True  # the network may say anything


Numbers = tuple[Number, ...]


class Range(NamedTuple):
    """The ends of a bar, which are whole steps of 10^-decimals."""

    low: float
    high: float
    decimals: int


def covering(low: float, high: float) -> Range:
    """The range from `low` to `high`, rounded outwards to whole steps.

    >>> covering(-1.23456, 2.5)
    Range(low=-1.24, high=2.5, decimals=2)
    """
    decimals = 1 - math.floor(math.log10((high - low) / _FEWEST_MOVES))
    step = 10.0**-decimals
    ends = math.floor(low / step) * step, math.ceil(high / step) * step
    return Range(round(ends[0], decimals), round(ends[1], decimals), decimals)


def ranges(says: np.ndarray) -> tuple[Range, ...]:
    """For outputs [n, K] on some images, K ranges twice as wide as the outputs'.

    An output that is the same on all images gets a range of its own size.

    >>> ranges(np.array([[0.0, 5.0], [1.0, 5.0]]))
    (Range(low=-0.5, high=1.5, decimals=2), Range(low=0.0, high=10.0, decimals=2))
    """
    low, high = says.min(0).tolist(), says.max(0).tolist()
    margins = [(b - a) / 2 or abs(a) or 1.0 for a, b in zip(low, high, strict=True)]
    return tuple(covering(a - m, b + m) for a, b, m in zip(low, high, margins, strict=True))


def given(ends: Sequence[Sequence[float]], count: int) -> tuple[Range, ...]:
    """The ranges of `count` outputs from pairs of their ends; raises ValueError for what are no such pairs.

    >>> given([[-2, 2.5]], 1)
    (Range(low=-2.0, high=2.5, decimals=2),)
    """
    pairs = np.asarray(ends, np.float64)
    if (
        pairs.shape != (count, 2)
        or not np.isfinite(pairs).all()
        or (pairs[:, 0] >= pairs[:, 1]).any()
    ):
        raise ValueError(f"expected {count} pairs of numbers, least first, got {ends!r}")
    return tuple(covering(low, high) for low, high in pairs.tolist())


def unit(says: np.ndarray) -> float:
    """The standard deviation of outputs [n, K] over images, averaged over the outputs; 1 if they are all the same.

    >>> unit(np.array([[0.0, 10.0], [1.0, 14.0]]))
    1.25
    """
    return float(f"{says.std(0).mean():.{_DIGITS}g}") or 1.0


def including(found: Range, value: float) -> Range:
    """The range, widened where `value` lies outside."""
    if found.low <= value <= found.high:
        return found
    return covering(min(found.low, value), max(found.high, value))


def first(says: Sequence[float], found: Sequence[Range]) -> Numbers:
    """A free number for each output, at what the network says, in whole steps.

    >>> first([0.4567], [Range(0, 1, 2)])
    (Number(entry=0, value=0.46, free=True),)
    """
    pairs = zip(says, found, strict=True)
    return tuple(Number(k, round(float(v), r.decimals)) for k, (v, r) in enumerate(pairs))


def prescribed(numbers: Numbers, place: int, value: float) -> Numbers:
    """The numbers with one at `value`, no longer free."""
    return _with(numbers, place, dataclasses.replace(numbers[place], value=value, free=False))


def left_free(numbers: Numbers, place: int, free: bool) -> Numbers:
    """The numbers with one free or not; its bar stays where it is."""
    return _with(numbers, place, dataclasses.replace(numbers[place], free=free))


def all_free(numbers: Numbers) -> bool:
    """Whether there are numbers, none of which is prescribed."""
    return bool(numbers) and all(number.free for number in numbers)


def as_array(numbers: Numbers) -> np.ma.MaskedArray:
    """The target [K] as `synthesize` takes it; free numbers are masked.

    >>> as_array((Number(0, 1.5), Number(1, -2.0, free=False))).tolist()
    [None, -2.0]
    """
    return np.ma.array([n.value for n in numbers], mask=[n.free for n in numbers])


def as_text(numbers: Numbers, names: Sequence[str]) -> str:
    """The target as `og.targets.parse` reads it; free numbers are not named.

    >>> as_text((Number(0, 1.5), Number(1, -2.0, free=False)), ["angle", "width"])
    'width=-2.0'
    """
    terms = (f"{target.written(n.entry, names)}={n.value!r}" for n in numbers if not n.free)
    return ",".join(terms)


def _with(numbers: Numbers, place: int, number: Number) -> Numbers:
    return (*numbers[:place], number, *numbers[place + 1 :])
