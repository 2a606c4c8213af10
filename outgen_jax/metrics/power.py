"""How many paired runs a claim needs, by the power of Student's paired t-test."""

import math

import numpy as np
import scipy.special

_REACH = 40  # the normal density beyond is 0 in float64
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def paired_power(
    pairs: int, difference: float, deviation: float, *, significance: float = 0.05
) -> float:
    r"""Probability that the two-sided paired t-test of n pairs finds a true difference δ.

    .. math:: P(|T| > t_{n-1,\,1-\alpha/2}), \quad T \sim t'_{n-1}(\sqrt n\, \delta / \sigma)

    T is noncentral: the differences are normal with mean δ and standard deviation σ. The probability is integrated
    numerically.

    >>> from outgen_jax.metrics import power
    >>> print(round(power.paired_power(34, 0.5, 1.0), 2))
    0.81

    Args:
      pairs: n, at least 2.
      difference: δ, in the units of the measure.
      deviation: σ, of the differences of single pairs, in the same units; above 0.
      significance: α of the test, in (0, 1).

    Raises:
      ValueError: a value out of its range.
    """
    if pairs < 2:
        raise ValueError(f"paired_power: pairs must be at least 2, got {pairs}; run more seeds")
    _check(difference, deviation, significance, caller="paired_power")
    degrees = pairs - 1
    critical = -float(scipy.special.stdtrit(degrees, significance / 2))
    return _exceeded(degrees, math.sqrt(pairs) * abs(difference) / deviation, critical)


def pairs_needed(
    difference: float, deviation: float, *, power: float = 0.8, significance: float = 0.05
) -> int:
    """The smallest number of pairs with which the paired t-test finds a true difference with probability `power`.

    The deviation is usually an estimate, and then so is the result: of five pairs, it is known within a factor of 0.6
    to 2.9 only, and the number of pairs within the squares of these.

    >>> from outgen_jax.metrics import power
    >>> power.pairs_needed(0.5, 1.0)
    34

    Args:
      difference: that is to be found, not 0.
      deviation: of the differences of single pairs, in the same units; above 0.
      power: in (0, 1).
      significance: of the test, in (0, 1).

    Raises:
      ValueError: a value out of its range.
    """
    _check(difference, deviation, significance, caller="pairs_needed")
    if difference == 0 or not significance < power < 1:
        raise ValueError(
            f"pairs_needed: the difference must not be 0 and the power must lie between the significance "
            f"{significance} and 1, got {difference} and {power}; 0.8 is usual for the power"
        )

    def enough(pairs: int) -> bool:
        return paired_power(pairs, difference, deviation, significance=significance) >= power

    too_few, pairs = 1, 2
    while not enough(pairs):
        too_few, pairs = pairs, 2 * pairs
    while pairs - too_few > 1:
        middle = (too_few + pairs) // 2
        too_few, pairs = (too_few, middle) if enough(middle) else (middle, pairs)
    return pairs


def _exceeded(degrees: int, shift: float, critical: float) -> float:
    """P(|Z + shift| > critical √(V / ν)) for Z normal and V chi-squared with ν degrees of freedom.

    That is the mean over Z of P(V < ν (Z + shift)² / critical²). SciPy's noncentral t is NaN for many large shifts.
    """
    # The second factor rises around |Z + shift| = critical, within a multiple of this width.
    rise = critical * (1 + np.linspace(-8, 8, 17) / math.sqrt(2 * degrees))
    edges = np.concatenate([np.arange(-_REACH, _REACH + 1), [-shift], rise - shift, -rise - shift])
    edges = np.unique(np.clip(edges, -_REACH, _REACH))  # [pieces + 1]
    halves = np.diff(edges)[:, None] / 2
    z = edges[:-1, None] + halves * (1 + _NODES)  # [pieces, 16]
    below = scipy.special.gammainc(degrees / 2, degrees / 2 * ((z + shift) / critical) ** 2)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return min(1.0, float(np.sum(halves * _WEIGHTS * density * below)))


def _check(difference: float, deviation: float, significance: float, *, caller: str) -> None:
    if not (math.isfinite(difference) and 0 < deviation < math.inf and 0 < significance < 1):
        raise ValueError(
            f"{caller}: needs a finite difference, a deviation above 0 and a significance in (0, 1), got "
            f"{difference}, {deviation} and {significance}"
        )
