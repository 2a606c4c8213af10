"""Images to train on and to measure with."""

import numpy as np
import pytest

from outgen_jax.data import records, sources, splits
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


@pytest.fixture
def write_tfds(tmp_path):
    """`write_tfds("train")`: a tfds data set of twenty labelled images in each of these splits."""

    def write(*names: str) -> str:
        images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
        fields = {"image": records.image((8, 8, 3)), "label": records.label(["cat", "dog"])}
        examples = [{"image": image, "label": row % 2} for row, image in enumerate(images)]
        directory = tmp_path / "toy" / "1.0.0"
        parts = dict.fromkeys(names, examples)
        records.write_dataset(directory, name="toy", version="1.0.0", fields=fields, splits=parts)
        return str(tmp_path)

    return write


def test_a_tfds_data_set_without_a_test_split_has_a_part_held_out(write_tfds):
    data_dir = write_tfds("train")  # as `generate_dataset` writes it
    found = splits.train_and_test("toy", data_dir=data_dir, held_out=0.25)
    assert (len(found.train.ids), len(found.test.ids), found.held_out) == (15, 5, 0.25)
    assert not set(found.train.ids) & set(found.test.ids)


def test_a_test_split_is_taken_where_there_is_one(write_tfds):
    found = splits.train_and_test("toy", data_dir=write_tfds("train", "test"), limit=3)
    assert (len(found.train.ids), len(found.test.ids), found.held_out) == (3, 20, None)
    assert found.test_name == "test images"


def test_the_folder_of_a_data_set_is_known_for_one(write_tfds, tmp_path, monkeypatch):
    write_tfds("train")
    monkeypatch.chdir(tmp_path.parent)
    for folder in (tmp_path / "toy", f"{tmp_path.name}/toy"):
        assert sources.has_splits(folder)
        assert len(sources.load(folder, split="train[:7]").ids) == 7


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


def test_what_an_npz_lacks_is_named(tmp_path):
    images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    np.savez(tmp_path / "unnamed.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=r"unlabelled\.npz' has no labels; use"):
        splits.train_and_test(tmp_path / "unlabelled.npz")
    with pytest.raises(ValueError, match=r"unnamed\.npz' has no names of its classes; use"):
        splits.train_and_test(tmp_path / "unnamed.npz")


def test_a_folder_that_is_not_there_is_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load: no folder .*nope'; check the path"):
        splits.train_and_test(tmp_path / "nope")
