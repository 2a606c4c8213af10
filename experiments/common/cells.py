"""Cells of tables: numbers as text."""

import numpy as np
from numpy.typing import ArrayLike


def percentiles(values: ArrayLike, *which: float) -> list[str]:
    """Percentiles with two significant digits, a cell each; 100 is the largest value.

    >>> percentiles([1.0, 2.0, 4.0], 50, 100)
    ['2', '4']
    """
    return [f"{np.percentile(values, q):.2g}" for q in which]
