"""Cells of tables: numbers as text."""

import numpy as np
from numpy.typing import ArrayLike

# Names in results -> in tables; most are from older results.
_LABELS = {
    "as it comes": "no limit",
    "Gauss–Newton": "Gauss-Newton",
    "Gauss–Newton, conjugate gradients": "Gauss-Newton, conjugate gradients",
    "proposed": "constraint",
    "true=0.9,random=0.1": "0.9 / 0.1",
}


def label(name: str) -> str:
    """What tables call a target, a solver or an arm that results.json names so."""
    return _LABELS.get(name, name)


def percentiles(values: ArrayLike, *which: float) -> list[str]:
    """Percentiles with two significant digits, a cell each; 100 is the largest value, and nothing has none.

    >>> percentiles([1.0, 2.0, 4.0], 50, 100), percentiles([], 50)
    (['2', '4'], ['-'])
    """
    if not np.size(values):
        return ["-"] * len(which)
    return [f"{np.percentile(values, q):.2g}" for q in which]


def percentile_headings(name: str, *which: int) -> list[str]:
    """Headings of the columns that `percentiles` fills.

    >>> percentile_headings("L2", 50, 95, 100)
    ['L2, median', 'L2, 95th pct.', 'L2, max']
    """
    named = {50: "median", 100: "max"}
    return [f"{name}, {named.get(q, f'{q}th pct.')}" for q in which]
