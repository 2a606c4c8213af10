"""Images in .npz files: values kept or rounded to levels, wrong arrays refused."""

import re

import numpy as np
import pytest

from outgen_jax.data import npz

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), np.uint8)


def test_uint8_with_everything(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(
        file, images=PIXELS, labels=[0, 1, 1, 0, 1], class_names=["cat", "dog"], ids=list("vwxyz")
    )
    source = npz.from_npz(file, limit=3)
    np.testing.assert_array_equal(source.images, PIXELS[:3])
    assert source.labels.tolist() == [0, 1, 1]
    assert source.labels.dtype == np.int32
    assert source.class_names == ("cat", "dog")
    assert source.ids == ("v", "w", "x")


def test_floats_round_to_the_nearest_level(tmp_path):
    file = tmp_path / "a.npz"
    levels = np.array([0, 0.49 / 255, 0.51 / 255, 127.4 / 255, 254.6 / 255, 1.0], np.float32)
    np.savez(file, images=levels.reshape(1, 2, 3, 1))
    source = npz.from_npz(file)
    assert source.images.ravel().tolist() == [0, 0, 1, 127, 255, 255]
    assert source.labels is None
    assert source.ids == ("0",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": PIXELS}, "expected an array 'images'; it has pictures"),
        ({"images": PIXELS[..., 0]}, r"must be \[B, H, W, 1 or 3\], at least one"),
        ({"images": PIXELS[:0]}, r"must be \[B, H, W, 1 or 3\], at least one"),
        ({"images": np.uint8(0)}, r"must be \[B, H, W, 1 or 3\], at least one"),
        ({"images": PIXELS.astype(np.int64)}, r"uint8, or float in \[0, 1\], got int64"),
        ({"images": PIXELS.astype(np.float32)}, r"must lie in \[0, 1\]"),
        ({"images": np.full((1, 2, 2, 1), np.nan)}, r"must lie in \[0, 1\]"),
        ({"images": PIXELS, "labels": [0, 1]}, "must be 5 integers"),
        ({"images": PIXELS, "labels": np.zeros(5)}, "must be 5 integers"),
        ({"images": PIXELS, "labels": [0, 0, 0, 0, -1]}, "must lie in 0"),
        ({"images": PIXELS, "labels": [0, 0, 0, 0, 2], "class_names": ["a", "b"]}, r"in 0\.\.1"),
        ({"images": PIXELS, "ids": ["a"] * 5}, "must be 5 different names"),
        ({"images": PIXELS, "ids": ["a", "b"]}, "must be 5 different names"),
        ({"images": PIXELS, "class_names": ["a", "a"]}, "different names"),
        ({"images": np.array([None, "x"], object)}, "cannot be read .* Python objects"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    file = tmp_path / "a.npz"
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=rf"^from_npz: '.*a\.npz'.* {message}"):
        npz.from_npz(file)


def test_that_is_no_archive(tmp_path):
    file = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", PIXELS)
    one_array = (tmp_path / "a.npy").read_bytes()
    for content in (b"", b"garbage" * 10, b"PK\x03\x04 torn", one_array):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            npz.from_npz(file)
    with pytest.raises(FileNotFoundError, match="no file"):
        npz.from_npz(tmp_path / "absent.npz")


UNIT = PIXELS / 255


@pytest.mark.parametrize(
    "images",
    [
        PIXELS[..., 0],
        PIXELS.transpose(0, 3, 1, 2),
        np.concatenate([PIXELS, PIXELS[..., :1]], -1),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.float32),
        2 * UNIT - 1,
        UNIT + (UNIT == 1) * 1e-9,  # beyond the range by rounding
    ],
)
def test_the_remedy_for_images_works(tmp_path, images):
    mended = remedied(tmp_path, "images", images=images)
    grey = images.ndim == 3
    np.testing.assert_array_equal(mended.images, PIXELS[..., :1] if grey else PIXELS)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[0], [2], [1], [0], [1]]),
        np.eye(3)[[0, 2, 1, 0, 1]],
        np.array([0.0, 2, 1, 0, 1]),
        np.array(["a", "c", "b", "a", "b"]),
    ],
)
def test_the_remedy_for_labels_works(tmp_path, labels):
    assert remedied(tmp_path, "labels", images=PIXELS, labels=labels).labels.tolist() == [
        *(0, 2, 1, 0, 1)
    ]


def test_the_remedy_for_python_objects_works(tmp_path):
    names = np.array(["cat", "dog"], object)
    np.savez(tmp_path / "a.npz", images=PIXELS, class_names=names)
    with pytest.raises(ValueError, match=r"store text as array\.astype\(str\)"):
        npz.from_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=PIXELS, class_names=names.astype(str))
    assert npz.from_npz(tmp_path / "a.npz").class_names == ("cat", "dog")


def remedied(tmp_path, name, **arrays):
    """What is read once the array `name` is stored as the message says."""
    file = tmp_path / "a.npz"
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=rf"{name}'? must") as error:
        npz.from_npz(file)
    expression = re.search(
        rf"(numpy\.\w+\({name}.*?\)(\[1\])?|\({name} \+ 1\) / 2|{name}( / 255|\.astype\(.*?\)|\[.*?\]))"
        r"($|, )",
        str(error.value),
    ).group(1)
    arrays[name] = eval(expression, {"numpy": np, name: arrays[name]})
    np.savez(file, **arrays)
    return npz.from_npz(file)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_a_truncated_or_altered_archive_is_named(tmp_path, fraction):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, images=PIXELS)
    data = file.read_bytes()
    place = int(len(data) * fraction)
    for damaged in (data[:place], data[:place] + bytes(8) + data[place + 8 :]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npz.*; copy it again"):
            npz.from_npz(file)
