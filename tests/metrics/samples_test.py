"""Sharpness, greyness and evenness against scipy and closed forms."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from outgen_jax.metrics import samples


def test_sharpness_is_the_variance_of_scipys_laplacian():
    images = np.random.default_rng(0).random((3, 7, 9, 2))
    expected = [
        np.stack([scipy.ndimage.laplace(x[..., c])[1:-1, 1:-1] for c in range(2)]).var()
        for x in images
    ]
    np.testing.assert_allclose(samples.laplacian_variance(images), expected, rtol=1e-5)


def test_blur_lowers_sharpness_and_raises_greyness():
    edge = np.zeros((1, 16, 16, 1))
    edge[:, :, 8:] = 1
    blurred = scipy.ndimage.gaussian_filter(edge, (0, 2, 2, 0))
    assert samples.laplacian_variance(blurred)[0] < 0.1 * samples.laplacian_variance(edge)[0]
    assert samples.greyness(edge)[0] == 0 < samples.greyness(blurred)[0]


def test_plain_images():
    plain = np.array([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1) * np.ones((3, 4, 4, 3))
    np.testing.assert_allclose(samples.laplacian_variance(plain), 0, atol=1e-12)
    np.testing.assert_allclose(samples.greyness(plain), [0, 1, 0])


def test_evenness():
    assert samples.kl_to_uniform(np.arange(10), 10) == pytest.approx(0)
    assert samples.kl_to_uniform(np.zeros(5, int), 10) == pytest.approx(np.log(10))
    labels = np.random.default_rng(0).integers(0, 3, 50)
    p = np.bincount(labels, minlength=4) / 50
    expected = scipy.stats.entropy(p, np.full(4, 0.25))
    assert samples.kl_to_uniform(labels, 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: samples.laplacian_variance(np.zeros((5, 5, 1))),
            r"\[B, H, W, C\].*got \[5, 5, 1\]",
        ),
        (lambda: samples.laplacian_variance(np.zeros((1, 2, 5, 1))), "at least 3, got"),
        (lambda: samples.greyness(np.zeros((0, 4, 4, 1))), r"greyness: .* got \[0, 4, 4, 1\]"),
        (
            lambda: samples.kl_to_uniform([], 10),
            r"integers \[n\], at least one, got float64 .* take probs.argmax",
        ),
        (lambda: samples.kl_to_uniform([0, 10], 10), r"must lie in 0..9, got 10; num_classes"),
        (lambda: samples.kl_to_uniform([-1], 10), r"must lie in 0..9, got -1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("measure", [samples.greyness, samples.laplacian_variance])
def test_8_bit_images_count_as_their_floats(measure):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 1)).astype(np.uint8)
    np.testing.assert_allclose(measure(images), measure(np.float32(images) / 255), rtol=1e-5)
