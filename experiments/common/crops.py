"""The crops and flips of a training's augmentation as views of one image, and how far outputs are off in each."""

import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from experiments.common import distances
from outgen_jax.synthesis import views


def flips_and_shifts(shifts: Sequence[int]) -> list[views.Transform]:
    """Every shift in both directions, as it is and mirrored first: 2 len(shifts)² transforms."""
    found = []
    for rows, columns in itertools.product(shifts, repeat=2):
        moved = views.shift(rows, columns)
        found += [moved, functools.partial(_mirrored_then, moved)]
    return found


def _mirrored_then(transform: views.Transform, image: jax.Array) -> jax.Array:
    return transform(image[:, ::-1])


def variations(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Total variation of every view: [N, V, K], [N, K] -> [N, V]; masked entries of the targets are free."""
    return np.stack([distances.variation(view, targets) for view in np.moveaxis(said, 1, 0)], 1)


def largest(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The largest total variation of all views: [N, V, K], [N, K] -> [N]."""
    return variations(said, targets).max(1)
