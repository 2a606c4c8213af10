"""Written data sets are read back exactly, or do not exist."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from outgen_jax import files
from outgen_jax.data import records

FIELDS = {
    "id": records.text(),
    "image": records.image((6, 4, 3)),
    "label": records.label(["cat", "dog"]),
    "probs": records.tensor((2,), "float32"),
    "steps": records.tensor((), "int32"),
}


def example(row: int, **changes: Any) -> dict[str, Any]:
    """Example `row` of a set with all kinds of fields."""
    pixels = np.random.default_rng(row).integers(0, 256, (6, 4, 3), np.uint8)
    probs = np.array([row / 8, 1 - row / 8], np.float32)
    entries = {"id": f"id{row}", "image": pixels, "label": row % 2, "probs": probs, "steps": row}
    return entries | changes


def png(mode: str, size: tuple[int, int]) -> bytes:
    """The bytes of a PNG file of `size` (width, height)."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format="PNG")
    return buffer.getvalue()


def write(directory: Path, splits: dict[str, Any], **options: Any) -> Path:
    """`write_dataset` with what these tests share."""
    return records.write_dataset(
        directory, name="toy", version="1.2.3", fields=FIELDS, splits=splits, **options
    )


def test_dataset_is_read_back_by_tfds(tmp_path):
    import tensorflow_datasets as tfds

    target = tmp_path / "new" / "toy" / "1.2.3"
    splits = {"train": map(example, range(5)), "test": [example(7)]}
    assert write(target, splits, examples_per_shard=2, description="A toy.") == target
    builder = tfds.builder("toy", data_dir=tmp_path / "new")
    assert str(builder.info.version) == "1.2.3"
    assert builder.info.description == "A toy."
    assert builder.info.features["label"].names == ["cat", "dog"]
    assert builder.info.splits["train"].shard_lengths == [2, 2, 1]
    assert builder.info.splits["test"].shard_lengths == [1]
    for split, rows in (("train", range(5)), ("test", [7])):
        stored = builder.as_data_source(split=split)
        assert len(stored) == len(rows)
        for entries, row in zip(stored, rows, strict=True):
            expected = example(row)
            assert entries["id"].decode() == expected["id"]
            assert entries["label"] == expected["label"]
            assert entries["steps"] == expected["steps"]
            assert entries["probs"].dtype == np.float32
            np.testing.assert_array_equal(entries["probs"], expected["probs"])
            np.testing.assert_array_equal(entries["image"], expected["image"])


def test_directory_is_readable_by_others_and_holds_nothing_else(tmp_path):
    write(tmp_path / "set", {"train": [example(0), example(1)]})
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "set").stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        "toy-train.array_record-00000-of-00001",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "set"]


def test_shards_written_one_by_one_equal_the_whole(tmp_path):
    write(tmp_path / "whole", {"train": map(example, range(5))}, examples_per_shard=3)
    parts = tmp_path / "parts"
    parts.mkdir()
    shards = [
        records.write_shard(
            parts / records.shard_name("toy", "train", index, 2),
            fields=FIELDS,
            examples=map(example, rows),
        )
        for index, rows in enumerate([range(3), range(3, 5)])
    ]
    assert [shard.examples for shard in shards] == [3, 2]
    records.write_metadata(
        parts, name="toy", version="1.2.3", fields=FIELDS, shards={"train": shards}
    )
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in parts.iterdir())
    for name in names:
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_values_that_their_type_cannot_hold_are_refused(tmp_path):
    cases = [
        ("int32", 2**40 + 5, "1099511627781"),
        ("int32", np.uint32(2**31), "2147483648"),
        ("float16", 1e6, r"1000000\.0"),
        ("float32", 1e39, r"1e\+39"),
    ]
    for dtype, value, shown in cases:
        fields = {"value": records.tensor((2,), dtype)}
        given = [{"value": np.array([1, value])}]
        with pytest.raises(ValueError, match=rf"'value' must be of type {dtype}, .*{shown}; give"):
            records.write_shard(tmp_path / "shard", fields=fields, examples=given)
    fields = {"value": records.tensor((4,), "float16")}
    kept = [{"value": np.array([0.1, np.inf, -np.inf, np.nan])}]  # rounded, and no number at all
    records.write_shard(tmp_path / "shard", fields=fields, examples=kept)


def test_png_bytes_and_class_names_are_taken_too(tmp_path):
    import tensorflow_datasets as tfds

    encoded = files.png_bytes(example(3)["image"])
    rows = [example(3, image=encoded, label="dog", probs=[0.25, 0.75])]
    directory = write(tmp_path / "set", {"train": rows})
    (entries,) = tfds.builder_from_directory(directory).as_data_source(split="train")
    np.testing.assert_array_equal(entries["image"], example(3)["image"])
    assert entries["label"] == 1
    assert entries["probs"].tolist() == [0.25, 0.75]


def test_a_name_that_is_not_utf8_is_stored_with_its_bytes_escaped(tmp_path):
    import tensorflow_datasets as tfds

    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")  # as Python names such a file
    directory = write(tmp_path / "set", {"train": [example(0, id=name)]})
    (entries,) = tfds.builder_from_directory(directory).as_data_source(split="train")
    assert entries["id"].decode() == "caf\\udce9.png"


@pytest.mark.parametrize("name", ["", "a\nb", "a "])
def test_class_names_that_would_be_stored_as_others_are_refused(name):
    with pytest.raises(ValueError, match=r"label: class names are stored one a line.* class 1 is"):
        records.label(["a", name])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_writing_leaves_nothing(tmp_path, error):
    def stops():
        yield example(0)
        yield example(1)
        raise error

    with pytest.raises(error):
        write(tmp_path / "set", {"test": [example(2)], "train": stops()}, examples_per_shard=1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(error):
        records.write_shard(tmp_path / "shard", fields=FIELDS, examples=stops())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_left_alone(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists; remove it or write somewhere else"):
        write(target, {"train": [example(0)]})
    assert [path.name for path in target.iterdir()] == ["mine.txt"]
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write(dangling, {"train": [example(0)]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "must have id, image, label, probs, steps; it has extra, id"),
        ({"label": 2}, "Class label 2 greater than configured num_classes 2"),
        ({"label": "bird"}, "bird"),
        ({"probs": np.ones(3, np.float32)}, r"'probs' must have shape \[2\]; got \[3\]"),
        ({"steps": 3.5}, "Cannot cast"),
        ({"id": 7}, "Expected binary or unicode string"),
        ({"image": np.zeros((6, 4, 1), np.uint8)}, r"'image' must have shape \[6, 4, 3\]"),
        ({"image": np.zeros((6, 4, 3))}, "expected uint8"),
        ({"image": b"GIF89a"}, "must be those of a PNG file"),
        ({"image": files.png_bytes(np.zeros((6, 4, 3), np.uint8))[:20]}, "those of a PNG file"),
        ({"image": png("RGB", (4, 7))}, r"shape \[6, 4, 3\].*the PNG is \[7, 4, 3\], 8-bit RGB"),
        ({"image": png("L", (4, 6))}, r"the PNG is \[6, 4, 1\], 8-bit grey"),
        ({"image": png("RGBA", (4, 6))}, r"the PNG is \[6, 4, 4\], 8-bit RGBA"),
        ({"image": png("P", (4, 6))}, r"the PNG is \[6, 4, 1\], 1-bit palette"),
        ({"label": 1.7}, "'label' must be a class's index, an integer, or its name; got 1.7"),
        ({"label": None}, "got None"),
    ],
)
def test_wrong_examples_are_refused_by_place(tmp_path, changes, message):
    rows = [example(0), example(1), example(2, **changes)]
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path / "set", {"train": rows}, examples_per_shard=5)
    assert "split 'train', shard 0: write_shard: example 2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Toy-1"}, "name must be lower_snake_case; got 'Toy-1'"),
        ({"version": "1.0"}, r"version must look like '1\.0\.0'; got '1\.0'"),
        ({"splits": {}}, "got no split"),
        ({"splits": {"all": [example(0)]}}, r"got \['all'\]"),
        ({"splits": {"a-b": [example(0)]}}, r"got \['a-b'\]"),
        ({"splits": {"train": []}}, "split 'train' has no examples"),
        ({"examples_per_shard": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    valid = {"name": "toy", "version": "1.0.0", "splits": {"train": [example(0)]}}
    with pytest.raises(ValueError, match=message):
        records.write_dataset(tmp_path / "set", fields=FIELDS, **(valid | options))
    assert list(tmp_path.iterdir()) == []
