"""Images as PNG: lossless, and nothing but uint8 images."""

import io

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from outgen_jax import files


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
    )
)
def test_png_is_lossless_and_repeatable(pixels):
    encoded = files.png_bytes(pixels)
    assert encoded == files.png_bytes(np.asfortranarray(pixels))
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(decoded.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("pixels", "remedy"),
    [
        (np.zeros((4, 4, 3)), "scale floats to 0..255, round them, and convert to uint8"),
        (np.zeros((4, 4), np.uint8), r"a grey image is image\[\.\.\., None\]"),
        (np.zeros((4, 4, 2), np.uint8), "keep 1 or 3 of its channels"),
        (np.zeros((2, 4, 4, 3), np.uint8), "write a batch image by image"),
    ],
)
def test_png_refuses_other_arrays(pixels, remedy):
    expected = rf"png_bytes: expected uint8 \[H, W, C\] with C 1 or 3; got .*; {remedy}"
    with pytest.raises(ValueError, match=expected):
        files.png_bytes(pixels)
