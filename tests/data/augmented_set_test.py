"""Augmented sets: which rows they have, what each looks like, where it comes from, and what is refused."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgen_jax.data import augmented_set
from outgen_jax.data.augmented_set import KINDS, AugmentedSet, Origin

KEY = jax.random.key(3)


def bank(number: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 4, 5, 3)).astype(np.uint8)


def by_kind(table: augmented_set.Table) -> dict[str, list[int]]:
    rows = collections.defaultdict(list)
    for source, kind in zip(table.source.tolist(), table.kind.tolist(), strict=True):
        rows[KINDS[kind]].append(source)
    return dict(rows)


# --- the rows ---


def test_no_kinds_are_the_originals_alone():
    table = augmented_set.build(KEY, originals=5, available=9)
    assert by_kind(table) == {"original": [0, 1, 2, 3, 4]}


def test_one_kind_changes_every_original_once():
    table = augmented_set.build(KEY, originals=20, available=20, kinds=["invert"])
    rows = by_kind(table)
    assert rows["original"] == list(range(20))
    assert sorted(rows["invert"]) == list(range(20))
    assert rows["invert"] != list(range(20))
    assert table.source.dtype == table.kind.dtype == np.int32


def test_a_mixture_changes_each_original_in_one_way_and_twice_as_many_in_both():
    kinds = ["contrast", "flip_left_right"]
    once = by_kind(augmented_set.build(KEY, originals=10, available=10, kinds=kinds))
    assert [len(once[kind]) for kind in kinds] == [5, 5]
    assert sorted(once["contrast"] + once["flip_left_right"]) == list(range(10))
    twice = by_kind(augmented_set.build(KEY, originals=10, available=10, kinds=kinds, added=20))
    assert sorted(twice["contrast"]) == sorted(twice["flip_left_right"]) == list(range(10))


def test_generated_images_lie_behind_all_originals():
    kinds = ["generated", "contrast"]
    table = augmented_set.build(
        KEY, originals=4, available=6, kinds=kinds, added=5, generated=3
    )  # 3 and 2: the first kind has one more
    rows = by_kind(table)
    assert rows["generated"] == [6, 7, 8]
    assert len(rows["contrast"]) == 2
    assert set(rows["contrast"]) < set(range(4))


@settings(max_examples=30, deadline=None)
@given(
    originals=st.integers(1, 6),
    spare=st.integers(0, 3),
    number=st.integers(1, 3),
    more=st.integers(0, 30),
)
def test_every_set_has_its_numbers(originals, spare, number, more):
    kinds = ("contrast", "flip_up_down", "generated")[:number]
    added = number + more
    available = originals + spare
    table = augmented_set.build(
        KEY, originals=originals, available=available, kinds=kinds, added=added, generated=added
    )
    rows = by_kind(table)
    sizes = [len(rows[kind]) for kind in kinds]
    assert len(table.source) == originals + added
    assert sum(sizes) == added
    assert max(sizes) - min(sizes) <= 1
    changed = [s for kind in kinds if kind != "generated" for s in rows[kind]]
    assert all(s < originals for s in changed)
    counts = [changed.count(i) for i in range(originals)]
    if "generated" not in rows:
        assert max(counts) - min(counts) <= 1
    else:
        assert rows["generated"] == list(range(available, available + len(rows["generated"])))


def test_the_key_alone_decides():
    first, again, other = (
        augmented_set.build(jax.random.key(seed), originals=30, available=30, kinds=["contrast"])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.source, again.source)
    assert (first.source != other.source).any()


# --- the images ---


def whole() -> tuple[AugmentedSet, np.ndarray]:
    """One row of every kind, in the order of KINDS, all of image 2 but the generated one."""
    images = bank()
    source = np.full(len(KINDS), 2, np.int32)
    source[-1] = 6
    table = augmented_set.Table(source, np.arange(len(KINDS), dtype=np.int32))
    return AugmentedSet(images, table), images


def test_images_are_changed_as_their_kind_says():
    augmented, images = whole()
    found = dict(zip(KINDS, augmented_set.materialise(augmented), strict=True))
    image = images[2]
    np.testing.assert_array_equal(found["original"], image)
    np.testing.assert_array_equal(found["invert"], 255 - image)
    np.testing.assert_array_equal(found["flip_left_right"], image[:, ::-1])
    np.testing.assert_array_equal(found["flip_up_down"], image[::-1])
    np.testing.assert_array_equal(found["generated"], images[6])
    x = image / 255
    mean = x.mean((0, 1))
    stretched = np.rint(255 * np.clip(mean + 1.5 * (x - mean), 0, 1))
    assert np.abs(found["contrast"] - stretched).max() <= 1  # a tie may round either way
    assert (found["contrast"] == stretched).mean() > 0.95
    assert all(images.dtype == np.uint8 for images in found.values())


def test_all_grey_levels_stay_what_they_are():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    table = augmented_set.Table(np.zeros(2, np.int32), np.array([0, KINDS.index("invert")]))
    same, inverted = augmented_set.materialise(AugmentedSet(levels, table))
    np.testing.assert_array_equal(same, levels[0])
    np.testing.assert_array_equal(inverted, 255 - levels[0])


def test_a_batch_is_the_rows_asked_for_whatever_else_is_in_it():
    augmented, _ = whole()
    everything = augmented_set.materialise(augmented)
    rows = np.array([4, 1, 1, 3])
    batch = jax.jit(augmented_set.take)(augmented, rows)
    np.testing.assert_array_equal(batch, everything[rows])
    image = augmented_set.change(augmented.bank[2], augmented.table.kind[3])
    np.testing.assert_array_equal(image, everything[3])


def test_a_long_set_is_made_in_parts(monkeypatch):
    images = bank()
    table = augmented_set.build(KEY, originals=7, available=7, kinds=["invert"])
    straight = augmented_set.materialise(AugmentedSet(images, table))
    monkeypatch.setattr(augmented_set, "_AT_ONCE", 4)
    np.testing.assert_array_equal(augmented_set.materialise(AugmentedSet(images, table)), straight)
    np.testing.assert_array_equal(straight[7:], 255 - images[table.source[7:]])


def test_padding_keeps_the_rows():
    table = augmented_set.build(KEY, originals=3, available=3, kinds=["invert"])
    padded = augmented_set.pad(table, 9)
    assert len(padded.source) == len(padded.kind) == 9
    np.testing.assert_array_equal(padded.source[:6], table.source)
    np.testing.assert_array_equal(padded.kind[:6], table.kind)
    assert augmented_set.pad(table, 6).source.tolist() == table.source.tolist()
    with pytest.raises(ValueError, match="the table has 6 rows, more than length=5"):
        augmented_set.pad(table, 5)


# --- where they come from ---


def test_every_row_has_its_provenance():
    table = augmented_set.Table(
        np.array([1, 0, 3], np.int32),
        np.array([0, KINDS.index("invert"), KINDS.index("generated")]),
    )
    found = augmented_set.provenance(table, ["a.png", "b.png"], "abc123")
    assert found == [
        Origin("b.png", "original", None),
        Origin("a.png", "invert", None),
        Origin("generated_1", "generated", "abc123"),
    ]
    with pytest.raises(ValueError, match="generated rows; name the checkpoint"):
        augmented_set.provenance(table, ["a.png", "b.png"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["rotate"]}, "no kind 'rotate'; use some of contrast, invert, flip_left_right"),
        ({"kinds": ["original"]}, "no kind 'original'; use some of contrast"),
        ({"kinds": ["invert", "invert"]}, "a kind named twice"),
        ({"originals": 8}, "originals=8, but the bank has 7 original images; ask for 1 to 7"),
        ({"originals": 0}, "originals=0"),
        ({"kinds": ["invert", "contrast"], "added": 1}, "added=1 images of 2 kinds"),
        ({"added": 3}, "added=3 images of 0 kinds"),
        ({"kinds": ["generated"]}, "needs 5 generated images, the bank has 0; train a generator"),
        ({"kinds": ["generated"], "generated": 4}, "needs 5 generated images, the bank has 4"),
    ],
)
def test_refuses_what_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=f"augmented_set.build: .*{message}"):
        augmented_set.build(KEY, **({"originals": 5, "available": 7} | options))
