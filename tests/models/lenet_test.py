"""LeNet: its layers against numpy, the shipped weights on real digits where they are at hand."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx

from outgen_jax.data import sources
from outgen_jax.models import LeNet, pretrained


@functools.cache
def small() -> LeNet:
    """Two and three channels, statistics that are not the neutral ones, in inference mode."""
    model = LeNet(4, (2, 3), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))):
        if path[-1] in ("scale", "var", "mean", "bias"):
            low = 0.5 if path[-1] in ("scale", "var") else -0.5
            value = rng.uniform(low, low + 1, variable.shape)
            variable.set_value(jnp.asarray(value, jnp.float32))
    model.eval()
    return model


@functools.cache
def seen():
    images = jnp.asarray(np.random.default_rng(1).random((2, 28, 28, 1)), jnp.float32)
    return images, *jax.jit(small().activations)(images), jax.jit(small().features)(images)[1]


def normalised(norm: nnx.BatchNorm, x: np.ndarray) -> np.ndarray:
    mean, var, scale, bias = (
        np.float64(v[...]) for v in (norm.mean, norm.var, norm.scale, norm.bias)
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def convolved(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    """[H, W, C] with [3, 3, C, K], zero padding."""
    return np.stack(
        [
            sum(
                scipy.signal.correlate2d(image[..., c], kernel[..., c, k], mode="same")
                for c in range(image.shape[-1])
            )
            for k in range(kernel.shape[-1])
        ],
        axis=-1,
    )


def pooled(x: np.ndarray) -> np.ndarray:
    h, w, c = x.shape
    return np.maximum(x, 0).reshape(h // 2, 2, w // 2, 2, c).max((1, 3))


def test_layers_equal_numpy():
    model = small()
    images, logits, layers, features = seen()
    assert tuple(layers) == model.layer_names == ("conv1", "conv2", "fc1", "fc2")
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    for b, image in enumerate(np.float64(images)):
        x = (image - 0.1307) / 0.3081
        for name, layer in (("conv1", model.conv1), ("conv2", model.conv2)):
            x = normalised(layer.norm, convolved(np.float64(layer.kernel[...]), x))
            close(layers[name][b], x)
            x = pooled(x)
        x = x.ravel()
        for name, linear in (("fc1", model.fc1), ("fc2", model.fc2)):
            x = normalised(linear.norm, x @ np.float64(linear.kernel[...]))
            close(layers[name][b], x)
            x = np.maximum(x, 0)
        close(features[b], x)
        head = model.head
        close(logits[b], x @ np.float64(head.kernel[...]) + np.float64(head.bias[...]))


def test_shapes_are_those_of_the_docstring():
    model = nnx.eval_shape(lambda: LeNet(rngs=nnx.Rngs(0)))
    model.eval()
    graphdef, state = nnx.split(model)
    logits, layers = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state).activations(x),
        state,
        jax.ShapeDtypeStruct((5, 28, 28, 1), jnp.float32),
    )
    assert logits.shape == (5, 10)
    shapes = {name: layer.shape for name, layer in layers.items()}
    assert shapes == {
        "conv1": (5, 28, 28, 16),
        "conv2": (5, 14, 14, 32),
        "fc1": (5, 120),
        "fc2": (5, 84),
    }


@pytest.mark.parametrize("shape", [(28, 28, 1), (2, 32, 32, 1), (2, 28, 28, 3)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"LeNet: images must be \[B, 28, 28, 1\], got \["):
        small()(jnp.zeros(shape))


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"channels": (6, 0)}, {"channels": (6,)}])
def test_other_sizes_are_refused(options):
    with pytest.raises(ValueError, match=r"LeNet: needs at least one class .* LeNet-5 has \(6, 16"):
        LeNet(**options, rngs=nnx.Rngs(0))


def test_the_shipped_digit_classifier_reaches_its_mark():
    loaded = pretrained.load("mnist_lenet")
    assert isinstance(loaded.model, LeNet)
    assert (loaded.image_size, loaded.class_names) == (28, tuple("0123456789"))
    assert loaded.card["test_accuracy"] >= 0.992
    assert loaded.card["test_images"] == 10_000


def test_the_shipped_digit_classifier_on_mnist():
    if "OUTGEN_DATA_DIR" not in os.environ:
        pytest.skip("OUTGEN_DATA_DIR is unset: no MNIST to look at")
    source = sources.load("mnist", split="test[:1000]", data_dir=os.environ["OUTGEN_DATA_DIR"])
    model = pretrained.load("mnist_lenet").model
    logits = jax.jit(model)(jnp.asarray(source.images, jnp.float32) / 255)
    assert (np.asarray(logits).argmax(-1) == source.labels).mean() >= 0.985
