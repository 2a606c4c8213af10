"""Single generated images among real ones: the realism of each, and its nearest neighbour.

Rows are features or pixels, [n, d]. Everything may be jitted, with `k` static; pairs of rows are compared block by
block, in bounded memory.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.metrics.generative import (
    by_rows,
    neighbour_radii,
    squared_distances,
    validated_features,
)


class Nearest(NamedTuple):
    """The nearest reference of every query."""

    distance: jax.Array  # [m] Euclidean
    row: jax.Array  # [m] int32, which one it is


def realism_score(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> jax.Array:
    r"""Realism of each generated image (Kynkäänniemi et al. 2019, Section 5).

    .. math:: R(f) = \max_r \frac{|r - NN_k(r)|}{|r - f|}

    over the real r whose neighbourhoods are not wider than the median one. At least 1 if the image lies in such a
    neighbourhood, smaller the farther it is from all of them, and very large for a copy.

    >>> import numpy as np
    >>> from outgen_jax.metrics import neighbours
    >>> real = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> print(neighbours.realism_score(real, np.array([[0.5], [13.0]]), k=1))
    [2.  0.1]

    Args:
      real: features [n, d].
      fake: features [m, d].
      k: NN_k is the k-th nearest other real.

    Returns:
      [m], > 0.

    Raises:
      ValueError: shapes that do not match, fewer than 2 rows of either, features that are not finite, or k not in
        1..n − 1.
    """
    real, fake = validated_features(real, fake, caller="realism_score", names=("real", "fake"))
    if not 1 <= k < len(real):
        raise ValueError(
            f"realism_score: k must be at least 1 and below the number of real rows, {len(real)}; got {k}. "
            f"Give at least {max(k, 1) + 1} real rows, or another k"
        )
    return _realism_score(real, fake, k)


def nearest_neighbours(queries: ArrayLike, references: ArrayLike) -> Nearest:
    """The nearest of the references for every query: of training images, it shows what was memorised.

    Compare the distances with those of unseen real images to the same references. Pixels or features; distances are
    Euclidean. Of equally near references the first is named.

    >>> import numpy as np
    >>> from outgen_jax.metrics import neighbours
    >>> references = np.array([[0.0, 0.0], [3.0, 4.0]])
    >>> found = neighbours.nearest_neighbours(np.array([[3.0, 4.5], [0.0, 0.0]]), references)
    >>> print(found.row, found.distance)
    [1 0] [0.5 0. ]

    Args:
      queries: [m, d].
      references: [n, d].

    Raises:
      ValueError: shapes that do not match, no rows, or values that are not finite.
    """
    names = ("queries", "references")
    x, y = validated_features(
        queries, references, caller="nearest_neighbours", names=names, least=1
    )
    return _nearest_neighbours(x, y)


@functools.partial(jax.jit, static_argnames="k")
def _realism_score(real: jax.Array, fake: jax.Array, k: int) -> jax.Array:
    radii = neighbour_radii(real, k)  # [n], squared
    radii = jnp.where(radii <= jnp.median(radii), radii, 0)
    tiny = jnp.finfo(real.dtype).tiny

    def score(row: jax.Array) -> jax.Array:
        return jnp.max(radii / jnp.maximum(squared_distances(row, real), tiny))

    return jnp.sqrt(by_rows(score, fake, width=len(real)))


@jax.jit
def _nearest_neighbours(queries: jax.Array, references: jax.Array) -> Nearest:
    def nearest(row: jax.Array) -> Nearest:
        distances = squared_distances(row, references)
        index = jnp.argmin(distances)
        return Nearest(jnp.sqrt(distances[index]), index)

    return by_rows(nearest, queries, width=len(references))
