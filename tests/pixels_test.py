"""Pixel maps against their closed forms, the filter against numpy's centred full spectrum."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from outgen_jax import pixels
from outgen_jax.data import to_uint8

MAPS = {"arctan": pixels.arctan(), "tanh": pixels.tanh(), "identity": pixels.identity()}
each_map = pytest.mark.parametrize("pixel_map", MAPS.values(), ids=MAPS)

# Closed forms in float64: pixel -> weight, its derivative, and the derivative of weight -> pixel.
CLOSED_FORMS = {
    "arctan": (
        lambda x: np.tan((x - 0.5) * np.pi),
        lambda x: np.pi / np.sin(np.pi * x) ** 2,
        lambda w: 1 / (np.pi * (1 + w**2)),
    ),
    "tanh": (
        lambda x: np.log(x / (1 - x)) / 2,
        lambda x: 1 / (2 * x * (1 - x)),
        lambda w: 1 / (2 * np.cosh(w) ** 2),
    ),
    "identity": (lambda x: x, np.ones_like, np.ones_like),
}
SIZES = [(32, 32), (31, 31), (24, 33), (33, 24), (49, 16), (7, 98), (1, 8)]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def wave(height: int, width: int, row: int, column: int, amplitude: float = 0.3) -> np.ndarray:
    """A sinusoid of `row` and `column` cycles a side around grey, [H, W, 1]."""
    y, x = np.mgrid[:height, :width]
    phase = 2 * np.pi * (row * y / height + column * x / width)
    return (0.5 + amplitude * np.cos(phase)).astype(np.float32)[:, :, None]


# --- maps ---


@each_map
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.float32, 5, elements=st.floats(3 / 1024, 1 - 3 / 1024, width=32)
    )
)
def test_maps_are_inverse_inside_the_range(pixel_map, x):
    np.testing.assert_allclose(pixel_map.to_pixels(pixel_map.to_weights(x)), x, atol=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_maps_and_derivatives_have_their_closed_form(name):
    to_weights, weight_slope, pixel_slope = CLOSED_FORMS[name]
    x = np.linspace(0.01, 0.99, 99)
    w = to_weights(x)
    weights, slope = jax.vmap(jax.value_and_grad(MAPS[name].to_weights))(jnp.float32(x))
    np.testing.assert_allclose(weights, w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, weight_slope(x), rtol=1e-5)
    image, slope = jax.jit(jax.vmap(jax.value_and_grad(MAPS[name].to_pixels)))(jnp.float32(w))
    np.testing.assert_allclose(image, x, atol=1e-6)
    np.testing.assert_allclose(slope, pixel_slope(w), rtol=1e-5)


@each_map
def test_every_grey_level_comes_back_as_itself(pixel_map):
    levels = np.arange(256, dtype=np.uint8)
    weights = pixel_map.to_weights(jnp.float32(levels) / 255)
    assert np.isfinite(weights).all()
    np.testing.assert_array_equal(to_uint8(pixel_map.to_pixels(weights)), levels)


@each_map
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(hypothesis.extra.numpy.arrays(np.float32, 4, elements={"allow_nan": False}))
def test_any_weight_gives_a_pixel_in_range(pixel_map, w):
    image = pixel_map.to_pixels(w)
    assert ((image >= 0) & (image <= 1)).all()


def test_identity_gives_no_gradient_beyond_the_range():
    slope = jax.vmap(jax.grad(pixels.identity().to_pixels))(jnp.array([-0.1, 0.5, 1.1]))
    np.testing.assert_array_equal(slope, [0, 1, 0])


# --- 8 bits ---


def test_to_uint8_takes_the_nearest_level():
    images = np.array([0, 0.49, 0.51, 254.49, 254.51, 255]) / 255
    np.testing.assert_array_equal(to_uint8(images), [0, 0, 1, 254, 255, 255])
    assert to_uint8(jnp.float32(images)).dtype == np.uint8


# --- low-pass filter ---


@pytest.mark.parametrize("rolloff", pixels.ROLLOFFS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0.5, 3, 10])
def test_lowpass_equals_a_mask_on_the_centred_spectrum(size, radius, rolloff):
    image = noise(*size, 3)
    expected = reference.lowpass(image, radius, rolloff)
    np.testing.assert_allclose(pixels.lowpass(image, radius, rolloff=rolloff), expected, atol=2e-6)


@pytest.mark.parametrize("side", [32, 49, 98, 103, 196])
def test_a_frequency_exactly_at_the_radius_passes(side):
    # 49 · (1/49) < 1 in floating point: frequencies must be whole numbers, not quotients.
    image = wave(side, side, 0, 10)
    np.testing.assert_allclose(pixels.lowpass(image, 10), image, atol=1e-5)
    np.testing.assert_allclose(pixels.lowpass(image, 9.99), 0.5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_ideal_lowpass_is_a_projection(size):
    once = pixels.lowpass(noise(*size, 2), 4)
    np.testing.assert_allclose(pixels.lowpass(once, 4), once, atol=1e-6)


@pytest.mark.parametrize("rolloff", pixels.ROLLOFFS)
def test_lowpass_leaves_constants_alone(rolloff):
    image = np.broadcast_to(np.float32([0, 0.3, 1]), (12, 9, 3))
    np.testing.assert_allclose(pixels.lowpass(image, 1, rolloff=rolloff), image, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_radius_beyond_the_image_changes_nothing(size):
    image = noise(*size, 3)
    np.testing.assert_allclose(pixels.lowpass(image, 1000), image, atol=1e-6)


def test_channels_are_filtered_apart():
    image = noise(16, 16, 3)
    alone = [pixels.lowpass(image[:, :, c : c + 1], 3) for c in range(3)]
    np.testing.assert_allclose(pixels.lowpass(image, 3), np.concatenate(alone, -1), atol=1e-6)


@pytest.mark.parametrize("rolloff", pixels.ROLLOFFS)
def test_lowpass_is_linear_and_its_own_transpose(rolloff):
    x, y = noise(15, 12, 2), np.ascontiguousarray(noise(15, 12, 2)[::-1])
    filtered_x, transpose = jax.vjp(lambda z: pixels.lowpass(z, 3, rolloff=rolloff), x)
    filtered_y = pixels.lowpass(y, 3, rolloff=rolloff)
    both = pixels.lowpass(2 * x - y, 3, rolloff=rolloff)
    np.testing.assert_allclose(both, 2 * filtered_x - filtered_y, atol=1e-5)
    np.testing.assert_allclose(transpose(y)[0], filtered_y, atol=1e-6)


@pytest.mark.parametrize(("row", "column"), [(0, 3), (4, 0), (5, 12), (15, 2)])
def test_gaussian_rolloff_weighs_a_frequency(row, column):
    image = wave(32, 40, row, column)
    weight = np.exp(-(row**2 + column**2) / (2 * 5**2))
    expected = 0.5 + weight * (image - 0.5)
    np.testing.assert_allclose(pixels.lowpass(image, 5, rolloff="gaussian"), expected, atol=1e-6)


def test_lowpass_under_jit_and_vmap_equals_the_loop():
    images = noise(3, 14, 11, 2)
    mapped = jax.jit(jax.vmap(lambda image: pixels.lowpass(image, 3)))(images)
    np.testing.assert_allclose(mapped, [pixels.lowpass(image, 3) for image in images], atol=1e-6)


@pytest.mark.parametrize("radius", [0, -1, float("nan")])
def test_lowpass_refuses_a_radius_that_is_not_positive(radius):
    with pytest.raises(ValueError, match=rf"radius must be positive, got {radius}; None"):
        pixels.lowpass(noise(4, 4, 1), radius)


def test_lowpass_takes_one_image():
    with pytest.raises(
        ValueError, match=r"lowpass: the image must be \[H, W, C\], got \[2, 4, 4, 1\]; .*jax\.vmap"
    ):
        pixels.lowpass(noise(2, 4, 4, 1), 2)


def test_lowpass_names_the_rolloffs_it_knows():
    with pytest.raises(ValueError, match=r"unknown rolloff 'box'; use one of ideal, gaussian"):
        pixels.lowpass(noise(4, 4, 1), 2, rolloff="box")


# --- what the filter removes ---


@pytest.mark.parametrize(("row", "column"), [(0, 3), (3, 4), (0, 6), (4, 4), (9, 7)])
def test_high_frequency_energy_of_a_sinusoid(row, column):
    amplitude = 0.3
    expected = amplitude**2 / 2 if np.hypot(row, column) > 5 else 0
    energy = pixels.high_frequency_energy(wave(30, 31, row, column, amplitude), 5)
    np.testing.assert_allclose(energy, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_high_frequency_energy_is_the_energy_of_the_spectrum_outside(size):
    image = noise(*size, 3)
    spectrum = np.fft.fftshift(np.fft.fft2(image, axes=(0, 1)), axes=(0, 1))
    row, column = np.mgrid[: size[0], : size[1]]
    outside = np.hypot(row - size[0] // 2, column - size[1] // 2) > 3
    expected = (np.abs(spectrum[outside]) ** 2).sum() / np.prod(size) ** 2 / 3  # Parseval
    energy = jax.jit(pixels.high_frequency_energy, static_argnums=1)(image, 3)
    np.testing.assert_allclose(energy, expected, rtol=1e-4)
