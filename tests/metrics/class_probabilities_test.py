"""Lists of classes and of the worst images, by hand and against scipy."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from outgen_jax import metrics

ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3]])


def test_top_classes_by_hand():
    found = metrics.top_classes(ROWS)
    np.testing.assert_array_equal(found.classes, [0, 1])  # 2 is no image's likeliest class
    np.testing.assert_allclose(found.shares, [0.75, 0.25])
    np.testing.assert_allclose(found.probs, [0.425, 0.3875])
    np.testing.assert_array_equal(metrics.top_classes(ROWS, count=1).classes, [0])


def test_classes_of_equal_share_are_listed_by_probability_then_by_number():
    rows = np.array([[0.6, 0.4, 0], [0.1, 0.9, 0], [0, 0.3, 0.7]])
    np.testing.assert_array_equal(metrics.top_classes(rows).classes, [1, 0, 2])
    np.testing.assert_array_equal(metrics.top_classes(np.eye(3)[[2, 0, 1]]).classes, [0, 1, 2])


few = hypothesis.settings(max_examples=30, deadline=None)
weights = hypothesis.extra.numpy.arrays(np.float64, (7, 4), elements=st.floats(0, 1))


@few
@hypothesis.given(weights)
def test_against_scipy(weights):
    probs = (weights + 1e-3) / (weights + 1e-3).sum(1, keepdims=True)
    probs = probs.astype(np.float32)
    expected = scipy.stats.entropy(probs.astype(np.float64), axis=1)
    np.testing.assert_allclose(metrics.entropy(probs), expected, atol=1e-5)
    order = metrics.least_certain(probs, count=7)
    assert sorted(order) == list(range(7))
    assert (np.diff(metrics.entropy(probs)[order]) <= 1e-9).all()
    found = metrics.top_classes(probs, count=4)
    np.testing.assert_allclose(found.shares.sum(), 1)
    assert (np.diff(found.shares) <= 0).all()


def test_entropy_of_certain_and_undecided_images():
    rows = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(metrics.entropy(rows), [0, np.log(4), np.log(2)], atol=1e-12)
    np.testing.assert_array_equal(metrics.least_certain(rows), [1, 2, 0])
    np.testing.assert_array_equal(metrics.least_certain(rows, count=1), [1])
    np.testing.assert_array_equal(metrics.least_certain(np.tile(rows[:1], (3, 1))), [0, 1, 2])


def test_surprise_by_hand():
    """Two real images, of class 0 and 1: (1 + 1/6, 1 + 1/6, 1/6) / 2.5 is expected."""
    expected = -np.log(np.array([7 / 6, 7 / 6, 1 / 6]) / 2.5)
    real = np.eye(3)[:2]
    np.testing.assert_allclose(metrics.surprise(np.eye(3), real), expected, rtol=1e-6)
    mixed = metrics.surprise([[0.5, 0.25, 0.25]], real)
    np.testing.assert_allclose(mixed, [0.75 * expected[0] + 0.25 * expected[2]], rtol=1e-6)
    np.testing.assert_array_equal(metrics.least_expected(np.eye(3), real), [2, 0, 1])


def test_the_odd_image_is_found_among_many():
    rng = np.random.default_rng(0)
    real = rng.dirichlet([20, 10, 1, 0.1], 200)
    fake = rng.dirichlet([20, 10, 1, 0.1], 50)
    fake[17] = [0.01, 0.01, 0.01, 0.97]
    assert metrics.least_expected(fake, real, count=3)[0] == 17
    assert len(metrics.least_expected(fake, real, count=3)) == 3
    # Of the images themselves, the expectation is their mean's entropy or less.
    mean = scipy.stats.entropy(real.mean(0))
    np.testing.assert_allclose(metrics.surprise(real, real).mean(), mean, rtol=0.01)


@pytest.mark.parametrize(
    "call",
    [
        metrics.top_classes,
        metrics.entropy,
        metrics.least_certain,
        lambda p: metrics.surprise(p, ROWS),
        lambda p: metrics.surprise(ROWS, p),
        lambda p: metrics.least_expected(p, ROWS),
    ],
)
def test_rows_that_are_no_distributions_are_named(call):
    with pytest.raises(ValueError, match=r"row 1 sums to 0\.8"):
        call([[0.5, 0.3, 0.2], [0.5, 0.2, 0.1]])
    with pytest.raises(ValueError, match=r"got \[3\]; one row is probs\[None\]"):
        call(ROWS[0])


def test_counts_and_classes_are_checked():
    calls = {
        "top_classes": lambda: metrics.top_classes(ROWS, count=0),
        "least_certain": lambda: metrics.least_certain(ROWS, count=0),
        "least_expected": lambda: metrics.least_expected(ROWS, ROWS, count=0),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{name}: count must be at least 1, got 0"):
            call()
    with pytest.raises(ValueError, match=r"same classes, got 3 and 2; take both from one network"):
        metrics.surprise(ROWS, np.eye(2))
