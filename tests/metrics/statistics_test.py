"""Intervals and tests against scipy.stats, closed forms, their coverage, and what they refuse."""

import functools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from outgen_jax import metrics

few = hypothesis.settings(max_examples=50, deadline=None)


# --- mean over seeds ---


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_mean_interval_equals_scipy(n, confidence):
    values = np.random.default_rng(n).normal(92, 0.1, n)
    interval = metrics.mean_interval(values, confidence=confidence)
    expected = scipy.stats.t.interval(
        confidence, n - 1, loc=values.mean(), scale=scipy.stats.sem(values)
    )
    np.testing.assert_allclose(interval[1:], expected, rtol=1e-12)
    assert interval.estimate == values.mean()


def test_mean_interval_by_hand():
    # Two seeds: the 97.5 % quantile of Cauchy's distribution, tan(0.475 π), times half their distance.
    interval = metrics.mean_interval([1, 3])
    half = np.tan(0.475 * np.pi)
    np.testing.assert_allclose(interval, (2, 2 - half, 2 + half))
    assert metrics.mean_interval([4, 4, 4]) == (4, 4, 4)


def test_mean_interval_of_curves_is_that_of_each_point():
    curves = np.random.default_rng(0).normal(size=(4, 3, 2))
    interval = metrics.mean_interval(curves)
    assert interval.low.shape == (3, 2)
    at = metrics.mean_interval(curves[:, 1, 0])
    np.testing.assert_allclose([part[1, 0] for part in interval], at)


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(5, 4000))  # five seeds, 4,000 studies
    _, low, high = metrics.mean_interval(samples, confidence=0.9)
    covered = np.mean((low <= 0) & (high >= 0))
    assert abs(covered - 0.9) < 3 * (0.9 * 0.1 / 4000) ** 0.5


# --- paired t-test ---


@few
@hypothesis.given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_paired_t_test_equals_scipy(n, seed, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(shift, 1, n), rng.normal(0, 1, n)
    result, expected = metrics.paired_t_test(a, b), scipy.stats.ttest_rel(a, b)
    np.testing.assert_allclose(result.statistic, expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(result.p_value, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(
        (result.low, result.high), expected.confidence_interval(0.95), rtol=1e-9
    )
    np.testing.assert_allclose(result.difference, (a - b).mean(), rtol=1e-12)
    mirrored = metrics.paired_t_test(b, a)
    assert (mirrored.p_value, mirrored.difference) == (result.p_value, -result.difference)
    # The interval leaves 0 out where the test says so.
    assert (result.low > 0 or result.high < 0) == (result.p_value < 0.05)


def test_pairing_finds_what_seeds_hide():
    seeds = np.array([90.0, 92, 94, 91, 93])
    better = seeds + np.array([0.11, 0.09, 0.1, 0.12, 0.08])
    assert metrics.paired_t_test(better, seeds).p_value < 1e-3
    assert metrics.paired_t_test(better, np.roll(seeds, 1)).p_value > 0.5


@few
@hypothesis.given(st.integers(2, 9), st.integers(2, 9), st.floats(-3, 3))
def test_welch_t_test_equals_scipy(n, m, shift):
    rng = np.random.default_rng(10 * n + m)
    a, b = rng.normal(shift, 1, n), rng.normal(0, 3, m)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    result = metrics.welch_t_test(a, b, confidence=0.9)
    np.testing.assert_allclose(result.p_value, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(result[1:3], expected.confidence_interval(0.9), rtol=1e-9)
    assert result.difference == a.mean() - b.mean()


def test_welch_t_test_where_one_sample_or_both_have_no_spread():
    alone, other = [1, 1, 1], [1, 2, 3]
    result = metrics.welch_t_test(alone, other)
    against_constant = metrics.paired_t_test(alone, other)  # of as many degrees of freedom
    np.testing.assert_allclose(result[:3], against_constant[:3])
    np.testing.assert_allclose(result.p_value, against_constant.p_value)
    assert metrics.welch_t_test(alone, alone) == (0, 0, 0, 1)
    assert metrics.welch_t_test([2, 2], alone) == (1, 1, 1, 0)


def test_paired_t_test_without_spread():
    a = np.array([1.0, 2, 4])
    assert metrics.paired_t_test(a, a) == (0, 0, 0, 0, 1)
    assert metrics.paired_t_test(a + 1, a) == (1, 1, 1, np.inf, 0)
    assert metrics.paired_t_test(a - 1, a) == (-1, -1, -1, -np.inf, 0)


# --- McNemar ---


@few
@hypothesis.given(hypothesis.extra.numpy.arrays(bool, (2, 40)))
def test_mcnemar_equals_the_binomial_test(correct):
    a, b = correct
    result = metrics.mcnemar(a, b)
    assert (result.only_a, result.only_b) == (sum(a & ~b), sum(~a & b))
    n = result.only_a + result.only_b
    expected = scipy.stats.binomtest(result.only_a, n).pvalue if n else 1
    np.testing.assert_allclose(result.p_value, expected, rtol=1e-9)
    assert metrics.mcnemar(b, a) == (result.only_b, result.only_a, result.p_value)


def test_mcnemar_by_hand():
    a = np.array([True] * 6 + [False] * 4)
    b = np.array([False] * 6 + [False] * 4)
    assert metrics.mcnemar(a, b) == (6, 0, 2 / 2**6)
    assert metrics.mcnemar(a, a) == (0, 0, 1)
    assert metrics.mcnemar([True, False], [False, True]) == (1, 1, 1)


def test_mcnemar_of_many_images():
    a = np.arange(50_000) % 50 != 0
    b = np.arange(50_000) % 45 != 0
    result = metrics.mcnemar(a, b)
    expected = scipy.stats.binomtest(result.only_a, result.only_a + result.only_b).pvalue
    np.testing.assert_allclose(result.p_value, expected, rtol=1e-9)
    assert 0.001 < result.p_value < 0.05


# --- bootstrap ---


@pytest.mark.parametrize("method", ["percentile", "basic"])
def test_bootstrap_interval_agrees_with_scipy(method):
    values = np.random.default_rng(0).gamma(2, size=60)
    interval = metrics.bootstrap_interval(np.median, values, resamples=4000, method=method)
    expected = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=4000, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(interval[1:], expected, atol=0.1 * width)
    assert interval.estimate == np.median(values)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(size=(400, 3))
    interval = metrics.bootstrap_interval(lambda v: v.mean(0), values, resamples=2000)
    half = 1.96 * values.std(0) / 20
    for side, expected in ((interval.low, -half), (interval.high, half)):
        np.testing.assert_allclose(side - values.mean(0), expected, rtol=0.1)


def test_bootstrap_interval_follows_its_seed():
    draw = functools.partial(metrics.bootstrap_interval, np.mean, np.arange(9), resamples=50)
    assert draw() == draw(seed=0)
    assert draw() != draw(seed=1)


def test_paired_rows_stay_together_and_others_do_not():
    a = np.random.default_rng(0).normal(0, 5, 50)
    b = a + 1

    def shift(a, b):
        return b.mean() - a.mean()

    together = metrics.bootstrap_interval(shift, a, b, paired=True, resamples=200)
    np.testing.assert_allclose(together, (1, 1, 1), atol=1e-12)
    apart = metrics.bootstrap_interval(shift, a, b[:30], paired=False, resamples=200)
    assert apart.high - apart.low > 1
    labels = np.arange(20) % 4
    paired = metrics.bootstrap_interval(
        metrics.negative_log_likelihood, np.eye(4)[labels], labels, paired=True, resamples=20
    )
    assert paired == (0, 0, 0)


def test_named_tuples_and_fixed_arguments():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    statistic = functools.partial(metrics.prdc, real, k=3)
    interval = metrics.bootstrap_interval(statistic, fake, resamples=30)
    assert metrics.PRDC(*interval.low)._fields[0] == "precision"
    np.testing.assert_allclose(interval.estimate, statistic(fake))
    assert (interval.low <= interval.high).all()


def test_copied_rows_push_the_percentile_interval_of_a_distance_off_its_estimate():
    """Why the docstring sends distances of feature sets to the basic interval."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 20)).astype(np.float32)
    both = {
        method: metrics.bootstrap_interval(
            metrics.frechet_distance, x, y, paired=False, resamples=60, method=method
        )
        for method in ("percentile", "basic")
    }
    assert both["percentile"].low > both["percentile"].estimate
    assert both["basic"].high < both["basic"].estimate  # nearer to the distance of the Gaussians, 0


# --- jackknife ---


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_jackknife_of_a_mean_is_its_own_interval(confidence):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    for groups in (40, 8):
        found = metrics.jackknife_interval(
            lambda v: v.mean(0), rows, groups=groups, confidence=confidence, seed=3
        )
        # Without group j the mean is (n x̄ − (n/g) x̄_j) / (n − n/g): the interval of the group means x̄_j.
        order = np.random.default_rng(3).permutation(40).reshape(groups, -1)
        means = rows[order].mean(1)
        expected = metrics.mean_interval(means, confidence=confidence)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_jackknife_of_a_square():
    """Of x̄² without row j, the closed form: ((n x̄ − x_j)/(n − 1))²."""
    x = np.random.default_rng(1).gamma(2, size=12)
    found = metrics.jackknife_interval(lambda v: v.mean() ** 2, x, groups=12)
    without = ((x.sum() - x) / 11) ** 2
    half = scipy.stats.t.ppf(0.975, 11) * (11 / 12 * ((without - without.mean()) ** 2).sum()) ** 0.5
    square = x.mean() ** 2
    np.testing.assert_allclose(found, (square, square - half, square + half), rtol=1e-9)


def test_the_jackknife_covers_as_often_as_it_says():
    studies = np.random.default_rng(0).normal(1, 1, (40, 3000))
    _, low, high = metrics.jackknife_interval(
        lambda v: np.exp(v.mean(0)), studies, groups=40, confidence=0.9
    )
    assert abs(np.mean((low <= np.e) & (high >= np.e)) - 0.9) < 0.02


def test_rows_beyond_the_groups_are_always_there():
    seen = []
    metrics.jackknife_interval(lambda v: seen.append(set(v)) or v.mean(), np.arange(11.0), groups=3)
    everything = set(range(11))
    out = [everything - s for s in seen]
    assert sorted(map(len, out)) == [0, 3, 3, 3]
    assert len(set.union(*out)) == 9


@pytest.mark.parametrize(("count", "groups"), [(19, 10), (20, 10), (29, 10), (9, 5)])
def test_the_jackknife_is_as_wide_where_groups_leave_a_rest(count, groups):
    """The squared standard error is right on average: 1/n for a mean of unit variance."""
    studies = np.random.default_rng(count).normal(size=(count, 20_000))
    _, low, high = metrics.jackknife_interval(lambda v: v.mean(0), studies, groups=groups)
    errors = (high - low) / 2 / scipy.stats.t.ppf(0.975, groups - 1)
    np.testing.assert_allclose((errors**2).mean(), 1 / count, rtol=0.03)


def test_the_jackknife_of_named_numbers():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    statistic = functools.partial(metrics.prdc, real, k=3)
    found = metrics.jackknife_interval(statistic, fake, groups=5)
    np.testing.assert_allclose(found.estimate, statistic(fake))
    assert (found.low < found.estimate).all()


# --- what they refuse ---

VALUES = np.arange(4.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mean_interval([1]), r"values must have at least 2 .* \[1\]; run more"),
        (lambda: metrics.mean_interval(3), r"got shape \[\]"),
        (
            lambda: metrics.mean_interval([1, np.nan]),
            r"mean_interval: values must be finite; entry \[1\] is nan\. Report a failed seed apart",
        ),
        (lambda: metrics.mean_interval(VALUES, confidence=95), r"between 0 and 1, got 95; 0\.95"),
        (lambda: metrics.welch_t_test([1], [1, 2]), r"welch_t_test: a must have at least 2"),
        (lambda: metrics.welch_t_test(np.eye(2), [1, 2]), r"got \[2, 2\] and \[2\]"),
        (lambda: metrics.paired_t_test([1, 2], [1]), r"paired_t_test: b must have at least 2"),
        (
            lambda: metrics.paired_t_test([1, 2], [1, 2, 3]),
            r"the same shape \[n\], got \[2\] and \[3\]; keep the seeds that both have",
        ),
        (lambda: metrics.paired_t_test(np.eye(3), np.eye(3)), r"got \[3, 3\] and \[3, 3\]"),
        (lambda: metrics.paired_t_test([1, np.inf], [1, 2]), r"a must be finite; .* \[1\] is inf"),
        (lambda: metrics.mcnemar([1, 0], [0, 1]), r"bool \[n\] .* int64 \[2\] .* predicted == lab"),
        (lambda: metrics.mcnemar([True], [True, False]), r"got bool \[1\] and bool \[2\]"),
        (lambda: metrics.mcnemar(np.zeros(0, bool), np.zeros(0, bool)), r"got bool \[0\]"),
        (lambda: metrics.bootstrap_interval(np.mean), r"needs samples .* got shapes \[\]; give"),
        (lambda: metrics.bootstrap_interval(np.mean, [1]), r"at least 2 rows .* \[\[1\]\]"),
        (
            lambda: metrics.bootstrap_interval(np.dot, VALUES, VALUES),
            r"paired must say how 2 samples are drawn; paired=True keeps row i of all together",
        ),
        (
            lambda: metrics.bootstrap_interval(np.dot, VALUES, VALUES[:3], paired=True),
            r"of one length, got shapes \[\[4\], \[3\]\]; use paired=False",
        ),
        (lambda: metrics.bootstrap_interval(np.mean, VALUES, resamples=0), r"at least 1, got 0"),
        (lambda: metrics.bootstrap_interval(np.mean, VALUES, confidence=1), r"0 and 1, got 1"),
        (
            lambda: metrics.bootstrap_interval(np.mean, VALUES, method="bca"),
            r"unknown method 'bca'; use one of percentile, basic",
        ),
        (
            lambda: metrics.jackknife_interval(np.mean, VALUES, groups=1),
            r"groups must be from 2 to the number of rows, got 1 and rows of shape \[4\]; 10 are",
        ),
        (lambda: metrics.jackknife_interval(np.mean, VALUES), r"got 10 and rows of shape \[4\]"),
        (lambda: metrics.jackknife_interval(np.mean, 3, groups=2), r"rows of shape \[\]"),
        (
            lambda: metrics.jackknife_interval(np.mean, VALUES, groups=2, confidence=95),
            r"jackknife_interval: confidence must lie between 0 and 1, got 95",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("measure", [metrics.mean_interval, lambda v: metrics.paired_t_test(v, v)])
def test_masked_entries_are_refused(measure):
    values = np.ma.array([1.0, 2.0, 3.0, 1e9], mask=[0, 0, 0, 1])
    with pytest.raises(ValueError, match="masked entries, which have no value"):
        measure(values)
    with pytest.raises(ValueError, match="holm: p_values has masked entries"):
        metrics.holm(np.ma.array([0.1, 0.2], mask=[0, 1]))
