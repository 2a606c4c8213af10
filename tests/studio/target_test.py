"""Bars that sum to 1, whatever is moved, locked, added or removed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import outgen_jax as og
from outgen_jax.studio import target
from outgen_jax.studio.target import REST, Bar

BARS = (Bar(0, 500), Bar(1, 300), Bar(2, 200))


def values(bars: target.Bars) -> list[int]:
    return [bar.value for bar in bars]


@st.composite
def bars_and_moves(draw):
    count = draw(st.integers(1, 8))
    shares = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    locks = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    numbers = target.apportioned(target.TOTAL, shares)
    bars = tuple(Bar(k, v, lock) for k, (v, lock) in enumerate(zip(numbers, locks, strict=True)))
    moves = st.tuples(st.integers(0, count - 1), st.integers(-100, 1100))
    return bars, draw(st.lists(moves, max_size=5))


@given(bars_and_moves())
def test_any_moves_keep_the_sum_and_what_is_locked(drawn):
    bars, moves = drawn
    locked = [bar for bar in bars if bar.locked]
    for place, value in moves:
        bars = target.moved(bars, place, value)
        assert sum(values(bars)) == target.TOTAL
        assert min(values(bars)) >= 0
        assert [bar for bar in bars if bar.locked] == locked


def test_others_keep_their_proportions():
    assert values(target.moved(BARS, 0, 0)) == [0, 600, 400]
    assert values(target.moved(BARS, 0, 750)) == [750, 150, 100]


def test_a_bar_takes_what_is_locked_for_the_others_off():
    bars = target.with_lock(BARS, 1, True)
    assert values(target.moved(bars, 0, 1000)) == [700, 300, 0]
    assert values(target.moved(target.with_lock(bars, 2, True), 0, 100)) == [500, 300, 200]
    assert target.moved(target.with_lock(BARS, 0, True), 0, 100)[0].value == 500


def test_others_at_nothing_share_alike():
    bars = (Bar(0, 1000), Bar(1, 0), Bar(2, 0))
    assert values(target.moved(bars, 0, 500)) == [500, 250, 250]


def test_labels_move_alone():
    assert values(target.moved(BARS, 0, 900, sums_to_one=False)) == [900, 300, 200]


def test_classes_of_many_come_and_go():
    probs = np.full(1000, 0.0002)
    probs[[7, 3]] = 0.5, 0.3004
    bars = target.likeliest(probs)
    assert [bar.entry for bar in bars] == [7, 3, 0, REST]
    assert sum(values(bars)) == target.TOTAL
    more = target.with_class(bars, 42, 1000)
    assert [bar.entry for bar in more] == [7, 3, 0, 42, REST]
    assert target.with_class(more, 42, 1000) == more
    less = target.without(more, 0)
    assert [bar.entry for bar in less] == [3, 0, 42, REST]
    assert less[-1].value == bars[-1].value + 500
    assert target.without(less, 3) == less


def test_the_last_class_is_what_the_rest_was():
    bars = (Bar(0, 500), Bar(2, 200), Bar(REST, 300, locked=True))
    every = target.with_class(bars, 1, 3)
    assert every == (Bar(0, 500), Bar(2, 200), Bar(1, 300, locked=True))
    assert target.as_array(every, 3).tolist() == [0.5, 0.3, 0.2]
    assert target.without(every, 0) == (Bar(2, 200), Bar(1, 300, locked=True), Bar(REST, 500))


@pytest.mark.parametrize(
    "names",
    [
        ["a ", "b"],
        [" a", "a"],
        ["a\n", "b", ""],
        ["1", "1 ", "01"],
        ["cafe\u0301", "caf\u00e9"],  # one name in two forms
        ["True", "true", "Rest"],
    ],
)
def test_every_name_is_written_so_that_it_is_read_again(names):
    for entry in range(len(names)):
        text = f"{target.written(entry, names)}=1"
        found = og.targets.parse(text, class_names=names, num_images=1)[0]
        assert found.argmax() == entry, text


@pytest.mark.parametrize("rest", [0, 250])
def test_text_and_array_are_the_same_target(rest):
    names = ["cat", "dog", "crane", "crane", "top"]
    bars = (Bar(0, 750 - rest), Bar(3, 150), Bar(4, 100), Bar(REST, rest))
    text = target.as_text(bars, names)
    parsed = og.targets.parse(text, class_names=names, num_images=1)[0]
    array = target.as_array(bars, 5)
    np.testing.assert_array_equal(np.ma.getmaskarray(parsed), np.ma.getmaskarray(array))
    np.testing.assert_allclose(
        parsed.compressed() if rest else parsed, array.compressed(), atol=1e-6
    )


def test_rounding_leaves_nothing_out():
    assert sum(values(target.every_class([1 / 7] * 7))) == target.TOTAL
    assert values(target.independent([0.25, 0.9])) == [250, 900]
