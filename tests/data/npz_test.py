"""Images in .npz files: values kept or rounded to levels, wrong arrays refused."""

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
        ({"images": PIXELS[..., 0]}, r"must be \[N, H, W, C\]"),
        ({"images": PIXELS[:0]}, r"must be \[N, H, W, C\]"),
        ({"images": np.uint8(0)}, r"must be \[N, H, W, C\]"),
        ({"images": PIXELS.astype(np.int64)}, r"uint8, or floats in \[0, 1\]; got int64"),
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
