"""Correction of p-values for the number of tests, on the host."""

import numpy as np
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""P-values corrected for their number by Holm's step-down procedure (1979).

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (n - j + 1)\, p_{(j)}), \quad p_{(1)} \le \dots \le p_{(n)}

    Rejecting what lies below a level rejects at least one true hypothesis with at most that probability, however the
    tests depend on each other.

    Args:
      p_values: [n], of all tests that were made; n may be 0.

    Returns:
      [n] float64, in the given order.

    Raises:
      ValueError: another rank, or values outside [0, 1].

    >>> from outgen_jax import metrics
    >>> metrics.holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    if np.ma.is_masked(p_values):
        raise ValueError("holm: p_values has masked entries; leave out tests that were not made")
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"holm: p_values must be [n] in [0, 1], got shape {list(p.shape)} with {p}; leave out tests that failed"
        )
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1, factors * p[order]))
    return corrected
