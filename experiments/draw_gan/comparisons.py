"""Presets compared over seeds: kinds of digit, as paper C means by "more varied", and scores.

The seeds of two presets are independent runs, so the tests are Welch's. All of a table are corrected together (Holm).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import outgen_jax as og

# a, b: what is said of a is compared with b.
PAIRS = (
    ("attention_n4", "attention"),
    ("attention_plus_n4", "attention_plus"),
    ("attention", "baseline"),
    ("baseline_plus", "baseline"),
    ("attention_plus", "baseline_plus"),
)
# Heading, value of a run's scores, digits after the point.
MEASURES = (
    ("kinds of digit", lambda scores: kinds(scores["digit_histogram"]), 2),
    ("FID", lambda scores: scores["fid"]["estimate"], 2),
    ("density", lambda scores: scores["density"]["estimate"], 3),
    ("recall", lambda scores: scores["recall"]["estimate"], 3),
    ("Laplacian variance", lambda scores: scores["laplacian_variance"]["estimate"], 3),
)


class Comparison(NamedTuple):
    """Two presets in one measure."""

    a: str
    b: str
    measure: str
    seeds: tuple[int, int]
    difference: float  # of the means, a − b
    low: float  # Welch's 95 % interval
    high: float
    p_value: float
    p_corrected: float  # Holm's, of all comparisons of the table
    digits: int  # to show


def kinds(histogram: Sequence[int]) -> float:
    """How many kinds of digit a set has, e to the entropy of their frequencies: 1 to 10 (Hill's number of order 1).

    As many equally frequent digits would have the same entropy, so that rare ones count little.

    >>> round(kinds([500, 500, 0, 0, 0, 0, 0, 0, 0, 0]), 2)
    2.0
    """
    shares = np.asarray(histogram, np.float64) / np.sum(histogram)
    return float(np.exp(-np.sum(shares * np.log(np.where(shares, shares, 1)))))


def kinds_interval(histogram: Sequence[int], *, resamples: int = 1000) -> og.metrics.Interval:
    """The number of kinds with a 95 % bootstrap interval over the images counted."""
    draws = np.random.default_rng(0).multinomial(
        np.sum(histogram), np.asarray(histogram) / np.sum(histogram), size=resamples
    )
    low, high = np.quantile([kinds(draw) for draw in draws], (0.025, 0.975))
    return og.metrics.Interval(kinds(histogram), float(low), float(high))


def comparisons(presets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Comparison]:
    """All `PAIRS` of which both have two seeds or more with scores; without those in which no seed differs."""
    found = []
    for a, b in PAIRS:
        sides = [[run["scores"] for run in presets.get(x, ()) if "scores" in run] for x in (a, b)]
        if min(map(len, sides)) < 2:
            continue
        for measure, value, digits in MEASURES:
            ours, theirs = ([value(scores) for scores in side] for side in sides)
            if np.ptp(ours) == np.ptp(theirs) == 0:
                continue
            test = og.metrics.welch_t_test(ours, theirs)
            number = (len(ours), len(theirs))
            found.append(Comparison(a, b, measure, number, *test, test.p_value, digits))
    corrected = og.metrics.holm([c.p_value for c in found])
    return [c._replace(p_corrected=float(p)) for c, p in zip(found, corrected, strict=True)]
