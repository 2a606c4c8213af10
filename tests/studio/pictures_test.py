"""Differences are amplified by what is stated."""

import base64
import io

import numpy as np
from PIL import Image

from outgen_jax.studio import pictures


def test_a_difference_is_the_change_times_the_factor():
    rng = np.random.default_rng(0)
    source = rng.random((16, 16, 3))
    image = np.clip(source + rng.normal(0, 0.01, source.shape), 0, 1)
    shown = pictures.difference(source, image)
    assert shown.factor == 10
    exact = np.clip(0.5 + 10 * (image - source), 0, 1)
    np.testing.assert_allclose(shown.image / 255, exact, atol=0.51 / 255)
    assert ((shown.image == 0) | (shown.image == 255)).mean() <= 0.01


def test_no_change_is_grey():
    shown = pictures.difference(np.zeros((4, 4, 1)), np.zeros((4, 4, 1)))
    assert shown.factor == 1
    assert (shown.image == 128).all()


def test_the_largest_change_still_fits():
    shown = pictures.difference(np.zeros((4, 4, 1)), np.ones((4, 4, 1)))
    assert shown.factor == 1
    assert (shown.image == 255).all()


def test_a_data_url_holds_the_pixels():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    start, data = pictures.data_url(pixels).split(",")
    assert start == "data:image/png;base64"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels
    )
