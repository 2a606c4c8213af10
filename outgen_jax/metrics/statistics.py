"""Confidence intervals and paired tests, in float64 on the host.

Across seeds: `mean_interval` of one arm, `paired_t_test` of two that share their seeds, `welch_t_test` of two that do
not. Across images: `mcnemar` for two classifiers. `bootstrap_interval` for whatever is computed from a set of rows,
`jackknife_interval` where no row may be drawn twice. P-values are two-sided and each for one comparison: of many arms
tested, some will come out small by chance, for which `multiple_testing.holm` corrects.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """An estimate and its confidence interval; numbers, or arrays where the estimate is one.

    Attributes:
      estimate: a number or an array.
      low: the interval's lower end, like the estimate.
      high: its upper end.
    """

    estimate: Any
    low: Any
    high: Any


class PairedTTest(NamedTuple):
    """Mean of a − b over pairs, its confidence interval, and Student's test of its being 0.

    Attributes:
      difference: the mean of a − b.
      low: the interval's lower end.
      high: its upper end.
      statistic: difference over its standard error; ±inf where all differences are alike.
      p_value: two-sided.
    """

    difference: float
    low: float
    high: float
    statistic: float
    p_value: float


class WelchTTest(NamedTuple):
    """Difference of two means, a − b, its confidence interval, and Welch's test of its being 0.

    Attributes:
      difference: the mean of a less that of b.
      low: the interval's lower end.
      high: its upper end.
      p_value: two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


class McNemar(NamedTuple):
    """McNemar's test: the examples that only one of two classifiers gets right.

    Attributes:
      only_a: examples that only the first classifier gets right.
      only_b: examples that only the second one gets right.
      p_value: two-sided.
    """

    only_a: int
    only_b: int
    p_value: float


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    r"""Mean over seeds with Student's t interval.

    .. math:: \bar v \pm t_{n-1}\, s / \sqrt n

    Args:
      values: [n] or [n, ...], one entry per seed on the first axis.
      confidence: of the interval, in (0, 1).

    Raises:
      ValueError: fewer than 2 seeds, values that are not finite, or a confidence outside (0, 1).

    >>> import outgen_jax as og
    >>> round(float(og.metrics.mean_interval([1.0, 2.0, 3.0]).low), 3)
    -0.484
    """
    v = _sample(values, caller="mean_interval", name="values")
    half = _t_quantile(len(v) - 1, confidence, "mean_interval") * _standard_error(v)
    mean = v.mean(0)
    return Interval(mean, mean - half, mean + half)


def paired_t_test(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedTTest:
    """Student's t-test of the differences a − b, entry i of both from the same seed or item.

    Args:
      a: [n], for example an arm's accuracies.
      b: [n], the baseline's.
      confidence: of the interval, in (0, 1).

    Raises:
      ValueError: fewer than 2 entries, values that are not finite, a confidence outside (0, 1), or lengths that differ.

    >>> import outgen_jax as og
    >>> round(og.metrics.paired_t_test([2.0, 3.0, 5.0], [1.0, 1.0, 2.0]).p_value, 3)
    0.074
    """
    a = _sample(a, caller="paired_t_test", name="a")
    b = _sample(b, caller="paired_t_test", name="b")
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"paired_t_test: a and b must have the same shape [n], got {list(a.shape)} and {list(b.shape)}; "
            "keep the seeds that both have, in the same order"
        )
    mean, low, high = map(float, mean_interval(a - b, confidence=confidence))
    statistic = _ratio(mean, float(_standard_error(a - b)))
    p_value = float(2 * scipy.special.stdtr(len(a) - 1, -abs(statistic)))
    return PairedTTest(mean, low, high, statistic, p_value)


def welch_t_test(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> WelchTTest:
    r"""Welch's t-test (1947) of the means of two independent samples, whose variances may differ.

    .. math:: \nu = \frac{(e_a^2 + e_b^2)^2}{e_a^4 / (n_a - 1) + e_b^4 / (n_b - 1)}

    degrees of freedom, with e the standard errors of the means.

    Args:
      a: [n], for example an arm's scores, one for each seed.
      b: [m], another arm's, from seeds of its own.
      confidence: of the interval, in (0, 1).

    Raises:
      ValueError: fewer than 2 entries, values that are not finite, another rank, or a confidence outside (0, 1).

    >>> import outgen_jax as og
    >>> round(og.metrics.welch_t_test([2.0, 3.0, 5.0], [1.0, 1.0, 2.0]).p_value, 3)
    0.139
    """
    a = _sample(a, caller="welch_t_test", name="a")
    b = _sample(b, caller="welch_t_test", name="b")
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(
            f"welch_t_test: a and b must be [n] and [m], got {list(a.shape)} and {list(b.shape)}; "
            "test one measure at a time"
        )
    mean = float(a.mean() - b.mean())
    squares = [float(_standard_error(v)) ** 2 for v in (a, b)]
    error, parts = sum(squares) ** 0.5, zip(squares, (a, b), strict=True)
    spread = sum(s**2 / (len(v) - 1) for s, v in parts)
    degrees = error**4 / spread if spread else 1.0
    half = _t_quantile(degrees, confidence, "welch_t_test") * error
    p_value = float(2 * scipy.special.stdtr(degrees, -abs(_ratio(mean, error))))
    return WelchTTest(mean, mean - half, mean + half, p_value)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test (1947): are two classifiers equally often right on the same examples?

    Only the examples that one alone gets right count; under the hypothesis each is a fair coin's throw. They must be
    independent: pool no seeds, for whose repeated images the p-value would be far too small.

    Args:
      correct_a: bool [n], whether classifier a is right on each example.
      correct_b: bool [n].

    Raises:
      ValueError: not bool, empty, or shapes that differ.

    >>> import numpy as np
    >>> import outgen_jax as og
    >>> og.metrics.mcnemar(np.array([True, True, True]), np.array([False, False, True])).only_a
    2
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(
            f"mcnemar: correct_a and correct_b must be bool [n] of the same examples, got {a.dtype} {list(a.shape)} "
            f"and {b.dtype} {list(b.shape)}; compare predictions to labels first: predicted == labels"
        )
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    tail = scipy.special.bdtr(min(only_a, only_b), only_a + only_b, 0.5) if only_a + only_b else 1
    return McNemar(only_a, only_b, min(1.0, float(2 * tail)))


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: ArrayLike,
    paired: bool | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    method: str = "percentile",
    seed: int = 0,
) -> Interval:
    """Interval of any statistic by resampling rows with replacement (Efron 1979).

    "percentile" takes the quantiles of the resampled statistic. Copied rows raise every distance between sets of
    features (`frechet_distance`, `kernel_distance`), so that the interval may lie above the estimate. "basic" mirrors
    the quantiles at the estimate, which corrects for that; it may then lie below. Neither is reliable with few rows.

    Args:
      statistic: of the samples, in their order; returns a number, an array, or a NamedTuple of numbers.
      *samples: [n, ...] each, resampled along their first axis. To hold one fixed, bind it with `functools.partial`.
      paired: whether row i of all samples is one item, drawn together (probabilities and labels), or each sample is
        drawn apart (real and fake features). Needed where there are several.
      confidence: of the interval, in (0, 1).
      resamples: number of draws.
      method: "percentile" or "basic".
      seed: of the draws.

    Raises:
      ValueError: no samples, one of fewer than 2 rows, paired ones of different lengths, or an option out of range.

    >>> import numpy as np
    >>> import outgen_jax as og
    >>> found = og.metrics.bootstrap_interval(np.mean, [1.0, 2.0, 3.0, 4.0])
    >>> bool(found.low < found.estimate < found.high)
    True
    """
    rows = [np.asarray(sample) for sample in samples]
    _check_bootstrap(rows, paired, resamples, method)
    tail = (1 - _in_unit(confidence, "bootstrap_interval")) / 2
    rng = np.random.default_rng(seed)
    estimate = np.asarray(statistic(*rows), np.float64)
    draws = np.empty((resamples, *estimate.shape))
    for i in range(resamples):
        if paired:
            chosen = [rng.integers(len(rows[0]), size=len(rows[0]))] * len(rows)
        else:
            chosen = [rng.integers(len(sample), size=len(sample)) for sample in rows]
        draws[i] = statistic(*(sample[c] for sample, c in zip(rows, chosen, strict=True)))
    low, high = np.quantile(draws, (tail, 1 - tail), axis=0)
    if method == "basic":
        low, high = 2 * estimate - high, 2 * estimate - low
    return Interval(estimate[()], low, high)


def jackknife_interval(
    statistic: Callable[[np.ndarray], Any],
    rows: ArrayLike,
    *,
    groups: int = 10,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    r"""Interval of any statistic from leaving out a random group of rows at a time (Quenouille 1956, Tukey 1958).

    .. math:: \hat\theta \pm t_{g-1} \sqrt{\frac{(n - d)^2}{n d (g - 1)} \sum_j (\theta_{(j)} - \bar\theta)^2}

    No row is drawn twice, as distances between sets of features need it, where a row's copy is its nearest neighbour.
    The statistic must be smooth in the rows: a median is not.

    Args:
      statistic: of the rows; returns a number, or an array or NamedTuple of numbers.
      rows: [n, ...].
      groups: g, of d = ⌊n/g⌋ rows each; the rest of the rows is never left out. The factor makes the interval of a mean
        right, also with a rest; without one it is the usual (g − 1)/g.
      confidence: of the interval, in (0, 1).
      seed: of who is in which group.

    Raises:
      ValueError: fewer than 2 groups, fewer rows than groups, or a confidence outside (0, 1).

    >>> import numpy as np
    >>> import outgen_jax as og
    >>> round(float(og.metrics.jackknife_interval(np.mean, np.arange(20.0)).estimate), 3)
    9.5
    """
    rows = np.asarray(rows)
    if not 2 <= groups <= (len(rows) if rows.ndim else 0):
        raise ValueError(
            f"jackknife_interval: groups must be from 2 to the number of rows, got {groups} and rows of shape "
            f"{list(rows.shape)}; 10 are usual"
        )
    order, size = np.random.default_rng(seed).permutation(len(rows)), len(rows) // groups
    kept = [np.delete(order, slice(j * size, (j + 1) * size)) for j in range(groups)]
    without = np.stack([np.asarray(statistic(rows[k]), np.float64) for k in kept])  # [g, ...]
    error = (len(rows) - size) / np.sqrt(len(rows) * size) * without.std(0, ddof=1)
    half = _t_quantile(groups - 1, confidence, "jackknife_interval") * error
    estimate = np.asarray(statistic(rows), np.float64)[()]
    return Interval(estimate, estimate - half, estimate + half)


def _check_bootstrap(
    rows: list[np.ndarray], paired: bool | None, resamples: int, method: str
) -> None:
    caller = "bootstrap_interval"
    shapes = [list(sample.shape) for sample in rows]
    if not rows or any(sample.ndim == 0 or len(sample) < 2 for sample in rows):
        raise ValueError(
            f"{caller}: needs samples of at least 2 rows each, got shapes {shapes}; give more rows"
        )
    if len(rows) > 1 and paired is None:
        raise ValueError(
            f"{caller}: paired must say how {len(rows)} samples are drawn; paired=True keeps row i of all together "
            "(probabilities and labels), paired=False draws each apart (real and fake)"
        )
    if paired and len({len(sample) for sample in rows}) > 1:
        raise ValueError(
            f"{caller}: paired samples must be of one length, got shapes {shapes}; use paired=False "
            "for independent samples"
        )
    if resamples < 1:
        raise ValueError(
            f"{caller}: resamples must be at least 1, got {resamples}; 1,000 or more give a usable interval"
        )
    if method not in ("percentile", "basic"):
        raise ValueError(f"{caller}: unknown method {method!r}; use one of percentile, basic")


def _standard_error(v: np.ndarray) -> np.ndarray:
    error: np.ndarray = v.std(0, ddof=1) / len(v) ** 0.5
    return error


def _ratio(mean: float, error: float) -> float:
    if error == 0:  # alike in every pair
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / error


def _t_quantile(degrees: float, confidence: float, caller: str) -> float:
    """Of Student's distribution: what |t| stays below with probability `confidence`."""
    return float(scipy.special.stdtrit(degrees, (1 + _in_unit(confidence, caller)) / 2))


def _in_unit(confidence: float, caller: str) -> float:
    if not 0 < confidence < 1:
        raise ValueError(
            f"{caller}: confidence must lie between 0 and 1, got {confidence}; 0.95 is usual"
        )
    return confidence


def _sample(values: ArrayLike, *, caller: str, name: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError(
            f"{caller}: {name} has masked entries, which have no value; leave them out, values.compressed(), on both "
            "sides of a comparison"
        )
    v = np.asarray(values, np.float64)
    if v.ndim == 0 or len(v) < 2:
        raise ValueError(
            f"{caller}: {name} must have at least 2 entries, got shape {list(v.shape)}; run more seeds"
        )
    if not np.isfinite(v).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(v))[0])
        raise ValueError(
            f"{caller}: {name} must be finite; entry {list(at)} is {v[at]}. "
            "Report a failed seed apart, and leave it out of both sides of a comparison"
        )
    return v
