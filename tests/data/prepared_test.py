"""Prepared tfds directories: stored pixels come back exactly, errors tell the remedy."""

import os
from pathlib import Path

import numpy as np
import pytest

from outgen_jax import files
from outgen_jax.data import prepared, records

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), np.uint8)


def make_tfds(
    directory: Path,
    *,
    images: np.ndarray = PIXELS,
    name: str = "toy",
    version: str = "1.0.0",
    classes: tuple[str, ...] = ("cat", "dog"),
    labels: tuple[int, ...] = (0, 1, 1, 0, 1),
) -> Path:
    """A data set of the given images with ids 'a', 'b', ... in its split 'test'."""
    fields = {
        "id": records.text(),
        "image": records.image(images.shape[1:]),
        "label": records.label(classes),
    }
    rows = [
        {"id": "abcde"[row], "image": images[row], "label": labels[row]}
        for row in range(len(images))
    ]
    return records.write_dataset(
        directory / name / version, name=name, version=version, fields=fields, splits={"test": rows}
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_gives_stored_pixels_labels_and_ids(tmp_path, channels):
    make_tfds(tmp_path, images=PIXELS[..., :channels])
    source = prepared.from_tfds("toy", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(source.images, PIXELS[..., :channels])
    assert source.images.dtype == np.uint8
    assert source.labels.dtype == np.int32
    assert source.labels.tolist() == [0, 1, 1, 0, 1]
    assert source.class_names == ("cat", "dog")
    assert source.ids == ("a", "b", "c", "d", "e")
    assert source.skipped == ()


def test_limit_and_slices_take_rows_in_order(tmp_path, monkeypatch):
    make_tfds(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(prepared, "_RECORDS_AT_ONCE", 2)  # so that five rows are several blocks
    for split, limit, rows in (
        ("test", None, slice(5)),
        ("test", 3, slice(3)),
        ("test", 99, slice(5)),
        ("test[3:]", None, slice(3, 5)),
    ):
        source = prepared.from_tfds("toy", split=split, limit=limit)
        np.testing.assert_array_equal(source.images, PIXELS[rows])
        assert source.ids == tuple("abcde"[rows])


def test_finds_the_newest_version_and_reads_a_directory(tmp_path):
    make_tfds(tmp_path, version="3.0.2")
    make_tfds(tmp_path, version="3.0.10", images=255 - PIXELS)
    newest = prepared.from_tfds("toy", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(newest.images, 255 - PIXELS)
    for name in ("toy:3.0.2", "toy/3.0.2", tmp_path / "toy" / "3.0.2"):
        old = prepared.from_tfds(name, split="test", data_dir=tmp_path)
        np.testing.assert_array_equal(old.images, PIXELS)


def test_class_names_of_cifar10_survive_a_lost_labels_file(tmp_path):
    names = tuple("0123456789")
    directory = make_tfds(tmp_path, name="cifar10", classes=names)
    (directory / "label.labels.txt").unlink()
    source = prepared.from_tfds("cifar10", split="test", data_dir=tmp_path)
    assert source.class_names == prepared.CIFAR10_CLASSES
    make_tfds(tmp_path, name="toy", classes=names)
    assert prepared.from_tfds("toy", split="test", data_dir=tmp_path).class_names == names


def test_without_labels_and_ids(tmp_path):
    fields = {"image": records.image((6, 4, 3))}
    rows = [{"image": image} for image in PIXELS]
    directory = records.write_dataset(
        tmp_path / "set", name="bare", version="1.0.0", fields=fields, splits={"test": rows}
    )
    source = prepared.from_tfds(directory, split="test")
    assert source.labels is None
    assert source.class_names is None
    assert source.ids == ("0", "1", "2", "3", "4")


def test_withheld_labels_are_no_labels(tmp_path):
    make_tfds(tmp_path, labels=(-1,) * 5)
    source = prepared.from_tfds("toy", split="test", data_dir=tmp_path)
    assert source.labels is None
    assert source.class_names is None


def test_missing_data_set_says_how_to_get_it(tmp_path):
    make_tfds(tmp_path, name="mnist")
    with pytest.raises(FileNotFoundError, match="did you mean 'mnist'") as caught:
        prepared.from_tfds("minst", split="test", data_dir=tmp_path)
    assert f"--data_dir={tmp_path}" in str(caught.value)
    assert "prepare_cifar.py --archive=" in str(caught.value)
    assert "tfds build minst --file_format=array_record" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist"]  # nothing prepared


@pytest.mark.parametrize("split", ["tets", "test[9:", "test[4:2]", "test[:0]", "test[99:]", ""])
def test_wrong_split_lists_the_splits(tmp_path, split):
    make_tfds(tmp_path)
    with pytest.raises(ValueError, match=r"toy has no split .* Splits: test, and slices") as caught:
        prepared.from_tfds("toy", split=split, data_dir=tmp_path)
    assert ("did you mean 'test'" in str(caught.value)) == (split == "tets")


def test_damaged_record_is_named(tmp_path):
    good = files.png_bytes(PIXELS[0])
    fields = {"id": records.text(), "image": records.image((6, 4, 3))}
    rows = [{"id": "fine", "image": good}, {"id": "torn", "image": good[:60]}]
    directory = records.write_dataset(
        tmp_path / "set", name="torn", version="1.0.0", fields=fields, splits={"test": rows}
    )
    with pytest.raises(ValueError, match="image 'torn' cannot be decoded"):
        prepared.from_tfds(directory, split="test")


def test_feature_must_be_an_image(tmp_path):
    fields = {"image": records.tensor((2,), "float32")}
    directory = records.write_dataset(
        tmp_path / "set",
        name="vectors",
        version="1.0.0",
        fields=fields,
        splits={"test": [{"image": [0, 1]}]},
    )
    with pytest.raises(ValueError, match="expected a uint8 feature 'image'"):
        prepared.from_tfds(directory, split="test")


def test_real_cifar10_agrees_with_tfds_own_decoding():
    data_dir = os.environ.get("OUTGEN_DATA_DIR")
    if not data_dir:
        pytest.skip("needs OUTGEN_DATA_DIR, a directory of prepared tfds data sets")
    import tensorflow_datasets as tfds

    source = prepared.from_tfds("cifar10", split="test", data_dir=data_dir, limit=50)
    expected = tfds.data_source("cifar10", split="test[:50]", data_dir=data_dir)
    for row in range(50):
        example = expected[row]
        np.testing.assert_array_equal(source.images[row], example["image"])
        assert source.labels[row] == example["label"]
        assert source.ids[row] == example["id"].decode()
    assert source.class_names == prepared.CIFAR10_CLASSES


def shards_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if "array_record" in path.name)


def three_shards(tmp_path: Path) -> Path:
    fields = {"id": records.text(), "image": records.image((6, 4, 3))}
    rows = [{"id": str(i), "image": image} for i, image in enumerate(PIXELS)]
    return records.write_dataset(
        tmp_path / "set",
        name="parts",
        version="1.0.0",
        fields=fields,
        splits={"test": rows},
        examples_per_shard=2,
    )


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[: len(data) // 2], "0 records can be read, dataset_info.json says 2"),
        (lambda data: data[:-1], "0 records can be read"),
        (lambda data: b"", "0 records can be read"),
        (lambda data: bytes(len(data)), "0 records can be read"),
        (lambda data: b"PNG or other" * 9000, "0 records can be read"),
        (lambda data: data[:100] + bytes(9) + data[109:], "record 2: .* hash mismatch"),
        (
            lambda data: b"version https://git-lfs.github.com/spec/v1",
            "pointer of Git LFS: `git lfs",
        ),
        (None, "it is missing"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, damage, why):
    directory = three_shards(tmp_path)
    shard = shards_of(directory)[1]
    data = shard.read_bytes()
    shard.unlink()
    if damage is not None:
        shard.write_bytes(damage(data))
    message = rf"^from_tfds: '{shard.name}' cannot be read .*{why}"
    with pytest.raises(ValueError, match=message) as error:
        prepared.from_tfds(directory, split="test")
    assert f"copy it to {str(directory)!r} again" in str(error.value)
    np.testing.assert_array_equal(
        prepared.from_tfds(directory, split="test[:2]").images, PIXELS[:2]
    )
    shard.write_bytes(data)  # what the message asks for
    np.testing.assert_array_equal(prepared.from_tfds(directory, split="test").images, PIXELS)


def test_a_shard_of_another_length_is_named(tmp_path):
    directory = three_shards(tmp_path)
    first, _, last = shards_of(directory)
    last.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=rf"'{last.name}' .*2 records can be read, .* says 1"):
        prepared.from_tfds(directory, split="test")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", None])
def test_a_damaged_description_is_named(tmp_path, name, content):
    directory = make_tfds(tmp_path)
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    if (name, content) == ("dataset_info.json", None):
        with pytest.raises(FileNotFoundError, match="no prepared data set"):
            prepared.from_tfds(directory, split="test")
        return
    with pytest.raises(ValueError, match=rf"^from_tfds: .*{name}.* cannot be read") as error:
        prepared.from_tfds(directory, split="test")
    assert str(directory) in str(error.value)


def test_labels_beyond_the_classes_are_refused(tmp_path):
    directory = make_tfds(tmp_path, classes=("a", "b", "c"), labels=(0, 1, 2, 0, 1))
    other = make_tfds(tmp_path / "other", classes=("a", "b"))
    for name in ("features.json", "label.labels.txt"):
        (directory / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match="image 'c' of toy has label 2, but there are 2 classes"):
        prepared.from_tfds(directory, split="test")


def test_ids_may_be_numbers(tmp_path):
    fields = {"id": records.tensor((), "int64"), "image": records.image((6, 4, 3))}
    rows = [{"id": 10 + i, "image": image} for i, image in enumerate(PIXELS)]
    directory = records.write_dataset(
        tmp_path / "set", name="bare", version="1.0.0", fields=fields, splits={"test": rows}
    )
    assert prepared.from_tfds(directory, split="test").ids == ("10", "11", "12", "13", "14")
