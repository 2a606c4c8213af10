"""The baseline GAN against numpy, and against its authors' settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from outgen_jax.models import mlp_gan

SHAPE = (4, 3, 2)


@functools.cache
def generator() -> mlp_gan.Generator:
    mean = np.random.default_rng(5).uniform(size=SHAPE)
    return mlp_gan.Generator(SHAPE, mean_image=mean, latent=5, hidden=8, rngs=nnx.Rngs(0))


@functools.cache
def discriminator() -> mlp_gan.Discriminator:
    model = mlp_gan.Discriminator(SHAPE, units=6, pieces=3, rngs=nnx.Rngs(0))
    # The first weights are so small that the biases alone would decide.
    for _, variable in nnx.to_flat_state(nnx.state(model)):
        rng = np.random.default_rng(variable.size)
        variable.set_value(jnp.asarray(rng.normal(size=variable.shape), jnp.float32))
    return model


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def linear(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    return np.float64(x) @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])


def maxout(layer: mlp_gan.Maxout, x: np.ndarray, pieces: int = 3) -> np.ndarray:
    """Unit u is the maximum of the columns u·pieces ... u·pieces + pieces − 1."""
    columns = linear(layer.linear, x)
    return np.stack(
        [columns[:, u : u + pieces].max(1) for u in range(0, columns.shape[1], pieces)], axis=1
    )


def test_generator_equals_numpy():
    model, z = generator(), normal(0, 3, 5)
    h = np.maximum(linear(model.hidden_2, np.maximum(linear(model.hidden_1, z), 0)), 0)
    expected = scipy.special.expit(linear(model.pixels, h)).reshape(3, *SHAPE)
    images = model(z)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert images.dtype == jnp.float32
    assert np.asarray(images).std(0).max() > 1e-5  # weights of ±0.05


def test_discriminator_equals_numpy():
    model, images = discriminator(), jax.nn.sigmoid(normal(0, 3, *SHAPE))
    h = maxout(model.maxout_2, maxout(model.maxout_1, images.reshape(3, -1)))
    logits = model(images)
    assert logits.shape == (3,)
    np.testing.assert_allclose(logits, linear(model.head, h)[:, 0], rtol=1e-5, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch():
    z, images = normal(0, 5, 5), jax.nn.sigmoid(normal(1, 5, *SHAPE))
    for model, x in ((generator(), z), (discriminator(), images)):
        np.testing.assert_allclose(model(x)[3:4], model(x[3:4]), rtol=1e-5, atol=1e-5)


def test_dropout_scales_what_it_keeps_and_needs_a_key():
    """With the three layers made transparent the logit is the one pixel, scaled or dropped."""
    model = mlp_gan.Discriminator((1, 1, 1), units=1, pieces=2, rngs=nnx.Rngs(0))
    for layer in (model.maxout_1.linear, model.maxout_2.linear, model.head):
        layer.kernel.set_value(jnp.ones_like(layer.kernel[...]))
    pixels = jnp.ones((4000, 1, 1, 1))
    np.testing.assert_array_equal(model(pixels), 1)
    dropped = np.asarray(model(pixels, key=jax.random.key(0)))
    assert set(np.unique(dropped)) == {0.0, 1.25 * 2 * 2}
    # A fifth of the pixels and half of both hidden units go: 0.8 · 0.5 · 0.5 stay.
    assert abs((dropped > 0).mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    np.testing.assert_array_equal(dropped, model(pixels, key=jax.random.key(0)))
    assert (dropped != model(pixels, key=jax.random.key(1))).any()


def test_sizes_and_initial_values_are_the_authors():
    g, d = mlp_gan.Generator(rngs=nnx.Rngs(0)), mlp_gan.Discriminator(rngs=nnx.Rngs(0))
    expected = (
        (g.hidden_1, (100, 1200), 0.05),
        (g.hidden_2, (1200, 1200), 0.05),
        (g.pixels, (1200, 784), 0.05),
        (d.maxout_1.linear, (784, 240 * 5), 0.005),
        (d.maxout_2.linear, (240, 240 * 5), 0.005),
        (d.head, (240, 1), 0.005),
    )
    for layer, shape, reach in expected:
        kernel = np.asarray(layer.kernel[...])
        assert kernel.shape == shape
        assert -reach <= kernel.min() < -0.9 * reach
        assert 0.9 * reach < kernel.max() <= reach
        np.testing.assert_allclose(kernel.std(), reach / 3**0.5, rtol=0.1)
        np.testing.assert_array_equal(layer.bias[...], 0)
    assert (d.maxout_1.pieces, g.latent_shape) == (5, (100,))


def test_without_weights_the_generator_shows_the_mean_image():
    mean = np.random.default_rng(0).uniform(size=SHAPE)
    mean[0, 0, 0], mean[0, 0, 1] = 0, 1  # pixels that never vary
    model = mlp_gan.Generator(SHAPE, mean_image=mean, latent=5, hidden=8, rngs=nnx.Rngs(0))
    model.pixels.kernel.set_value(jnp.zeros_like(model.pixels.kernel[...]))
    np.testing.assert_allclose(model(normal(0, 2, 5)), np.stack([mean] * 2), atol=1e-6)
    assert np.isfinite(model.pixels.bias[...]).all()


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (mlp_gan.Generator, {"latent": 0}, "latent must be at least 1, got 0"),
        (mlp_gan.Generator, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (mlp_gan.Generator, {"image_shape": (28, 28)}, r"image_shape must be \(H, W, C\), got"),
        (mlp_gan.Discriminator, {"units": 0}, "units must be at least 1, got 0"),
        (mlp_gan.Discriminator, {"pieces": -1}, "pieces must be at least 1, got -1"),
        (mlp_gan.Discriminator, {"image_shape": (0, 28, 1)}, r".*got \(0, 28, 1\); MNIST's is"),
    ],
)
def test_refuses_options(network, options, message):
    with pytest.raises(ValueError, match=f"mlp_gan.{network.__name__}: {message}"):
        network(**options, rngs=nnx.Rngs(0))


def test_refuses_another_mean_image():
    with pytest.raises(ValueError, match=r"must have the shape \(4, 3, 2\), got \(24,\)"):
        mlp_gan.Generator(SHAPE, mean_image=np.zeros(24), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(5,), (1, 6), (1, 4, 5)])
def test_names_the_expected_shape_of_latent_vectors(shape):
    with pytest.raises(ValueError, match=r"mlp_gan.Generator: z must be \[B, 5\], .*z\[None\]"):
        generator()(jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 3, 2), (1, 4, 3, 1), (1, 24)])
def test_names_the_expected_shape_of_images(shape):
    expected = r"mlp_gan.Discriminator: images must be \[B, 4, 3, 2\], got \(.*images\[None\]"
    with pytest.raises(ValueError, match=expected):
        discriminator()(jnp.zeros(shape))
