"""The similarity of a set of generated images to a set of real ones, and the Inception Score (paper B).

Sets are given as the outputs of a frozen network, with a row for each image: probabilities float [n, K], or features
float [n, d]. Always report the network and n with a score: all scores but the kernel distance depend on n.

Everything may be jitted (with `splits` and `k` static); shapes are checked always, values only outside of a trace,
where they are known. Pairs of rows are compared block by block, in bounded memory.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax.metrics import classification

_BLOCK_ENTRIES = 2**22  # of an [n, m] matrix at a time: 16 MB in float32

# Accelerators round the factors of a product to 10 or fewer bits otherwise.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class PRDC(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage) of generated images; scalars.

    Attributes:
      precision: in [0, 1], of the fakes inside a real neighbourhood.
      recall: in [0, 1], of the reals inside a fake neighbourhood.
      density: at least 0, real neighbourhoods around a fake, over k; 1 for equal distributions.
      coverage: in [0, 1], of the reals with a fake in their neighbourhood.
    """

    precision: jax.Array
    recall: jax.Array
    density: jax.Array
    coverage: jax.Array


def inception_score(probs: ArrayLike, *, splits: int = 1) -> jax.Array:
    r"""Inception Score (Eq. B1; Salimans et al. 2016), from 1 to K.

    .. math:: \exp\left(\mathrm{mean}_i\, KL(p(y|x_i) \,\|\, p(y))\right),
        \quad p(y) = \mathrm{mean}_i\, p(y|x_i)

    1 if all images are classified the same, K if all are certain and the classes equally frequent. It grows with n.

    Args:
      probs: [n, K], p(y|x) of each image.
      splits: parts of consecutive rows to score apart, equal to one row; the field reports the mean and
        the standard deviation over 10. Shuffle rows that are ordered by class.

    Returns:
      The score, []; or, with splits > 1, the score of each part, [splits]: their `mean()` and `std()` are the
      field's "mean ± std".

    Raises:
      ValueError: not of rank 2, rows that are not distributions, or splits that are not in 1..n.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(float(og.metrics.inception_score(jnp.eye(4))), 3)
    4.0
    """
    p = classification.validated_probs(probs, caller="inception_score")
    n = len(p)
    if not 1 <= splits <= n:
        raise ValueError(
            f"inception_score: splits must be from 1 to the number of rows, {n}; got {splits}. "
            "Use fewer splits or more images"
        )
    edges = [i * n // splits for i in range(splits + 1)]
    scores = jnp.stack([_inception_score(p[a:b]) for a, b in itertools.pairwise(edges)])
    return scores if splits > 1 else scores[0]


def frechet_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
    r"""Fréchet distance of two feature sets, the FID on Inception features (Heusel et al. 2017).

    .. math:: |\mu_x - \mu_y|^2 + \mathrm{tr}(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2})

    with covariances over n − 1. No covariance is formed, nor its root: with X̃ and Ỹ the centred features over √(n − 1),
    tr √(Σx Σy) is the nuclear norm of X̃ Ỹᵀ, and the trace is the squared distance of X̃ and Ỹ after the rotations of
    their rows that make it smallest. So float32 suffices for small distances and for fewer images than features. The
    gradient is exact even where singular values coincide (first derivatives only).

    Biased upwards by about 1/n: compare sets of the same n alone.

    Args:
      x: features [n, d].
      y: features [m, d].

    Returns:
      [], >= 0, in squared units of the features.

    Raises:
      ValueError: shapes that do not match, fewer than 2 rows in a set, or features that are not finite.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> x = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> round(float(og.metrics.frechet_distance(x, x + jnp.array([1.0, 0.0]))), 3)
    1.0
    """
    x, y = validated_features(x, y, caller="frechet_distance", names=("x", "y"))
    return _frechet_distance(x, y)


def kernel_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
    r"""Kernel distance of two feature sets, the KID on Inception features (Bińkowski et al. 2018).

    The unbiased estimate of the squared maximum mean discrepancy

    .. math:: \mathrm{mean}_{i \neq j}\, k(x_i, x_j) + \mathrm{mean}_{i \neq j}\, k(y_i, y_j)
        - 2\, \mathrm{mean}_{i, j}\, k(x_i, y_j), \quad k(a, b) = (a \cdot b / d + 1)^3

    over all pairs at once, where the paper averages subsets of 1,000. It is 0 on average for equal distributions, so
    single values may be negative. Often printed times 1,000.

    It is computed in float32. The kernel depends on the mean of the features: where it is ten times their deviation or
    more, digits are lost. Standardise such features, both sets alike.

    Args:
      x: features [n, d].
      y: features [m, d].

    Returns:
      [].

    Raises:
      ValueError: shapes that do not match, fewer than 2 rows in a set, or features that are not finite.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> x = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> bool(og.metrics.kernel_distance(x, x + 10) > og.metrics.kernel_distance(x, x + 1))
    True
    """
    x, y = validated_features(x, y, caller="kernel_distance", names=("x", "y"))
    return _kernel_distance(x, y)


def prdc(real: ArrayLike, fake: ArrayLike, *, k: int = 5) -> PRDC:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The neighbourhood of a row is the open ball around it that reaches to the k-th nearest row of its own set. Rows with
    k copies or more have an empty one. Distances are computed from differences of rows: products of rows would be
    faster, but lose the distances within tight clusters that are far apart.

    >>> import numpy as np
    >>> import outgen_jax as og
    >>> real, fake = np.random.default_rng(0).normal(size=(2, 100, 8))
    >>> result = og.metrics.prdc(real, fake + 100)
    >>> print(result.precision, result.recall, result.density, result.coverage)
    0.0 0.0 0.0 0.0

    Args:
      real: features [n, d].
      fake: features [m, d].
      k: neighbours; 3 is usual for precision and recall, 5 for density and coverage.

    Raises:
      ValueError: shapes that do not match, features that are not finite, or k that is not in 1..min(n, m) − 1.
    """
    real, fake = validated_features(real, fake, caller="prdc", names=("real", "fake"))
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"prdc: k must be at least 1 and below the number of rows, {len(real)} real and {len(fake)} fake; "
            f"got {k}. Give at least {max(k, 1) + 1} rows of each, or another k"
        )
    return _prdc(real, fake, k)


@jax.jit
def _inception_score(p: jax.Array) -> jax.Array:
    log_p, log_marginal = _log(p), _log(p.mean(0, keepdims=True))
    return jnp.exp(jnp.mean(jnp.sum(p * (log_p - log_marginal), axis=-1)))


def _log(p: jax.Array) -> jax.Array:
    # Finite at 0, where p log p is 0 all the same; a marginal may underflow where a row of it did not.
    return jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))


@jax.jit
def _frechet_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    shift = y.mean(0, keepdims=True)  # changes nothing but the rounding of means far from 0
    x, y = x - shift, y - shift
    means = jnp.sum((x.mean(0) - y.mean(0)) ** 2)
    a = (x - x.mean(0, keepdims=True)) / (len(x) - 1) ** 0.5  # aᵀa = Σx
    b = (y - y.mean(0, keepdims=True)) / (len(y) - 1) ** 0.5
    p, q = _nearest_rotations(*jax.lax.stop_gradient((a, b)))
    a_turned, b_turned = _matmul(p.T, a), _matmul(q.T, b)  # [r, d]
    left_out = _left_out(a, p, a_turned) + _left_out(b, q, b_turned)
    return means + jnp.sum((a_turned - b_turned) ** 2) + left_out


def _left_out(a: jax.Array, p: jax.Array, turned: jax.Array) -> ArrayLike:
    """‖a − PPᵀa‖², of what is at right angles to every row of the other set; `turned` is Pᵀa."""
    if p.shape[1] == min(a.shape):  # P spans all of a: only the larger set leaves anything out
        return 0.0
    return jnp.sum((a - _matmul(p, turned)) ** 2)


def _nearest_rotations(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P [n, r], Q [m, r] that turn the rows of a [n, d] and b [m, d] nearest to each other; r = min(n, m, d).

    By abᵀ = P S Qᵀ, singular vectors and values, so that ‖Pᵀa − Qᵀb‖² + ‖a − PPᵀa‖² + ‖b − QQᵀb‖² is
    ‖a‖² + ‖b‖² − 2 ‖abᵀ‖_*. As the smallest distance over all rotations its slope in P and Q is 0, and its gradient in
    a and b that of constant P and Q.
    """
    basis_a, reduced_a = _reduced(a)
    basis_b, reduced_b = _reduced(b)
    u, _, vt = jnp.linalg.svd(_matmul(reduced_a, reduced_b.T), full_matrices=False)
    return _matmul(basis_a, u), _matmul(basis_b, vt.T)


def _reduced(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors of a [n, d] = basis [n, min(n, d)] @ reduced [min(n, d), d]."""
    n, d = a.shape
    return jnp.linalg.qr(a) if n > d else (jnp.eye(n, dtype=a.dtype), a)


@jax.jit
def _kernel_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    n, m = len(x), len(y)

    def kernel(row: jax.Array, others: jax.Array) -> jax.Array:
        # Without its constant 1, which cancels in the distance and would cost digits: (s + 1)³ − 1.
        s = _matmul(others, row) / x.shape[1]
        return s * (3 + s * (3 + s))

    def own_mean(row: jax.Array, others: jax.Array) -> jax.Array:
        itself = kernel(row, row[None])[0]
        return (kernel(row, others).sum() - itself) / (len(others) - 1)

    # The differences are taken row by row, before the sum over rows can lose them.
    of_x = by_rows(lambda row: own_mean(row, x) - kernel(row, y).mean(), x, width=n + m)
    of_y = by_rows(lambda row: own_mean(row, y) - kernel(row, x).mean(), y, width=n + m)
    return of_x.mean() + of_y.mean()


@functools.partial(jax.jit, static_argnames="k")
def _prdc(real: jax.Array, fake: jax.Array, k: int) -> PRDC:
    n, m = len(real), len(fake)
    real_radii = neighbour_radii(real, k)  # [n]
    fake_radii = neighbour_radii(fake, k)  # [m]

    def of_fake(row: jax.Array) -> jax.Array:
        return jnp.sum(squared_distances(row, real) < real_radii)  # []

    def of_real(row: jax.Array, radius: jax.Array) -> tuple[jax.Array, jax.Array]:
        distances = squared_distances(row, fake)  # [m]
        return jnp.any(distances < fake_radii), jnp.min(distances) < radius

    around_fake = by_rows(of_fake, fake, width=n)  # [m] neighbourhoods of reals
    recalled, covered = by_rows(lambda pair: of_real(*pair), (real, real_radii), width=m)  # [n]
    return PRDC(
        precision=jnp.mean(around_fake > 0),
        recall=jnp.mean(recalled),
        density=jnp.mean(around_fake, dtype=real.dtype) / k,
        coverage=jnp.mean(covered),
    )


def neighbour_radii(rows: jax.Array, k: int) -> jax.Array:
    """Squared distance of every row to its k-th nearest other row: [n, d] -> [n].

    >>> import jax.numpy as jnp
    >>> from outgen_jax.metrics import generative
    >>> print(generative.neighbour_radii(jnp.array([[0.0], [1.0], [3.0]]), k=1))
    [1. 1. 4.]
    """

    def radius(i: jax.Array) -> jax.Array:
        distances = squared_distances(rows[i], rows).at[i].set(jnp.inf)  # not to itself
        # The minimum, not the last: XLA sorts the whole row on CPU where `top_k` is sliced (300 times slower).
        return -jax.lax.top_k(-distances, k)[0].min()

    return by_rows(radius, jnp.arange(len(rows)), width=len(rows))


def squared_distances(row: jax.Array, others: jax.Array) -> jax.Array:
    """Squared Euclidean distances of a row to others: [d], [n, d] -> [n].

    They are sums of squared differences. |a|² + |b|² − 2 a·b would be a matrix product and faster, but cancels where
    the distance is small beside |a| and |b|. XLA fuses the differences into the sum, so [n, d] of them never exist.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.metrics import generative
    >>> print(generative.squared_distances(jnp.array([1e4, 0.0]), jnp.array([[1e4, 0.5], [1e4, 2.0]])))
    [0.25 4.  ]
    """
    return jnp.sum((others - row[None]) ** 2, axis=-1)


def by_rows(function: Callable[[Any], Any], rows: Any, *, width: int) -> Any:
    """`function` of every row, in blocks of so many rows that [block, width] stays small.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.metrics import generative
    >>> print(generative.by_rows(jnp.sum, jnp.ones((3, 2)), width=2))
    [2. 2. 2.]
    """
    return jax.lax.map(function, rows, batch_size=max(1, _BLOCK_ENTRIES // width))


def validated_features(
    x: ArrayLike, y: ArrayLike, *, caller: str, names: tuple[str, str], least: int = 2
) -> tuple[jax.Array, jax.Array]:
    """Two sets of features [n, d] and [m, d] as floats of one type; errors name `caller` and `names`.

    Raises:
      ValueError: shapes that do not match, fewer than `least` rows in a set, or features that are not finite.
    """
    pair = classification.as_float(x, y)
    if any(f.ndim != 2 or 0 in f.shape for f in pair) or pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(
            f"{caller}: {names[0]} and {names[1]} must be features of shapes [n, d] and [m, d], got "
            f"{list(pair[0].shape)} and {list(pair[1].shape)}; flatten the features of an image, and take both sets "
            "from the same layer"
        )
    for name, features in zip(names, pair, strict=True):
        if len(features) < least:
            raise ValueError(
                f"{caller}: {name} must have at least {least} rows, got {len(features)}; give more images"
            )
        if isinstance(features, jax.core.Tracer):
            continue
        bad = np.argwhere(~np.isfinite(features))
        if len(bad):
            raise ValueError(
                f"{caller}: {name} must be finite; row {bad[0][0]} has {features[tuple(bad[0])]:g} "
                f"in column {bad[0][1]}. Leave such images out, and count them"
            )
    return pair[0], pair[1]
