"""The numbers of a target, and the ends of their bars."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outgen_jax as og
from outgen_jax.studio import values
from outgen_jax.studio.values import Number, Range

NUMBERS = (Number(0, 1.5), Number(1, -2.0, free=False), Number(2, 0.25))


def test_a_number_is_free_until_it_is_moved_or_checked():
    found = values.first([0.1234, 7.0], [Range(0, 1, 2), Range(0, 10, 1)])
    assert [(n.value, n.free) for n in found] == [(0.12, True), (7.0, True)]
    assert values.all_free(found)
    moved = values.prescribed(found, 1, 1e6)
    assert moved == (found[0], Number(1, 1e6, free=False))
    assert not values.all_free(moved)
    assert values.left_free(moved, 1, True)[1] == Number(1, 1e6, free=True)
    assert values.left_free(found, 0, False)[0] == Number(0, 0.12, free=False)


def test_no_numbers_are_not_free():
    assert not values.all_free(())


@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans()),
        min_size=1,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_text_and_array_are_the_same_target(drawn):
    names = ["width", "rest", "x", "x", "a,b"] + [f"n{k}" for k in range(len(drawn))]
    numbers = tuple(Number(k, value, free) for k, (value, free) in enumerate(drawn))
    array, text = values.as_array(numbers), values.as_text(numbers, names)
    if values.all_free(numbers):
        assert text == ""
        return
    parsed = og.targets.parse(
        text, class_names=names[: len(drawn)], num_images=1, output=og.outputs.values()
    )[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(parsed), np.ma.getmaskarray(array))
    np.testing.assert_array_equal(parsed.compressed(), array.compressed().astype(np.float32))


@given(st.floats(-1e3, 1e3, allow_subnormal=False), st.floats(1e-3, 1e6))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_bar_has_a_useful_number_of_steps(low, width):
    found = values.covering(low, low + width)
    assert found.low <= low < low + width <= found.high + 1e-9
    steps = (found.high - found.low) * 10**found.decimals
    assert 199 < steps < 2003
    assert steps == pytest.approx(round(steps), abs=1e-3)


def test_ranges_are_twice_as_wide_as_the_outputs():
    found = values.ranges(np.array([[0.0, -4.0, 3.0, 0.0], [2.0, -4.0, 5.0, 0.0]], np.float32))
    assert [r[:2] for r in found] == [(-1, 3), (-8, 0), (2, 6), (-1, 1)]


def test_a_range_is_widened_for_an_image_that_lies_outside():
    found = Range(-1.0, 1.0, 2)
    assert values.including(found, 0.5) is found
    assert values.including(found, 3.214)[:2] == (-1.0, 3.22)


def test_the_unit_is_the_mean_standard_deviation():
    says = np.random.default_rng(0).normal(0, [1, 3], (50, 2))
    assert values.unit(says) == pytest.approx(says.std(0).mean(), rel=5e-3)
    assert values.unit(np.ones((3, 2))) == 1.0


@pytest.mark.parametrize(
    "ends", [[[0, 1]], [[0, 1], [2, 2]], [[0, 1], [0, np.nan]], [0, 1], [["a", 1], [0, 1]]]
)
def test_ends_that_are_no_pairs_are_refused(ends):
    with pytest.raises(ValueError, match=r"expected 2 pairs|could not convert|inhomogeneous"):
        values.given(ends, 2)
    assert values.given([[0, 1], [-5, 5]], 2)[1][:2] == (-5, 5)
