"""The memory benchmark counts the arrays that are given and returned."""

import pytest

from benchmarks.memory.measure import MIB, peak


def test_arrays_are_those_given_and_returned(five_layers):
    found = peak(6, 3, 1 / 64)
    given = 32 * 32 * 3 + 10 * 4  # of an image: its pixels and its target
    # Its pixels as float32, outputs, distance, divergence, steps, and whether it converged, is finite, gave up.
    returned = 32 * 32 * 3 * 4 + 10 * 4 + 3 * 4 + 3
    assert found["arrays"] * MIB == pytest.approx(6 * (given + returned))
    assert found["peak"] > found["arrays"]
