"""What networks that took no part say of mixtures, in numbers."""

from typing import Any

import numpy as np
import scipy.special
import scipy.stats

import outgen_jax as og
from experiments.mixtures.starts import Mixtures
from outgen_jax.metrics import Interval
from outgen_jax.networks import ApplyFn

RESAMPLES = 1000


def logits(network: tuple[ApplyFn, Any], images: np.ndarray) -> np.ndarray:
    """The network's logits of images: float64 [N, K]."""
    return np.asarray(og.predict(*network, images, output=og.outputs.values()), np.float64)


def among_named(said: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """The probabilities of the named classes as shares of their sum: logits [N, K] -> [N, k].

    Computed from logits, since probabilities may underflow.

    >>> mixtures = Mixtures(np.array([[2, 0]]), np.array([[0.5, 0.5]]))
    >>> among_named(np.log([[0.1, 0.6, 0.3]]), mixtures).round(4)
    array([[0.75, 0.25]])
    """
    return scipy.special.softmax(np.take_along_axis(said, mixtures.classes, axis=1), axis=1)


def named_mass(said: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """The probability of all named classes together: logits [N, K] -> [N]."""
    probs = scipy.special.softmax(said, axis=1)
    return np.take_along_axis(probs, mixtures.classes, axis=1).sum(1)


def named_on_top(said: np.ndarray, mixtures: Mixtures) -> np.ndarray:
    """Whether the k most probable classes are the k named ones: logits [N, K] -> bool [N]."""
    top = np.argsort(-said, axis=1)[:, : mixtures.classes.shape[1]]
    return (np.sort(top, 1) == np.sort(mixtures.classes, 1)).all(1)


def rank_correlation(shares: np.ndarray, found: np.ndarray) -> float:
    """Spearman's ρ of wanted and found shares over all named classes of all images: [N, k], [N, k] -> ρ.

    >>> rank_correlation(np.array([[0.1, 0.9], [0.4, 0.6]]), np.array([[0.3, 0.7], [0.4, 0.6]]))
    1.0
    """
    return float(scipy.stats.spearmanr(shares.ravel(), found.ravel()).statistic)


def correlation_interval(shares: np.ndarray, found: np.ndarray) -> Interval:
    """`rank_correlation` with a 95 % bootstrap interval over images."""
    return og.metrics.bootstrap_interval(
        rank_correlation, shares, found, paired=True, resamples=RESAMPLES
    )


def mean_of_rows(values: np.ndarray) -> Interval:
    """The mean of [N] with a 95 % bootstrap interval."""
    return og.metrics.bootstrap_interval(np.mean, np.float64(values), resamples=RESAMPLES)
