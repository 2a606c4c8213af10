"""Measures of class distributions: closed forms, limits, oracles, and what they refuse."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from outgen_jax import losses, metrics

few = hypothesis.settings(max_examples=30, deadline=None)
distributions = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(
    lambda weights: (np.array(weights) / sum(weights)).astype(np.float32)
)


def labelled(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), n).astype(np.float32), rng.integers(k, size=n)


# --- total variation ---


def test_closed_forms_and_limits():
    p = np.array([[0.9, 0.1, 0], [1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], np.float32)
    q = np.array([[0.6, 0.2, 0.2], [0, 0, 1], [0.5, 0.5, 0], [0.3, 0.2, 0.5]], np.float32)
    np.testing.assert_allclose(metrics.total_variation(p, q), [0.3, 1, 0, 0.1], atol=1e-7)


@few
@hypothesis.given(distributions, distributions, distributions)
def test_it_is_a_distance_and_bounds_every_event(p, q, r):
    distance = float(metrics.total_variation(p, q))
    assert 0 <= distance <= 1
    assert distance == metrics.total_variation(q, p)
    through = float(metrics.total_variation(p, r) + metrics.total_variation(r, q))
    assert distance <= through + 1e-6
    # The largest difference in probability of any event: here all 16 are tried.
    events = (np.arange(16)[:, None] >> np.arange(4)) & 1
    np.testing.assert_allclose(distance, (events @ (p - q)).max(), atol=1e-6)


def test_leading_axes_and_transforms():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), (2, 3)), rng.dirichlet(np.ones(5), 3)
    expected = np.abs(p - q).sum(-1) / 2
    assert expected.shape == (2, 3)
    np.testing.assert_allclose(metrics.total_variation(p, q), expected, rtol=1e-5)
    mapped = jax.jit(jax.vmap(metrics.total_variation, (0, None)))(p, q)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)
    slope = jax.grad(metrics.total_variation)(np.float32([0.7, 0.3]), np.float32([0.5, 0.5]))
    np.testing.assert_allclose(slope, [0.5, -0.5])


# --- negative log-likelihood ---


def test_negative_log_likelihood_equals_scikit_learn_and_the_loss():
    probs, labels = labelled(0, 40, 6)
    value = metrics.negative_log_likelihood(probs, labels)
    p = probs / probs.sum(1, keepdims=True, dtype=np.float64)  # or it warns
    expected = sklearn.metrics.log_loss(labels, p, labels=range(6))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    per_image = jax.vmap(losses.cross_entropy)(jnp.log(probs), jax.nn.one_hot(labels, 6))
    np.testing.assert_allclose(value, per_image.mean(), rtol=1e-5)
    jitted = jax.jit(metrics.negative_log_likelihood)(probs, labels)
    np.testing.assert_allclose(jitted, value, rtol=1e-6)


def test_negative_log_likelihood_of_the_certain():
    assert metrics.negative_log_likelihood(np.eye(3), [0, 1, 2]) == 0
    assert metrics.negative_log_likelihood(np.eye(3), [0, 1, 1]) == np.inf
    even = metrics.negative_log_likelihood(np.full((4, 8), 1 / 8), [0, 3, 7, 7])
    np.testing.assert_allclose(even, np.log(8), rtol=1e-6)


# --- expected calibration error ---


def calibration_oracle(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Eq. 3 of Guo et al. over the intervals of confidence, literally."""
    confidence, correct = probs.max(1).astype(np.float64), probs.argmax(1) == labels
    total = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    return total


@few
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 15]))
def test_calibration_error_equals_the_definition(seed, bins):
    probs, labels = labelled(seed, 50, 3)
    value = metrics.expected_calibration_error(probs, labels, bins=bins)
    np.testing.assert_allclose(value, calibration_oracle(probs, labels, bins), atol=1e-6)
    assert 0 <= value <= 1
    backwards = metrics.expected_calibration_error(probs[::-1], labels[::-1], bins=bins)
    np.testing.assert_allclose(backwards, value, atol=1e-6)


def test_calibration_error_by_hand():
    # Two bins: (0, ½] holds 0.4 wrong and 0.5 right, (½, 1] holds 0.9 right and 0.8 wrong.
    probs = np.float32([[0.4, 0.3, 0.3], [0.25, 0.5, 0.25], [0.9, 0.1, 0], [0.1, 0.1, 0.8]])
    labels = np.array([1, 1, 0, 0])
    value = metrics.expected_calibration_error(probs, labels, bins=2)
    np.testing.assert_allclose(value, abs(1 - 0.9) / 4 + abs(1 - 1.7) / 4, rtol=1e-6)


def test_calibration_error_of_limits():
    certain = np.eye(4)
    assert metrics.expected_calibration_error(certain, np.arange(4)) == 0
    assert metrics.expected_calibration_error(certain, (np.arange(4) + 1) % 4) == 1
    three_in_four = np.tile(np.float32([0.75, 0.25]), (8, 1))
    labels = np.array([0, 0, 0, 1] * 2)
    np.testing.assert_allclose(
        metrics.expected_calibration_error(three_in_four, labels), 0, atol=1e-7
    )


def test_calibration_error_of_a_calibrated_classifier_falls_with_its_examples():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 20_000)
    labels = (rng.random((20_000, 1)) > probs.cumsum(1)).sum(1)
    assert metrics.expected_calibration_error(probs, labels) < 0.02
    overconfident = probs**3 / (probs**3).sum(1, keepdims=True)
    assert metrics.expected_calibration_error(overconfident, labels) > 0.1


def test_calibration_error_under_jit():
    probs, labels = labelled(0, 30, 5)
    jitted = jax.jit(metrics.expected_calibration_error, static_argnames="bins")
    for bins in (3, 15):
        expected = metrics.expected_calibration_error(probs, labels, bins=bins)
        np.testing.assert_allclose(jitted(probs, labels, bins=bins), expected, atol=1e-7)


# --- the k most probable classes, in order ---


@few
@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_ordered_top_k_equals_sorting(seed, k):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(5), 20).astype(np.float32)
    classes = np.argsort(-probs, axis=1)[:, :k].copy()
    assert metrics.ordered_top_k(probs, classes).all()
    change = rng.random(20) < 0.5
    classes[change] = np.argsort(rng.random((change.sum(), 5)), axis=1)[:, :k]
    expected = (np.argsort(-probs, axis=1)[:, :k] == classes).all(1)
    np.testing.assert_array_equal(metrics.ordered_top_k(probs, classes), expected)
    np.testing.assert_array_equal(metrics.ordered_top_k(np.log(probs), classes), expected)


@pytest.mark.parametrize(
    ("row", "classes", "expected"),
    [
        ([0.1, 0.6, 0.3], [1], True),
        ([0.1, 0.6, 0.3], [2], False),
        ([0.1, 0.6, 0.3], [1, 2], True),
        ([0.1, 0.6, 0.3], [2, 1], False),  # the set is right, the order is not
        ([0.1, 0.6, 0.3], [1, 0], False),  # in order, but 2 lies between
        ([0.1, 0.6, 0.3], [1, 2, 0], True),
        ([0.1, 0.6, 0.3], [1, 1], False),
        ([0.4, 0.4, 0.2], [0, 1], False),  # a tie has no order
        ([0.4, 0.3, 0.3], [0, 1], False),  # nor has one with a class outside
        ([0.4, 0.3, 0.3], [0], True),
        ([0.6, np.nan, 0.3], [0], False),
        ([0.6, np.nan, 0.3], [0, 2], False),
        ([0.6, np.nan, 0.3], [1], False),
    ],
)
def test_ordered_top_k_by_hand(row, classes, expected):
    assert metrics.ordered_top_k([row], [classes]).tolist() == [expected]
    jitted = jax.jit(metrics.ordered_top_k)(np.float32([row, row]), np.array([classes, classes]))
    assert jitted.tolist() == [expected] * 2
    assert jitted.dtype == bool


# --- what they refuse ---

EVEN = np.full((3, 4), 0.25, np.float32)
NAMES = ["expected_calibration_error", "negative_log_likelihood"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (EVEN[0], [0], r"probs must have shape \[B, K\] .* got \[4\]; one row is probs\[None\]"),
        (EVEN[:0], np.zeros(0, int), r"at least one row, got \[0, 4\]"),
        (EVEN, [0, 1], r"labels must have shape \[3\], one per row of probs, got \[2\]"),
        (EVEN, np.eye(3, 4), r"got \[3, 4\]; one-hot labels are turned by labels.argmax"),
        (EVEN, [0.0, 1.0, 2.0], r"labels must be integers in 0\.\.3, got float32"),
        (EVEN, [0, 4, 1], r"labels must lie in 0\.\.3; row 1 has 4\. Count from 0"),
        (EVEN, [0, 1, -1], r"row 2 has -1"),
        (EVEN * 4, [0, 1, 2], r"probs must sum to 1 per row; row 0 sums to 4\. Give jax.nn.softm"),
        (EVEN - 0.5, [0, 1, 2], r"row 0 has -0.25 for class 0\. Give probabilities, not logits"),
        (EVEN * np.nan, [0, 1, 2], r"row 0 has nan for class 0"),
    ],
)
def test_bad_examples_are_named(name, probs, labels, message):
    with pytest.raises(ValueError, match=rf"^{name}: .*{message}"):
        getattr(metrics, name)(probs, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.expected_calibration_error(EVEN, [0, 1, 2], bins=0), r"at least 1, got 0"),
        (
            lambda: metrics.ordered_top_k(EVEN[0], [0, 1]),
            r"shapes \[B, K\] and \[B, k\], got \[4\] and \[2\]; one row is probs\[None\]",
        ),
        (lambda: metrics.ordered_top_k(EVEN, [[0, 1]]), r"got \[3, 4\] and \[1, 2\]"),
        (
            lambda: metrics.ordered_top_k(EVEN, np.zeros((3, 5), int)),
            r"k must be from 1 to the number of classes, 4; classes name 5 a row\. Name fewer",
        ),
        (lambda: metrics.ordered_top_k(EVEN, np.zeros((3, 0), int)), r"classes name 0 a row"),
        (lambda: metrics.ordered_top_k(EVEN, np.zeros((3, 2))), r"classes must be integers"),
        (lambda: metrics.ordered_top_k(EVEN, [[0, 1], [0, 4], [0, 1]]), r"row 1 has 4\. Count"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_checked_under_a_trace_and_values_are_not(name):
    jitted = jax.jit(getattr(metrics, name))
    with pytest.raises(ValueError, match=r"labels must have shape \[3\]"):
        jitted(EVEN, np.zeros(2, int))
    assert np.isfinite(jitted(EVEN * 2, np.zeros(3, int)))


def test_total_variation_of_any_type_of_number():
    p, q = np.eye(3, dtype=np.uint8)[[0, 1]], np.full(3, 1 / 3)
    np.testing.assert_allclose(metrics.total_variation(p, q), [2 / 3, 2 / 3], rtol=1e-6)
    rng = np.random.default_rng(0)
    a, b = (rng.dirichlet(np.ones(1000), 4).astype(np.float16) for _ in range(2))
    expected = np.abs(a.astype(np.float64) - b).sum(-1) / 2
    np.testing.assert_allclose(metrics.total_variation(a, b), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"the same classes, got \[4, 1000\] and \[4, 1\]"):
        metrics.total_variation(a, b[:, :1])
