"""A classifier's probabilities for single generated images, which a score of the set hides (paper B's future work).

Probabilities float [n, K], one row an image. Lists are of rows or classes, most notable first, equal ones by number.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from outgen_jax.metrics import classification


class TopClasses(NamedTuple):
    """The classes of a set, most frequent first.

    Attributes:
      classes: [m] int.
      shares: [m], of the images that it is the likeliest class of.
      probs: [m], its mean probability over all images.
    """

    classes: np.ndarray
    shares: np.ndarray
    probs: np.ndarray


def top_classes(probs: ArrayLike, *, count: int = 10) -> TopClasses:
    """The classes that are most probable for the most images of a set, at most `count`.

    Args:
      probs: [n, K].
      count: classes to list.

    Raises:
      ValueError: rows that are not distributions, or a count below 1.

    >>> import outgen_jax as og
    >>> og.metrics.top_classes([[0.75, 0.25], [0.75, 0.25]], count=1).classes.tolist()
    [0]
    """
    p = _validated(probs, count, caller="top_classes")
    shares = np.bincount(p.argmax(-1), minlength=p.shape[1]) / len(p)
    means = p.mean(0, dtype=np.float64)
    order = np.lexsort((-means, -shares))[: min(count, np.count_nonzero(shares))]
    return TopClasses(order, shares[order], means[order])


def entropy(probs: ArrayLike) -> np.ndarray:
    """The uncertainty of the classifier about each image, −Σ p log p in nats: [n, K] -> [n], from 0 to log K.

    Raises:
      ValueError: rows that are not distributions.

    >>> import outgen_jax as og
    >>> round(float(og.metrics.entropy([[0.5, 0.5], [1.0, 0.0]])[0]), 4)
    0.6931
    """
    p = _validated(probs, 1, caller="entropy")
    return -_sum_of_logs(p, p)


def least_certain(probs: ArrayLike, *, count: int = 10) -> np.ndarray:
    """Rows of the images with the largest `entropy`: [n, K] -> [min(count, n)] int.

    Raises:
      ValueError: rows that are not distributions, or a count below 1.

    >>> import outgen_jax as og
    >>> og.metrics.least_certain([[0.9, 0.1], [0.5, 0.5]], count=1).tolist()
    [1]
    """
    p = _validated(probs, count, caller="least_certain")
    return np.argsort(_sum_of_logs(p, p), kind="stable")[:count]


def surprise(probs: ArrayLike, real: ArrayLike) -> np.ndarray:
    r"""Cross-entropy between each image's classes and those of the real images, in nats: [n, K], [m, K] -> [n].

    .. math:: -\sum_y p(y|x) \log \bar p_{real}(y)

    with the mean over the real images, to which the uniform distribution is added with the weight of half an image, so
    that a class they lack does not make it infinite.

    Raises:
      ValueError: rows that are not distributions, or sets of different numbers of classes.

    >>> import outgen_jax as og
    >>> og.metrics.surprise([[0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]).round(4).tolist()
    [0.6931]
    """
    p = _validated(probs, 1, caller="surprise")
    q = _validated(real, 1, caller="surprise")
    if p.shape[1] != q.shape[1]:
        raise ValueError(
            f"surprise: both sets must be of the same classes, got {p.shape[1]} and {q.shape[1]}; "
            "take both from one network"
        )
    expected = (q.sum(0, dtype=np.float64) + 0.5 / q.shape[1]) / (len(q) + 0.5)
    return -_sum_of_logs(p, expected)


def least_expected(probs: ArrayLike, real: ArrayLike, *, count: int = 10) -> np.ndarray:
    """Rows of the images of the largest `surprise`, the worst of a set by their classes: -> [min(count, n)] int.

    Raises:
      ValueError: arguments that `surprise` refuses, or a count below 1.

    >>> import outgen_jax as og
    >>> og.metrics.least_expected([[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1]], count=1).tolist()
    [1]
    """
    p = _validated(probs, count, caller="least_expected")
    return np.argsort(-surprise(p, real), kind="stable")[:count]


def _sum_of_logs(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Σ p log q over the classes, where 0 log 0 is 0; in float64."""
    log_q = np.log(np.maximum(q, np.finfo(np.float64).tiny), dtype=np.float64)
    return np.sum(p * log_q, axis=-1)


def _validated(probs: ArrayLike, count: int, *, caller: str) -> np.ndarray:
    if count < 1:
        raise ValueError(f"{caller}: count must be at least 1, got {count}")
    return np.asarray(classification.validated_probs(probs, caller=caller))
