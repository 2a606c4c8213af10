"""Scores of generated images: closed forms, float64 oracles, invariances, what they refuse."""

import functools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.special
import sklearn.metrics.pairwise
import sklearn.neighbors

from outgen_jax import metrics
from outgen_jax.metrics import generative

few = hypothesis.settings(max_examples=30, deadline=None)


def normal(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


# --- Inception Score ---


def probs_of(seed: int, n: int, k: int, alpha: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(k, alpha), n).astype(np.float32)


def inception_score_oracle(probs: np.ndarray) -> float:
    p = probs.astype(np.float64)
    return float(np.exp(scipy.special.rel_entr(p, p.mean(0)).sum(1).mean()))


@pytest.mark.parametrize("classes", [2, 1000])
def test_inception_score_of_identical_rows_is_1_and_of_one_hot_rows_k(classes):
    same = np.tile(probs_of(0, 1, classes), (50, 1))
    np.testing.assert_allclose(metrics.inception_score(same), 1, rtol=2e-6)
    every_class_twice = np.eye(classes)[np.arange(2 * classes) % classes]
    np.testing.assert_allclose(metrics.inception_score(every_class_twice), classes, rtol=1e-5)


@pytest.mark.parametrize(("n", "classes"), [(7, 3), (500, 1000), (50_000, 10)])
def test_inception_score_equals_float64(n, classes):
    probs = probs_of(1, n, classes)
    expected = inception_score_oracle(probs)
    np.testing.assert_allclose(metrics.inception_score(probs), expected, rtol=1e-5)


@few
@hypothesis.given(hypothesis.extra.numpy.arrays(np.float64, (6, 4), elements=st.floats(0, 1)))
def test_inception_score_lies_between_1_and_k(weights):
    weights[:, 0] += 1e-3
    probs = weights / weights.sum(1, keepdims=True)
    score = metrics.inception_score(probs)
    assert 1 - 1e-6 < score < 4 + 1e-5
    np.testing.assert_allclose(score, metrics.inception_score(probs[::-1, ::-1]), rtol=1e-5)


def test_splits_are_scored_apart():
    probs = probs_of(2, 23, 5)
    scores = metrics.inception_score(probs, splits=4)
    parts = (probs[:5], probs[5:11], probs[11:17], probs[17:])
    np.testing.assert_allclose(scores, [inception_score_oracle(p) for p in parts], rtol=1e-5)
    assert metrics.inception_score(probs).shape == ()
    np.testing.assert_allclose(metrics.inception_score(probs, splits=23), np.ones(23), rtol=1e-5)


def test_probabilities_too_small_for_their_mean_do_no_harm():
    tiny = np.finfo(np.float32).tiny  # its mean over the rows is below every normal float32
    probs = np.tile(np.float32([0.5, 0.5, 0]), (100, 1))
    probs[0, 2] = tiny
    np.testing.assert_allclose(metrics.inception_score(probs), 1, rtol=1e-6)
    assert np.isfinite(
        jax.jit(jax.grad(metrics.inception_score))(np.eye(3, dtype=np.float32))
    ).all()


def test_inception_score_under_jit_and_grad():
    probs = probs_of(3, 12, 4, alpha=3)
    jitted = jax.jit(metrics.inception_score, static_argnames="splits")
    for splits in (1, 3):
        eager = metrics.inception_score(probs, splits=splits)
        np.testing.assert_allclose(jitted(probs, splits=splits), eager, rtol=1e-6)
    step = np.zeros_like(probs, np.float64)
    step[5] = [1e-4, -1e-4, 0, 0]
    above, below = (inception_score_oracle(probs + s) for s in (step, -step))
    gradient = jax.jit(jax.grad(metrics.inception_score))(probs)
    slope = gradient[5, 0] - gradient[5, 1]
    np.testing.assert_allclose(slope, (above - below) / 2e-4, rtol=1e-3)


# --- Fréchet distance ---


def frechet_oracle(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(a @ b).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


def feature_sets(kind: str, n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    mix = normal(0, d, d) / d**0.5  # correlated columns, of ill condition
    x, y = normal(1, n, d) @ mix, normal(2, m, d) @ mix
    match kind:
        case "near":
            return x, y
        case "far":
            return x, normal(3, m, d) * np.float32(1.5) + np.float32(0.3)
        case "rectified":  # as features of networks are: not negative, and far from 0 at times
            return np.maximum(x, 0) + 20, np.maximum(y + np.float32(0.1), 0) + 20
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["near", "far", "rectified"])
@pytest.mark.parametrize(("n", "m", "d"), [(1000, 1000, 64), (1000, 700, 256)])
def test_frechet_distance_equals_float64(kind, n, m, d):
    x, y = feature_sets(kind, n, m, d)
    np.testing.assert_allclose(metrics.frechet_distance(x, y), frechet_oracle(x, y), rtol=2e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 30, 64), (20, 90, 64), (90, 20, 64)])
def test_frechet_distance_of_few_rows_is_the_nuclear_norm_form(n, m, d):
    """The covariances are singular, and their root is beyond `sqrtm`."""
    x, y = normal(1, n, d) * np.float32(2), normal(2, m, d) + np.float32(0.2)
    a, b = ((f - f.mean(0)) / (len(f) - 1) ** 0.5 for f in (np.float64(x), np.float64(y)))
    nuclear = np.linalg.norm(a @ b.T, "nuc")
    means = ((x.mean(0, np.float64) - y.mean(0, np.float64)) ** 2).sum()
    expected = means + (a**2).sum() + (b**2).sum() - 2 * nuclear
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(500, 16), (16, 500)])
def test_frechet_distance_of_a_set_to_itself_is_0(n, d):
    x = normal(0, n, d)
    assert 0 <= metrics.frechet_distance(x, x) < 1e-8
    assert 0 <= metrics.frechet_distance(x, x[::-1]) < 1e-8


def test_small_frechet_distances_keep_their_digits():
    x = normal(1, 1000, 64)
    y = x + np.float32(1e-2) * normal(2, 1000, 64)
    expected = frechet_oracle(x, y)
    assert expected < 1e-4 * np.trace(np.cov(x.T))
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=1e-3)


def test_frechet_distance_has_the_closed_form_of_gaussians():
    """Where Σ is standard exactly: |shift|² + Σ (scale − 1)²."""
    x = normal(0, 400, 5).astype(np.float64)
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    shift, scale = np.array([1, -2, 0, 0.5, 3]), np.array([1, 2, 0.5, 3, 0])
    expected = (shift**2).sum() + ((scale - 1) ** 2).sum()
    np.testing.assert_allclose(metrics.frechet_distance(x, x * scale + shift), expected, rtol=1e-5)


def test_frechet_distance_of_gaussian_samples_approaches_the_closed_form():
    rng = np.random.default_rng(0)
    a, b = np.eye(3), np.array([[2, 0.5, 0], [0.5, 1, 0.2], [0, 0.2, 0.5]])
    x = rng.multivariate_normal(np.zeros(3), a, 40_000)
    y = rng.multivariate_normal([1, 0, -1], b, 40_000)
    expected = 2 + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=0.03)


def test_frechet_distance_is_symmetric_and_blind_to_order_rotation_and_shift():
    x, y = feature_sets("far", 60, 40, 8)
    turn = np.linalg.qr(normal(9, 8, 8))[0]
    expected = metrics.frechet_distance(x, y)
    for a, b in ((y, x), (x[::-1], y), (x @ turn, y @ turn), (x + 7, y + 7)):
        np.testing.assert_allclose(metrics.frechet_distance(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.frechet_distance(3 * x, 3 * y), 9 * expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 20, 5), (6, 30, 20)])
def test_gradient_of_frechet_distance(n, m, d):
    """Against differences of the float64 nuclear norm, in both arguments."""

    def oracle(x, y):
        a, b = ((f - f.mean(0)) / (len(f) - 1) ** 0.5 for f in (x, y))
        means = ((x.mean(0) - y.mean(0)) ** 2).sum()
        return means + (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")

    x, y = normal(1, n, d), 2 * normal(2, m, d)
    gradients = jax.jit(jax.grad(metrics.frechet_distance, argnums=(0, 1)))(x, y)
    x, y = np.float64(x), np.float64(y)
    way_x, way_y = np.float64(normal(3, n, d)), np.float64(normal(4, m, d))
    along_x = (oracle(x + 1e-5 * way_x, y) - oracle(x - 1e-5 * way_x, y)) / 2e-5
    along_y = (oracle(x, y + 1e-5 * way_y) - oracle(x, y - 1e-5 * way_y)) / 2e-5
    np.testing.assert_allclose((gradients[0] * way_x).sum(), along_x, rtol=1e-4)
    np.testing.assert_allclose((gradients[1] * way_y).sum(), along_y, rtol=1e-4)


def test_gradient_of_frechet_distance_where_features_are_dead_or_equal():
    gradient = jax.jit(jax.grad(metrics.frechet_distance, argnums=(0, 1)))
    x, y = normal(1, 20, 5), normal(2, 20, 5)
    np.testing.assert_allclose(gradient(y, y), 0, atol=1e-6)
    x[:, 2] = 0
    assert np.isfinite(gradient(x, y)).all()


# --- kernel distance ---


def kernel_oracle(x: np.ndarray, y: np.ndarray) -> float:
    kernel = functools.partial(sklearn.metrics.pairwise.polynomial_kernel, degree=3, coef0=1)
    x, y = x.astype(np.float64), y.astype(np.float64)  # gamma is 1/d by default
    n, m = len(x), len(y)
    of_x, of_y = kernel(x, x), kernel(y, y)
    own_x = (of_x.sum() - np.trace(of_x)) / (n * (n - 1))
    own_y = (of_y.sum() - np.trace(of_y)) / (m * (m - 1))
    return float(own_x + own_y - 2 * kernel(x, y).mean())


@pytest.mark.parametrize("kind", ["near", "far"])
@pytest.mark.parametrize(("n", "m", "d"), [(600, 600, 32), (50, 300, 100), (2, 3, 4)])
def test_kernel_distance_equals_scikit_learn(kind, n, m, d):
    x, y = feature_sets(kind, n, m, d)
    np.testing.assert_allclose(
        metrics.kernel_distance(x, y), kernel_oracle(x, y), rtol=1e-5, atol=2e-7
    )


def test_kernel_distance_is_unbiased():
    """Mean 0 over 200 pairs of sets from one distribution, within 3 standard errors."""
    sets = jnp.asarray(normal(0, 400 * 20, 6).reshape(200, 2, 20, 6))
    values = np.asarray(jax.jit(jax.vmap(lambda s: metrics.kernel_distance(s[0], s[1])))(sets))
    assert abs(values.mean()) < 3 * values.std() / 200**0.5
    assert values.min() < 0


def test_kernel_distance_is_symmetric_blind_to_order_and_rotation_and_grows():
    x, y = feature_sets("near", 50, 40, 8)
    turn = np.linalg.qr(normal(9, 8, 8))[0]
    expected = metrics.kernel_distance(x, y + 1)
    for a, b in ((y + 1, x), (x[::-1], y + 1), (x @ turn, (y + 1) @ turn)):
        np.testing.assert_allclose(metrics.kernel_distance(a, b), expected, rtol=1e-5)
    assert metrics.kernel_distance(x, y) < expected < metrics.kernel_distance(x, y + 2)


def test_gradient_of_kernel_distance():
    x, y = normal(1, 9, 4), normal(2, 7, 4) + 1
    way = normal(3, 9, 4)
    gradient = jax.jit(jax.grad(metrics.kernel_distance))(x, y)
    x, y, way = np.float64(x), np.float64(y), np.float64(way)
    slope = (kernel_oracle(x + 1e-5 * way, y) - kernel_oracle(x - 1e-5 * way, y)) / 2e-5
    np.testing.assert_allclose((gradient * way).sum(), slope, rtol=1e-4)


# --- precision, recall, density, coverage ---


def prdc_oracle(real: np.ndarray, fake: np.ndarray, k: int) -> list[float]:
    """The definitions of Naeem et al. in float64, radii by scikit-learn."""

    def radii(rows):
        neighbours = sklearn.neighbors.NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(
            rows
        )
        return neighbours.kneighbors()[0][:, -1]  # without arguments, a row is not its own

    real, fake = real.astype(np.float64), fake.astype(np.float64)
    distances = scipy.spatial.distance.cdist(real, fake)  # by differences
    in_real = distances < radii(real)[:, None]  # [n, m]
    in_fake = distances < radii(fake)[None]
    density = in_real.sum() / (k * len(fake))
    covered = distances.min(1) < radii(real)
    return [in_real.any(0).mean(), in_fake.any(1).mean(), density, covered.mean()]


@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(200, 200, 8, 5), (150, 40, 3, 1), (40, 150, 60, 5)]
)
def test_prdc_equals_the_definitions(n, m, d, k):
    real, fake = normal(1, n, d), np.float32(0.8) * normal(2, m, d) + np.float32(0.3)
    np.testing.assert_allclose(metrics.prdc(real, fake, k=k), prdc_oracle(real, fake, k), rtol=1e-6)


def tight_clusters(seed: int, n: int, d: int) -> np.ndarray:
    """Four clusters of radius 0.01 at distances of about 100, n rows in all.

    In float32, a product of two rows is off by more than a cluster's squared radius.
    """
    rng = np.random.default_rng(seed)
    centres = 100 * np.random.default_rng(99).normal(size=(4, d))
    return np.float32(centres[np.arange(n) % 4] + 0.01 / d**0.5 * rng.normal(size=(n, d)))


@pytest.mark.parametrize(("n", "m", "d", "k"), [(120, 80, 8, 3), (80, 120, 60, 5)])
def test_prdc_of_tight_clusters_far_apart(n, m, d, k):
    real, fake = tight_clusters(1, n, d), tight_clusters(2, m, d)
    fake[: m // 2] += np.float32(0.02 / d**0.5)  # half of them beside the clusters
    expected = prdc_oracle(real, fake, k)
    assert 0.1 < expected[0] < 0.9
    assert 0.1 < expected[3] <= 1
    np.testing.assert_allclose(metrics.prdc(real, fake, k=k), expected, rtol=1e-6)


def test_distances_are_those_of_float64():
    rows = tight_clusters(3, 40, 64)
    got = jax.vmap(lambda row: generative.squared_distances(row, jnp.asarray(rows)))(rows)
    exact = ((np.float64(rows)[:, None] - np.float64(rows)) ** 2).sum(-1)
    np.testing.assert_allclose(got, exact, rtol=1e-5)
    np.testing.assert_array_equal(got, got.T)  # so that ties are ties


def test_prdc_of_a_line_by_hand():
    real, fake = np.array([[0], [1], [3], [9.0]]), np.array([[0.5], [0.6], [2.5], [20.0]])
    # Radii: 1, 1, 2, 6 of the reals; 0.1, 0.1, 1.9, 17.5 of the fakes. The fakes lie in 2, 2, 1, 0
    # real balls; the real 0 lies in no fake ball, and the ball of the real 9 is empty.
    result = metrics.prdc(real, fake, k=1)
    np.testing.assert_allclose(result, (3 / 4, 3 / 4, 5 / 4, 3 / 4))


def test_prdc_of_equal_and_of_distant_sets():
    x = normal(0, 200, 8)
    np.testing.assert_allclose(metrics.prdc(x, x), (1, 1, 1, 1), rtol=1e-6)
    np.testing.assert_array_equal(metrics.prdc(x, x + 1000), (0, 0, 0, 0))


def test_prdc_tells_fidelity_from_diversity():
    real = normal(0, 200, 8)
    narrow = metrics.prdc(real, np.float32(0.1) * normal(1, 200, 8))
    assert narrow.precision > 0.95
    assert narrow.density > 1
    assert narrow.recall < 0.05
    assert narrow.coverage < 0.5
    wide = metrics.prdc(real, 4 * normal(1, 200, 8))
    assert wide.recall > 0.8
    assert wide.precision < 0.4


def test_prdc_is_blind_to_order_rotation_shift_and_scale():
    real, fake = normal(0, 200, 8), normal(1, 200, 8) + np.float32(0.5)
    turn = np.linalg.qr(normal(9, 8, 8))[0]
    expected = metrics.prdc(real, fake)
    for change in (lambda f: f[::-1], lambda f: f @ turn, lambda f: 3 * f + 2):
        np.testing.assert_allclose(metrics.prdc(change(real), change(fake)), expected, rtol=1e-6)


def test_prdc_of_copies_and_far_from_the_origin():
    x, y = normal(0, 200, 8), normal(1, 200, 8)
    copies = np.repeat(x[:25], 8, axis=0)  # the five nearest rows of each are its copies
    assert metrics.prdc(copies, y).density == 0
    moved = np.float32(x + 1000), np.float32(y + 1000)
    np.testing.assert_allclose(metrics.prdc(*moved), prdc_oracle(*moved, 5), rtol=1e-6)


# --- transforms, blocks, refusals ---


@pytest.mark.parametrize(
    "metric", [metrics.frechet_distance, metrics.kernel_distance, metrics.prdc]
)
def test_under_jit_and_vmap(metric):
    sets = [(normal(i, 20, 5), normal(i + 9, 20, 5)) for i in range(3)]
    x, y = (jnp.stack(side) for side in zip(*sets, strict=True))
    mapped = jax.jit(jax.vmap(metric))(x, y)
    for i, (a, b) in enumerate(sets):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], mapped)
        np.testing.assert_allclose(one, metric(a, b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("entries", "n"), [(1, 53), (7 * 57, 57)])  # sizes no other test compiles
def test_blocks_change_nothing(entries, n, monkeypatch):
    monkeypatch.setattr(generative, "_BLOCK_ENTRIES", entries)
    x, y = normal(0, n, 6), normal(1, 31, 6)
    np.testing.assert_allclose(metrics.kernel_distance(x, y), kernel_oracle(x, y), rtol=1e-5)
    np.testing.assert_allclose(metrics.prdc(x, y), prdc_oracle(x, y, 5), rtol=1e-6)


@pytest.mark.parametrize("metric", [metrics.kernel_distance, metrics.prdc])
def test_memory_does_not_follow_the_number_of_pairs(metric):
    x = jax.ShapeDtypeStruct((40_000, 8), jnp.float32)
    memory = jax.jit(metric).lower(x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 40_000**2 / 8  # a bit a pair, 200 MB


def test_half_precision_features_are_widened():
    x, y = normal(0, 50, 4), normal(1, 50, 4)
    x16, y16 = jnp.bfloat16(x), jnp.bfloat16(y)
    expected = frechet_oracle(np.float32(x16), np.float32(y16))
    value = metrics.frechet_distance(x16, y16)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)


GOOD = np.zeros((10, 3), np.float32)
BAD_ROW = np.where(np.arange(10)[:, None] == 4, np.float32([0, np.nan, 0]), GOOD)


@pytest.mark.parametrize("name", ["frechet_distance", "kernel_distance", "prdc"])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((10, 2, 2, 3)), GOOD, r"got \[10, 2, 2, 3\] and \[10, 3\]; flatten"),
        (GOOD, np.zeros((10, 4)), r"got \[10, 3\] and \[10, 4\]; .* the same layer"),
        (GOOD, np.zeros((0, 3)), r"got \[10, 3\] and \[0, 3\]"),
        (GOOD[:1], GOOD, r"(x|real) must have at least 2 rows, got 1; give more images"),
        (GOOD, GOOD[:1], r"(y|fake) must have at least 2 rows, got 1; give more images"),
        (GOOD, BAD_ROW, r"(y|fake) must be finite; row 4 has nan in column 1\. Leave such"),
    ],
)
def test_bad_features_are_named(name, first, second, message):
    with pytest.raises(ValueError, match=rf"^{name}: .*{message}"):
        getattr(metrics, name)(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.prdc(GOOD, GOOD[:5]), r"prdc: k .* 10 real and 5 fake; got 5\. .* 6 rows"),
        (lambda: metrics.prdc(GOOD, GOOD, k=0), r"prdc: k must be at least 1 .* got 0"),
        (lambda: metrics.inception_score(np.ones(3) / 3), r"\[B, K\] .* got \[3\]; one row is"),
        (lambda: metrics.inception_score(np.zeros((0, 3))), r"got \[0, 3\]"),
        (
            lambda: metrics.inception_score([[0.5, 0.5], [0.5, 0.37]]),
            r"inception_score: probs must sum to 1 per row; row 1 sums to 0.87\. Give jax.nn.softm",
        ),
        (
            lambda: metrics.inception_score([[2.0, -1.0]]),
            r"not be negative or NaN; row 0 has -1 for class 1\. Give probabilities, not logits",
        ),
        (lambda: metrics.inception_score([[np.nan, 1.0]]), r"row 0 has nan for class 0"),
        (
            lambda: metrics.inception_score(np.eye(3), splits=4),
            r"splits must be from 1 to the number of rows, 3; got 4\. Use fewer",
        ),
        (lambda: metrics.inception_score(np.eye(3), splits=0), r"got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_are_checked_under_a_trace_and_values_are_not():
    with pytest.raises(ValueError, match="flatten"):
        jax.jit(metrics.frechet_distance)(GOOD, np.zeros((10, 4)))
    assert np.isnan(jax.jit(metrics.kernel_distance)(GOOD, BAD_ROW))
    assert np.isfinite(jax.jit(metrics.inception_score)(np.full((4, 3), 0.4)))
