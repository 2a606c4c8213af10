"""What a mixture begins with: the images that are changed, and the targets that are asked for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mixtures(NamedTuple):
    """The classes that a target names, and their probabilities; all others have none."""

    classes: np.ndarray  # [N, k] int, distinct in a row
    shares: np.ndarray  # [N, k], rows sum to 1

    def targets(self, num_classes: int) -> np.ndarray:
        """The distributions over all classes, float32 [N, num_classes].

        >>> Mixtures(np.array([[2, 0]]), np.array([[0.75, 0.25]])).targets(3)
        array([[0.25, 0.  , 0.75]], dtype=float32)
        """
        found = np.zeros((len(self.classes), num_classes), np.float32)
        np.put_along_axis(found, self.classes, self.shares.astype(np.float32), axis=1)
        return found


def random_mixtures(
    count: int, parts: int, num_classes: int, *, seed: int, other_than: np.ndarray | None = None
) -> Mixtures:
    """Random classes in random proportions, uniform over all proportions.

    Args:
      count: rows N.
      parts: classes k of a row.
      num_classes: of the network.
      seed: of the draws.
      other_than: int [N], a class of each row that is not named; None: any may be.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.uniform(size=(count, num_classes)), axis=1)
    if other_than is not None:
        order = order[order != other_than[:, None]].reshape(count, num_classes - 1)
    return Mixtures(order[:, :parts], rng.dirichlet(np.ones(parts), size=count))


def path(first: int, last: int, steps: int) -> Mixtures:
    """Targets from one class to another in equal steps, both ends included.

    >>> path(3, 5, 2).shares.tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    shares = np.linspace(0, 1, steps + 1)
    return Mixtures(np.tile([first, last], (steps + 1, 1)), np.stack([1 - shares, shares], 1))


def noise(count: int, shape: Sequence[int], *, mean: float, std: float, seed: int) -> np.ndarray:
    """Images of independent normal pixels, clipped and rounded: uint8 [N, *shape]."""
    values = np.random.default_rng(seed).normal(mean, std, (count, *shape))
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
