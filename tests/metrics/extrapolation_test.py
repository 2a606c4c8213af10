"""Scores at infinitely many images: lines, biased scores of known limits, what is refused."""

import functools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from outgen_jax import metrics


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.floats(-100, 100), st.floats(-1000, 1000), st.integers(20, 500))
def test_a_score_on_the_line_gives_the_line(limit, slope, n):
    found = metrics.infinite_sample_score(lambda rows: limit + slope / len(rows), np.zeros(n))
    np.testing.assert_allclose(found.estimate, limit, atol=1e-6)
    np.testing.assert_allclose(found.slope, slope, atol=1e-4)
    assert found.sizes[0] == n // 10
    assert found.sizes[-1] == n


def test_subsets_are_drawn_without_copies_and_by_the_seed():
    seen = []

    def score(rows):
        seen.append(rows)
        return len(rows)

    rows = np.arange(40)
    found = metrics.infinite_sample_score(score, rows, points=4, smallest=10)
    np.testing.assert_array_equal(found.sizes, [10, 20, 30, 40])
    np.testing.assert_array_equal(found.scores, [10, 20, 30, 40])
    assert [len(set(r.tolist())) for r in seen] == [10, 20, 30, 40]
    first, seen[:] = list(seen), []
    metrics.infinite_sample_score(score, rows, points=4, smallest=10)
    for a, b in zip(first, seen, strict=True):
        np.testing.assert_array_equal(a, b)
    other = []
    metrics.infinite_sample_score(
        lambda rows: other.append(rows) or 0, rows, points=4, smallest=10, seed=1
    )
    assert not np.array_equal(first[0], other[0])


def test_the_bias_of_a_variance_is_taken_away():
    """The plain variance is (1 − 1/N) σ² on average: linear in 1/N, with the limit σ²."""
    rng = np.random.default_rng(0)
    found = [
        metrics.infinite_sample_score(np.var, rng.normal(size=200), smallest=5, seed=i)
        for i in range(300)
    ]
    estimates = np.array([f.estimate for f in found])
    assert abs(estimates.mean() - 1) < 3 * estimates.std() / 300**0.5
    assert np.mean([f.scores[0] for f in found]) < 0.9


def test_frechet_distance_and_inception_score_come_nearer_to_their_limits():
    """Of one distribution with the real set: 0; of certain images of 20 equal classes: 20."""
    rng = np.random.default_rng(0)
    distance = functools.partial(metrics.frechet_distance, rng.normal(size=(20_000, 8)))
    found = [
        metrics.infinite_sample_score(distance, rng.normal(size=(1000, 8)), points=5, seed=i)
        for i in range(4)
    ]
    assert all(f.slope > 0 for f in found)
    estimate, smallest, largest = np.mean([(f.estimate, *f.scores[[0, -1]]) for f in found], 0)
    assert abs(estimate) < largest / 2 < smallest / 10

    one_hot = np.eye(20)[rng.integers(20, size=1000)]
    found = metrics.infinite_sample_score(metrics.inception_score, one_hot, points=5)
    assert found.slope < 0
    assert abs(found.estimate - 20) < abs(found.scores[0] - 20) / 3
    np.testing.assert_allclose(found.estimate, 20, rtol=0.01)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (10, {"points": 1}, r"at least 2 points .* 10; got 1 and 1\. Give more images"),
        (10, {"smallest": 10}, r"got 15 and 10"),
        (10, {"smallest": 0}, r"got 15 and 0"),
        (1, {}, r"number of rows, 1; got 15 and 1"),
        (0, {}, r"number of rows, 0"),
    ],
)
def test_bad_input_is_named(n, options, message):
    with pytest.raises(ValueError, match=rf"^infinite_sample_score: needs .*{message}"):
        metrics.infinite_sample_score(np.mean, np.zeros(n), **options)
    with pytest.raises(ValueError, match="number of rows, 0"):
        metrics.infinite_sample_score(np.mean, 3.0)


def test_a_score_that_is_not_finite_is_named():
    with pytest.raises(
        FloatingPointError, match=r"score of 2 rows is not finite; raise `smallest`"
    ):
        metrics.infinite_sample_score(
            lambda rows: np.nan if len(rows) < 3 else 1.0, np.zeros(20), points=19
        )
