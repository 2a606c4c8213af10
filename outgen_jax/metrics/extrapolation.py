"""Scores at infinitely many images, extrapolated from few."""

from collections.abc import Callable
from typing import NamedTuple, SupportsFloat

import numpy as np
from jax.typing import ArrayLike


class Extrapolation(NamedTuple):
    """A straight line through a score over the inverse of the number of images, and what it went through.

    Attributes:
      estimate: where 1/N is 0.
      slope: score times images.
      sizes: [points] int, N.
      scores: [points].
    """

    estimate: float
    slope: float
    sizes: np.ndarray
    scores: np.ndarray


def infinite_sample_score(
    score: Callable[[np.ndarray], SupportsFloat],
    rows: ArrayLike,
    *,
    points: int = 15,
    smallest: int | None = None,
    seed: int = 0,
) -> Extrapolation:
    r"""A score as it would be with infinitely many generated images (Chong and Forsyth 2020: FID∞, IS∞).

    .. math:: \mathrm{score}(N) \approx \mathrm{score}_\infty + \mathrm{slope} / N

    The bias of the Inception Score and of the Fréchet distance is nearly that of the term in 1/N, which depends on the
    generator: so finite ones rank generators wrongly at times. The line is fitted by least squares to the
    score of random subsets, of sizes equally spaced from `smallest` to all rows.

    `inception_score` goes in as it is, with rows of probabilities; `frechet_distance` with its real features bound,
    whose own bias remains: `functools.partial(frechet_distance, real_features)`. With fewer images than features it is
    not a straight line: use `kernel_distance` then, which has no bias. A compiled score is compiled again for every
    size.

    Args:
      score: rows [N, ...] -> a number.
      rows: [n, ...] of all generated images.
      points: the number of sizes; the paper has 15.
      smallest: rows of the smallest subset; None: a tenth, as the paper's 5,000 of 50,000.
      seed: of the subsets.

    Raises:
      ValueError: fewer than 2 points, or a smallest subset that is not in 1..n − 1.
      FloatingPointError: a score that is not finite.

    >>> import numpy as np
    >>> import outgen_jax as og
    >>> rows = np.arange(40.0)
    >>> round(og.metrics.infinite_sample_score(lambda rows: 2 + 3 / len(rows), rows).estimate, 6)
    2.0
    """
    rows = np.asarray(rows)
    n = len(rows) if rows.ndim else 0
    first = max(1, n // 10) if smallest is None else smallest
    if points < 2 or not 1 <= first < n:
        raise ValueError(
            f"infinite_sample_score: needs at least 2 points and a smallest subset from 1 to below the number of rows, "
            f"{n}; got {points} and {first}. Give more images or another `smallest`"
        )
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(first, n, points).round().astype(int))
    scores = np.array(
        [float(score(rows[rng.choice(n, size, replace=False)])) for size in sizes], np.float64
    )
    if not np.isfinite(scores).all():
        size = sizes[~np.isfinite(scores)][0]
        raise FloatingPointError(
            f"infinite_sample_score: the score of {size} rows is not finite; raise `smallest`, "
            "or leave out the images whose rows are not finite"
        )
    slope, estimate = np.polyfit(1 / sizes, scores, 1)
    return Extrapolation(float(estimate), float(slope), sizes, scores)
