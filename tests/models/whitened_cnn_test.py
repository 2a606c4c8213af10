"""The whitened network: its first layer against the covariance of patches, its blocks against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from outgen_jax.models import WhitenedCNN, vgg, whitened_cnn

WIDTH = 1 / 16


def photographs(n: int = 30) -> np.ndarray:
    """Smooth uint8 images, whose neighbouring pixels and channels are correlated."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, 10, 10, 3)) + 2 * rng.normal(size=(n, 10, 10, 1))
    smooth = sum(noise[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3))
    return np.clip(128 + 12 * smooth, 0, 255).astype(np.uint8)


def test_whitened_patches_are_uncorrelated_with_unit_variance_and_both_signs():
    images = jnp.asarray(photographs(200), jnp.float32) / 64 - 2
    kernel = whitened_cnn.whitening_kernel(images)
    y = lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(-1, 24)
    np.testing.assert_array_equal(y[:, :12], -y[:, 12:])
    covariance = np.asarray(y[:, :12].T @ y[:, :12] / len(y))
    # The constant that is added to each variance takes a little off those of the smallest directions.
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.02)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)


def test_whiten_scales_integers_to_the_images_that_the_network_takes():
    model = WhitenedCNN(3, WIDTH, rngs=nnx.Rngs(0))
    images = photographs()
    model.whiten(images)
    by_integers = np.asarray(model.whitening[...])
    model.whiten(images.astype(np.float32) / 255)
    np.testing.assert_allclose(model.whitening[...], by_integers, atol=1e-3)
    assert np.abs(by_integers).max() > 1
    with pytest.raises(ValueError, match=r"must be \[B, H, W, 3\], at least one, got \[8, 8, 3\]"):
        model.whiten(images[0])
    with pytest.raises(
        ValueError, match=r"got int64; grey levels become uint8 with numpy\.asarray"
    ):
        model.whiten(images.astype(np.int64))
    with pytest.raises(ValueError, match=r"at least one, got \[0, "):
        model.whiten(images[:0])


def test_the_whitening_is_saved_but_not_trained():
    model = WhitenedCNN(3, WIDTH, rngs=nnx.Rngs(0))
    model.whiten(photographs())
    _, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    assert ("whitening",) not in dict(nnx.to_flat_state(params))
    assert ("whitening",) in dict(nnx.to_flat_state(statistics))


def reference(model: WhitenedCNN, images: jax.Array) -> jax.Array:
    """The network in inference mode, in XLA's operations."""

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def normed(x: jax.Array, norm: nnx.BatchNorm) -> jax.Array:
        return (x - norm.mean[...]) * lax.rsqrt(norm.var[...] + 1e-12) + norm.bias[...]

    x = (images - jnp.array(vgg.MEAN)) / jnp.array(vgg.STD)
    x = jax.nn.gelu(convolved(x, model.whitening[...]) + model.whitening_bias[...])
    for block in model.blocks:
        x = convolved(x, block.kernel1[...])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jax.nn.gelu(normed(x, block.norm1))
        x = jax.nn.gelu(normed(convolved(x, block.kernel2[...]), block.norm2))
    return x.max((1, 2)) @ model.head.kernel[...] / x.shape[-1]


def test_equals_its_layers_in_plain_jax():
    model = WhitenedCNN(3, WIDTH, rngs=nnx.Rngs(0))
    model.whiten(photographs())
    rng = np.random.default_rng(1)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))):
        if path[-1] in ("mean", "bias", "whitening_bias", "var"):
            low = 0.5 if path[-1] == "var" else -0.5
            variable.set_value(jnp.asarray(rng.uniform(low, low + 1, variable.shape), jnp.float32))
    model.eval()
    images = jnp.asarray(rng.random((2, 16, 16, 3)), jnp.float32)
    logits, layers = jax.jit(model.activations)(images)
    np.testing.assert_allclose(logits, jax.jit(lambda x: reference(model, x))(images), atol=1e-5)
    assert tuple(layers) == model.layer_names
    assert layers["conv1_1"].shape == (2, 8, 8, 4)
    assert layers["conv3_2"].shape == (2, 2, 2, 16)


def test_untrained_blocks_pass_their_inputs_on():
    kernel = whitened_cnn._initial_kernel(jax.random.key(0), 4, 6)
    x = jax.random.normal(jax.random.key(1), (1, 5, 5, 4))
    y = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(y[..., :4], x, rtol=1e-6)
    assert 0 < np.abs(kernel[..., 4:]).max() <= 1 / 6


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 12, 16, 3), (1, 32, 32, 1), (1, 0, 8, 3)])
def test_refuses_other_images(shape):
    model = WhitenedCNN(3, WIDTH, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiples of 8"):
        model(jnp.zeros(shape))


def test_refuses_a_width_without_channels():
    with pytest.raises(ValueError, match="leaves no channels"):
        WhitenedCNN(10, 1 / 128, rngs=nnx.Rngs(0))
