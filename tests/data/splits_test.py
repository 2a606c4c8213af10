"""Images to train on and to measure with."""

import numpy as np
import pytest

from outgen_jax.data import sources, splits
from outgen_jax.data.sources import ImageSource


def test_a_source_without_splits_has_a_part_held_out():
    found = splits.train_and_test("digits", held_out=0.2)
    train, test = (set(part.ids) for part in (found.train, found.test))
    assert not train & test
    assert train | test == set(sources.digits().ids)
    assert len(test) == round(0.2 * 1797)
    assert set(found.test.labels) == set(range(10))  # not the last rows, nor one class
    assert (found.held_out, found.test_name) == (0.2, "held-out images")
    again = splits.train_and_test("digits", held_out=0.2, limit=100)
    assert again.test.ids == found.test.ids
    assert len(again.train.ids) == 100
    assert set(again.train.ids) < set(found.train.ids)


def test_a_limited_number_of_training_images_has_all_classes(tmp_path):
    path = tmp_path / "sorted.npz"
    images, labels = np.zeros((40, 8, 8, 3), np.uint8), np.repeat([0, 1], 20)
    np.savez(path, images=images, labels=labels, class_names=["cat", "dog"])
    found = splits.train_and_test(path, held_out=0.5, limit=10)
    assert set(found.train.labels) == {0, 1}


@pytest.mark.parametrize("held_out", [0.0, 0.0001, 1.0])
def test_a_share_that_leaves_nothing_is_named(held_out):
    with pytest.raises(ValueError, match=f"held_out must leave .*, got {held_out} of 1797 images"):
        splits.train_and_test("digits", held_out=held_out)


def test_which_sources_have_splits(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "tfds").mkdir()
    (tmp_path / "tfds" / "dataset_info.json").write_text("{}")
    assert sources.has_splits("mnist")
    assert sources.has_splits(tmp_path / "tfds")
    for spec in ("digits", "photographs", "a.npz", tmp_path / "folder"):
        assert not sources.has_splits(spec)


def test_none_of_the_images_may_be_taken():
    source = ImageSource(np.zeros((2, 8, 8, 3), np.uint8), None, None, ("a", "b"))
    assert source.take([]).images.shape == (0, 8, 8, 3)
    assert source.take([False, True]).ids == ("b",)


def test_channels():
    images = np.zeros((2, 3, 4, 3), np.uint8)
    images[0, ..., 1], images[1] = 255, 77
    source = ImageSource(images, None, None, ("a", "b"))
    grey = source.with_channels(1)
    assert grey.images.shape == (2, 3, 4, 1)
    assert np.unique(grey.images[0]).tolist() == [150]  # 0.587 of 255
    assert np.unique(grey.images[1]).tolist() == [77]
    assert source.with_channels(3) is source
    np.testing.assert_array_equal(grey.with_channels(3).images[1], images[1])
