"""The factor of the blur levels, on curves for which it is known."""

import numpy as np
import pytest

from experiments.intermediate_constraint import blur_levels
from outgen_jax.data import distort

# Accuracy that falls in proportion to σ: 0.8 on clean images, 0 at 8 pixels.
FALLING = [0.8, *(0.8 * (1 - sigma / 8) for sigma in blur_levels.SIGMAS)]


def test_the_factor_gives_the_wanted_share_of_the_accuracy():
    factor = blur_levels.factor_of(FALLING, 0.75)
    # The mean level is 6 in the paper, so 6 · factor / 8 of the accuracy is lost.
    np.testing.assert_allclose(factor, 0.25 * 8 / 6, rtol=1e-6)
    np.testing.assert_allclose(blur_levels.share(factor, FALLING), 0.75, rtol=1e-6)
    assert blur_levels.share(0.0, FALLING) == 1


def test_a_share_out_of_reach_is_refused():
    with pytest.raises(
        ValueError, match=r"leaves 0\.70 of the accuracy, more than 0\.60; fine-tune"
    ):
        blur_levels.factor_of(FALLING, 0.6)


def test_the_table_has_the_levels_of_the_factor():
    results = {
        "sigmas": blur_levels.SIGMAS,
        "before": FALLING,
        "after": FALLING,
        "images": 250,
        "updates": 40,
        "wanted": 0.75,
        "factor": 0.3,
    }
    text = blur_levels.table(results)
    for sigma in distort.PAPER.blur:
        accuracy = 0.8 * (1 - 0.3 * sigma / 8)
        assert f"| {sigma} | {0.3 * sigma:.2f} | {accuracy:.1%} | {accuracy:.1%} |" in text
    assert "| clean | 80.0% | 80.0% |" in text
