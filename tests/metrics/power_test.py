"""Power of the paired t-test, against simulation, published values and the normal limit."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from outgen_jax.metrics import power


def test_power_is_how_often_the_test_finds_the_difference():
    rng = np.random.default_rng(0)
    differences = 0.6 + 1.5 * rng.standard_normal((20_000, 12))
    found = scipy.stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert power.paired_power(12, 0.6, 1.5) == pytest.approx(found.mean(), abs=0.01)
    assert power.paired_power(12, -0.6, 1.5) == power.paired_power(12, 0.6, 1.5)


def test_power_without_a_difference_is_the_significance():
    assert power.paired_power(5, 0.0, 1.0, significance=0.01) == pytest.approx(0.01)


@pytest.mark.parametrize("pairs", [2, 3, 8, 50, 1000])
@pytest.mark.parametrize("significance", [0.05, 0.05 / 38, 1e-17])
def test_power_rises_from_the_significance_to_1(pairs, significance):
    """Also where SciPy's noncentral t is NaN."""
    effects = np.geomspace(1e-3, 1e18, 200)
    found = [power.paired_power(pairs, d, 1.0, significance=significance) for d in (0, *effects)]
    assert found[0] == pytest.approx(significance, rel=1e-6)
    assert found[-1] == pytest.approx(1)
    assert (np.diff(found) >= -1e-14).all()
    assert max(found) <= 1


@pytest.mark.parametrize("significance", [0.05, 0.05 / 38])
def test_power_equals_the_noncentral_t_where_scipy_computes_it(significance):
    for pairs in (2, 3, 8, 50, 1000):
        critical = scipy.special.stdtrit(pairs - 1, 1 - significance / 2)
        shifts = np.linspace(0, 2 * min(critical, 40), 30)
        below, above = (scipy.special.nctdtr(pairs - 1, shifts, c) for c in (-critical, critical))
        expected = below + 1 - above
        found = [
            power.paired_power(pairs, shift / pairs**0.5, 1.0, significance=significance)
            for shift in shifts
        ]
        known = np.isfinite(expected)
        assert known.sum() >= 5
        np.testing.assert_allclose(np.array(found)[known], expected[known], atol=1e-9)


@pytest.mark.parametrize(
    ("effect", "options", "pairs"),
    [
        (8.0, {}, 3),  # two pairs have a power of 0.62, see below
        (3.0, {"significance": 0.05 / 38}, 7),
        (0.1, {"significance": 0.5, "power": 0.51}, 6),
    ],
)
def test_pairs_for_unusual_questions(effect, options, pairs):
    assert power.pairs_needed(effect, 1.0, **options) == pairs
    significance, wanted = options.get("significance", 0.05), options.get("power", 0.8)
    rng = np.random.default_rng(0)
    for count, enough in ((pairs - 1, False), (pairs, True)):
        differences = effect + rng.standard_normal((40_000, count))
        p_values = scipy.stats.ttest_1samp(differences, 0, axis=1).pvalue
        share, exact = (
            (p_values < significance).mean(),
            power.paired_power(count, effect, 1.0, significance=significance),
        )
        assert share == pytest.approx(exact, abs=0.01)
        assert (exact >= wanted) == enough


def test_a_very_small_significance_needs_many_pairs():
    needed = power.pairs_needed(1.0, 1.0, significance=1e-17)
    before, after = (
        power.paired_power(pairs, 1.0, 1.0, significance=1e-17) for pairs in (needed - 1, needed)
    )
    assert before < 0.8 <= after


@pytest.mark.parametrize(
    ("effect", "pairs"),
    [(0.2, 199), (0.5, 34), (0.8, 15)],  # Cohen's small, medium and large effects, as G*Power gives
)
def test_pairs_for_usual_effects(effect, pairs):
    assert power.pairs_needed(effect, 1.0) == pairs
    assert power.paired_power(pairs - 1, effect, 1.0) < 0.8 <= power.paired_power(pairs, effect, 1)


def test_many_pairs_have_the_normal_limit():
    # Student's quantiles add about half of the squared critical value.
    limit = ((1.959964 + 0.841621) / 0.01) ** 2
    assert power.pairs_needed(0.01, 1.0) == math.ceil(limit + 1.959964**2 / 2)
    assert power.pairs_needed(100.0, 1.0) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0), "difference must not be 0"),
        ((0.1, 0.0), "a deviation above 0"),
        ((math.nan, 1.0), "finite difference"),
    ],
)
def test_impossible_questions(arguments, message):
    with pytest.raises(ValueError, match=message):
        power.pairs_needed(*arguments)
    with pytest.raises(ValueError, match="pairs must be at least 2, got 1"):
        power.paired_power(1, 0.1, 1.0)
    with pytest.raises(ValueError, match=r"0\.8 is usual"):
        power.pairs_needed(0.1, 1.0, power=1.0)
