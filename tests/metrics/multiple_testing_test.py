"""Holm's correction against its definition, and what it refuses."""

import numpy as np
import pytest

from outgen_jax import metrics


def test_holm_by_hand():
    # Sorted: 0.01 · 4, 0.02 · 3, 0.02 · 2 (below the one before), 0.9 · 1.
    np.testing.assert_allclose(metrics.holm([0.02, 0.9, 0.01, 0.02]), [0.06, 0.9, 0.04, 0.06])
    np.testing.assert_allclose(metrics.holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(metrics.holm([0.03]), [0.03])
    assert metrics.holm([]).shape == (0,)


def test_holm_rejects_a_true_hypothesis_as_seldom_as_it_says():
    p = np.random.default_rng(0).random((4000, 8))  # studies of eight true hypotheses
    wrong = np.mean([metrics.holm(row).min() < 0.05 for row in p])
    assert 0.03 < wrong < 0.06


@pytest.mark.parametrize("values", [[[0.1]], [1.1], [-0.1], [np.nan]])
def test_holm_refuses_what_is_no_p_value(values):
    with pytest.raises(ValueError, match=r"holm: p_values must be \[n\] in \[0, 1\]"):
        metrics.holm(values)
