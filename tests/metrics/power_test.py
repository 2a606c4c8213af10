"""Power of the paired t-test, against simulation, published values and the normal limit."""

import math

import numpy as np
import pytest
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
