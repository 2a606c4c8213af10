"""How far outputs are from targets, judged apart from the engine."""

import numpy as np
from numpy.typing import ArrayLike

import outgen_jax as og


def variation(probs: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Total variation [N] of outputs [N, K] to targets [N, K], of which masked entries are free.

    >>> partial = np.ma.masked_invalid([[0.9, np.nan, np.nan]])
    >>> variation([[0.5, 0.3, 0.2]], partial).round(4).tolist()
    [0.4]
    """
    return np.asarray(og.metrics.total_variation(probs, og.targets.completed(targets, probs)))
