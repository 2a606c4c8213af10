"""When images move into fewer slots."""

import pytest

from outgen_jax.synthesis import slot_sizes
from outgen_jax.synthesis.slot_sizes import SlotSizes

_WORTH = 100


@pytest.fixture(autouse=True)
def _cheap_programs(monkeypatch):
    monkeypatch.setattr(slot_sizes, "_WORTH_ON_CPU", _WORTH)


@pytest.mark.parametrize(
    ("largest", "devices", "expected"),
    [
        (128, 1, [4, 8, 32, 128]),
        (13, 1, [4, 13]),
        (4, 1, [4]),
        (1, 1, [1]),
        (32, 4, [4, 8, 32]),
        (12, 8, [8, 12]),
        (8, 8, [8]),
    ],
)
def test_sizes_are_about_fourths_and_multiples_of_the_devices(largest, devices, expected):
    sizes = slot_sizes.ladder(largest, devices=devices)
    assert sizes == expected
    assert all(size % devices == 0 for size in sizes[:-1])


def test_counts_are_rounded_to_few_sizes_at_most_a_quarter_above():
    found = [slot_sizes.rounded(count) for count in range(1, 1025)]
    assert found[:8] == list(range(1, 9))
    assert all(0 <= size - count <= count / 4 for count, size in enumerate(found, 1))
    assert len(set(found)) == 8 + 4 * 7
    assert [slot_sizes.rounded(size) for size in found] == found


def test_the_first_images_get_the_slots_that_fit():
    assert SlotSizes([4, 16]).first(3) == 4
    assert SlotSizes([4, 16]).first(5) == 16
    assert SlotSizes([4, 16]).first(100) == 16


def test_images_move_once_what_was_wasted_pays_for_a_program():
    sizes = SlotSizes([4, 16])
    assert sizes.first(16) == 16
    # Two images need 4 of 16 slots: each pass wastes 12.
    assert [sizes.next(16, working=2, passes=1) for _ in range(10)] == [16] * 8 + [4] * 2


def test_slots_that_fit_waste_nothing():
    sizes = SlotSizes([4, 16])
    sizes.first(16)
    assert sizes.next(16, working=5, passes=10**6) == 16
    assert sizes.next(16, working=4, passes=1) == 16


def test_a_program_that_exists_is_taken_at_once():
    sizes = SlotSizes([4, 16])
    sizes.first(3)
    sizes.first(10)
    assert sizes.next(16, working=4, passes=1) == 4


def test_later_images_take_the_slots_of_earlier_ones_until_it_pays():
    sizes = SlotSizes([4, 16])
    sizes.first(16)
    starts = []
    for _ in range(6):
        size = sizes.first(2)
        starts.append(size)
        sizes.next(size, working=2, passes=2)
    assert starts == [16] * 5 + [4]


def test_later_images_that_do_not_fit_get_more_slots():
    sizes = SlotSizes([4, 16])
    sizes.first(2)
    assert sizes.first(9) == 16


def test_accelerators_wait_longer():
    sizes = SlotSizes([4, 16], on_cpu=False)
    sizes.first(16)
    assert sizes.next(16, working=1, passes=_WORTH) == 16
    assert sizes.next(16, working=1, passes=10**6) == 4
