"""The attention's geometry against closed forms and DRAW's own formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from outgen_jax.models import draw
from outgen_jax.models.attention import (
    DRAW_GLANCE,
    Attention,
    Glance,
    attend,
    attention_layer,
    filter_bank,
    read,
    write,
    write_all,
)

bank = jax.jit(filter_bank, static_argnames=("points", "size"))


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def two(one: Attention) -> Attention:
    return jax.tree.map(lambda x: jnp.stack([x, x]), one)


def attention(x: float, y: float, stride: float, sigma: float, intensity: float) -> Attention:
    return Attention(*(jnp.float32(value) for value in (x, y, stride, sigma, intensity)))


# --- filter bank ---


@settings(max_examples=60, deadline=None)
@given(
    center=st.floats(-30, 60),
    stride=st.floats(0, 12),
    sigma=st.floats(0.05, 20),
    points=st.sampled_from([1, 2, 5]),
)
def test_rows_are_normalised_gaussians(center, stride, sigma, points):
    center, stride, sigma = (float(np.float32(v)) for v in (center, stride, sigma))
    mean = center + stride * (np.arange(1, points + 1) - points / 2 - 0.5)  # as DRAW counts
    log_rows = -((np.arange(28) - mean[:, None]) ** 2) / (2 * sigma**2)
    expected = np.exp(log_rows - scipy.special.logsumexp(log_rows, axis=1, keepdims=True))
    rows = bank(center, stride, sigma, points=points, size=28)
    # Rounding moves a centre by up to 1e-5 pixels; a narrow Gaussian near the middle of two feels it.
    np.testing.assert_allclose(rows, expected, atol=3e-5 + 1e-5 / sigma**2)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5])
def test_centres_of_the_grid_average_to_its_centre(points):
    for center in (30.0, 31.5, 33.2):
        centres = bank(center, 4.0, 1.5, points=points, size=64) @ np.arange(64)
        np.testing.assert_allclose(centres.mean(), center, atol=1e-4)
        np.testing.assert_allclose(np.diff(centres), 4, atol=1e-4)


@pytest.mark.parametrize(
    ("center", "sigma", "expected"),
    [(-50, 1, 0), (1e6, 1, 9), (-5, 1e-30, 0), (4.3, 0, 4)],
)
def test_far_or_narrow_gaussians_fall_on_the_nearest_pixel(center, sigma, expected):
    def row(center, sigma):
        return filter_bank(center, 0.0, sigma, points=1, size=10)[0]

    at = jnp.float32(center), jnp.float32(sigma)
    np.testing.assert_allclose(row(*at), np.eye(10)[expected], atol=1e-6)
    for slope in jax.jacobian(row, (0, 1))(*at):
        np.testing.assert_allclose(slope, 0, atol=1e-3)


def test_halfway_between_two_pixels_both_count():
    np.testing.assert_allclose(
        bank(4.5, 0.0, 1e-6, points=1, size=10)[0], np.eye(10)[4:6].mean(0), atol=1e-6
    )


def test_gradients_of_the_filter_bank_equal_finite_differences():
    weights = np.random.default_rng(0).normal(size=(3, 8))
    at = {"center": 3.3, "stride": 1.7, "sigma": 0.9}

    def value(**parameters):
        mean = parameters["center"] + parameters["stride"] * np.arange(-1, 2)
        rows = np.exp(-((np.arange(8) - mean[:, None]) ** 2) / (2 * parameters["sigma"] ** 2))
        return (weights * rows / rows.sum(1, keepdims=True)).sum()

    gradients = jax.grad(
        lambda p: (jnp.float32(weights) * filter_bank(**p, points=3, size=8)).sum()
    )({name: jnp.float32(v) for name, v in at.items()})
    for name in at:
        ahead, behind = ({**at, name: at[name] + step} for step in (1e-5, -1e-5))
        expected = (value(**ahead) - value(**behind)) / 2e-5
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-4, atol=1e-5)


# --- attend, read, write ---


def test_zeros_attend_to_the_whole_image():
    got = attend(jnp.zeros(5), points=5, height=28, width=20)
    np.testing.assert_allclose(got, (9.5, 13.5, 27 / 4, 1, 1), rtol=1e-6)


@pytest.mark.parametrize("first", [DRAW_GLANCE, Glance(stride=2.0, sigma=3.0, intensity=4.0)])
def test_the_first_glance_is_that_of_any_h_with_a_stride_and_of_zeros_without(first):
    layer = attention_layer(6, 5, (28, 20, 1), first, nnx.Rngs(0))
    at_zeros, elsewhere = (
        np.array(attend(layer(h), points=5, height=28, width=20))
        for h in (jnp.zeros(6), normal(0, 6))
    )
    expected = (9.5, 13.5, first.stride or 27 / 4, first.sigma, first.intensity)
    np.testing.assert_allclose(at_zeros, expected, rtol=1e-6)
    assert np.allclose(elsewhere, at_zeros, rtol=1e-6) == (first.stride is not None)


def test_attend_equals_draw_counted_from_one():
    raw = normal(0, 5)
    height, width, points = 12, 9, 4
    g_x, g_y, log_variance, log_stride, log_intensity = np.float64(raw)
    expected = (
        (width + 1) / 2 * (g_x + 1) - 1,
        (height + 1) / 2 * (g_y + 1) - 1,
        (12 - 1) / (points - 1) * np.exp(log_stride),
        np.sqrt(np.exp(log_variance)),
        np.exp(log_intensity),
    )
    got = attend(raw, points=points, height=height, width=width)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    one = attend(raw, points=1, height=height, width=width)
    assert np.isfinite(one).all()


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 3)])
def test_an_identity_like_read_and_write_return_the_image(shape):
    image = normal(0, *shape)
    identity = attention(2.5, 2.5, 1, 1e-2, 1)
    np.testing.assert_allclose(read(image, identity, points=6), image, atol=1e-6)
    np.testing.assert_allclose(write(image, identity, height=6, width=6), image, atol=1e-6)


def test_read_is_the_product_of_the_two_banks():
    image = normal(0, 9, 7)
    got = read(image, attention(2.2, 5.1, 1.5, 0.8, 3), points=4)
    rows = bank(5.1, 1.5, 0.8, points=4, size=9)  # y along the height
    columns = bank(2.2, 1.5, 0.8, points=4, size=7)
    np.testing.assert_allclose(got, 3 * np.float64(rows) @ image @ columns.T, atol=1e-5)


def test_a_read_finds_the_pixel_that_its_centre_names():
    image = jnp.zeros((9, 7)).at[6, 2].set(1.0)
    patch = read(image, attention(2, 6, 1, 1e-2, 0.5), points=3)
    np.testing.assert_allclose(patch, np.pad([[0.5]], 1), atol=1e-6)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_write_is_the_transpose_of_read(channels):
    image, patch = normal(0, 9, 7, *channels), normal(1, 4, 4, *channels)
    for seed in range(3):
        a = attend(normal(seed + 2, 5), points=4, height=9, width=7)
        inner = np.vdot(read(image, a, points=4), patch)
        assert abs(inner) > 1e-3
        written = write(patch, a, height=9, width=7)
        np.testing.assert_allclose(np.vdot(image, written), inner, rtol=1e-4, atol=1e-5)
        transposed = jax.vjp(lambda x, a=a: read(x, a, points=4), image)[1](patch)[0]
        np.testing.assert_allclose(written, transposed, atol=1e-5)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_writes_together_are_the_sum_of_each(channels):
    patches = normal(0, 5, 4, 4, *channels)
    attentions = jax.vmap(lambda raw: attend(raw, points=4, height=9, width=7))(normal(1, 5, 5))
    each = [
        write(patch, jax.tree.map(lambda x, t=t: x[t], attentions), height=9, width=7)
        for t, patch in enumerate(patches)
    ]
    together = write_all(patches, attentions, height=9, width=7)
    assert together.shape == (9, 7, *channels)
    np.testing.assert_allclose(together, np.sum(np.float64(each), 0), atol=1e-5)


def test_channels_are_read_and_written_alone():
    a = attention(3.1, 4.2, 1.3, 0.7, 2)
    image, patch = normal(0, 9, 7, 3), normal(1, 4, 4, 3)
    got = read(image, a, points=4), write(patch, a, height=9, width=7)
    for c in range(3):
        np.testing.assert_allclose(got[0][..., c], read(image[..., c], a, points=4), atol=1e-6)
        np.testing.assert_allclose(
            got[1][..., c], write(patch[..., c], a, height=9, width=7), atol=1e-6
        )


def test_gradients_through_read_and_write_equal_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weights, image = jnp.asarray(rng.normal(size=(9, 7))), jnp.asarray(rng.normal(size=(9, 7)))

        def value(raw):
            a = attend(raw, points=3, height=9, width=7)
            patch = jnp.tanh(read(image, a, points=3))
            return (weights * write(patch, a, height=9, width=7)).sum()

        raw = jnp.asarray(rng.normal(0, 0.3, 5))
        steps = 1e-6 * np.eye(5)
        values = jax.jit(jax.vmap(value))
        expected = (values(raw + steps) - values(raw - steps)) / 2e-6
        gradient = jax.grad(value)(raw)
        assert (np.abs(gradient) > 1e-3).all()
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


# --- where they are found, and what they refuse ---


def test_the_networks_module_gives_the_same_functions():
    for function in (Attention, attend, filter_bank, read, write, write_all):
        assert getattr(draw, function.__name__) is function


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: filter_bank(1, 1, 1, points=0, size=4), "points and size .* 0 and 4; DRAW"),
        (lambda a: filter_bank(1, 1, 1, points=3, size=0), "points and size .* 3 and 0"),
        (
            lambda a: filter_bank(jnp.zeros(3), 1, 1, points=3, size=4),
            r"center must be one number, got shape \(3,\); jax.vmap",
        ),
        (lambda a: attend(jnp.zeros(4), points=3, height=9, width=7), r"five .* \(4,\); lift"),
        (lambda a: read(jnp.zeros((2, 9, 7, 1)), a, points=3), r"read: .*\[H, W\].*lift"),
        (
            lambda a: read(jnp.zeros((9, 7)), two(a), points=3),
            r"read: .*one attention.*\(2,\).*vmap",
        ),
        (
            lambda a: write(jnp.zeros((3, 3)), two(a), height=9, width=7),
            r"write: .*one attention.*\(2,\).*vmap",
        ),
        (lambda a: write(jnp.zeros(9), a, height=9, width=7), r"write: .*\[N, N\].*\(9,\)"),
        (lambda a: write(jnp.zeros((3, 4)), a, height=9, width=7), r"square, .* got \(3, 4\)"),
        (lambda a: write_all(jnp.zeros((3, 4)), a, height=9, width=7), r"square, .* got \(4,\)"),
    ],
)
def test_pure_functions_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call(attention(1, 1, 1, 1, 1))
