"""VGG16 against its formulas, its published size, and its behaviour under JAX's transformations."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from outgen_jax.models import VGG16

# Configuration D written out anew: channels, M for max-pooling.
_D = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M")


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(3).random(shape), jnp.float32)


def by_formulas(model: VGG16, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Logits and pre-activations: convolution, batch norm by its statistics, ReLU, then pooling."""
    pre = []
    x = (x - jnp.array([0.4914, 0.4822, 0.4465])) / jnp.array([0.2470, 0.2435, 0.2616])
    for block in model.blocks:
        for layer in block:
            x = lax.conv_general_dilated(
                x, layer.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            norm = layer.norm
            x = (x - norm.mean[...]) / jnp.sqrt(norm.var[...] + 1e-5)
            pre.append(x * norm.scale[...] + norm.bias[...])
            x = jnp.maximum(pre[-1], 0)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1) if model.hidden else x.mean((1, 2))
    for linear in model.hidden:
        pre.append(x @ linear.kernel[...] + linear.bias[...])
        x = jnp.maximum(pre[-1], 0)
    return x @ model.head.kernel[...] + model.head.bias[...], pre


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (2, 32, 64, 3)), ({"hidden": 6, "image_size": 64}, (2, 64, 64, 3))],
)
def test_logits_and_pre_activations_equal_the_formulas(small_vgg16, options, shape):
    graphdef, variables = nnx.split(small_vgg16(**options))
    x = images(*shape)
    logits, pre = jax.jit(lambda v: nnx.merge(graphdef, v).activations(x))(variables)
    expected, expected_pre = jax.jit(lambda v: by_formulas(nnx.merge(graphdef, v), x))(variables)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * jnp.abs(expected).max())
    assert logits.dtype == jnp.float32
    for (name, got), want in zip(pre.items(), expected_pre, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * jnp.abs(want).max(), err_msg=name)
        assert got.min() < 0 < got.max(), name


def test_bfloat16_inside_float32_outside(small_vgg16):
    graphdef, variables = nnx.split(small_vgg16(dtype=jnp.bfloat16, hidden=6))
    floats = {v.dtype for v in jax.tree.leaves(variables) if jnp.issubdtype(v.dtype, jnp.floating)}
    assert floats == {jnp.dtype(jnp.float32)}
    x = images(2, 32, 32, 3)
    logits, pre = jax.jit(lambda v: nnx.merge(graphdef, v).activations(x))(variables)
    assert logits.dtype == jnp.float32
    assert {array.dtype for array in pre.values()} == {jnp.dtype(jnp.bfloat16)}
    expected = jax.jit(lambda v: by_formulas(nnx.merge(graphdef, v), x))(variables)[0]
    np.testing.assert_allclose(logits, expected, atol=0.05 * float(jnp.abs(expected).max()))
    assert not np.allclose(logits, expected, atol=1e-6)


def test_gradient_of_one_image_under_vmap_equals_the_batch(small_vgg16):
    graphdef, variables = nnx.split(small_vgg16())

    def loss(variables, image):
        return jax.nn.log_softmax(nnx.merge(graphdef, variables)(image[None])[0])[2]

    def summed(variables, images):
        return jax.nn.log_softmax(by_formulas(nnx.merge(graphdef, variables), images)[0])[
            :, 2
        ].sum()

    x = images(3, 32, 32, 3)
    gradients = jax.jit(jax.vmap(jax.grad(loss, 1), (None, 0)))(variables, x)
    expected = jax.jit(jax.grad(summed, 1))(variables, x)
    assert float(jnp.abs(expected).max()) > 1e-4
    np.testing.assert_allclose(gradients, expected, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("hidden", [None, 100])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_number_of_parameters(width, hidden):
    model = nnx.eval_shape(lambda: VGG16(10, width, hidden=hidden, rngs=nnx.Rngs(0)))
    channels = [3] + [int(entry * width) for entry in _D if entry != "M"]
    # No bias where a normalisation with scale and bias follows.
    expected = sum(9 * c * k + 2 * k for c, k in itertools.pairwise(channels))
    linear = [channels[-1], *([hidden] * 2 if hidden else []), 10]
    expected += sum((n + 1) * m for n, m in itertools.pairwise(linear))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == expected
    if width == 1 and hidden is None:
        assert expected == 14_728_266 - 4_224  # the common count, which has biases as well


def test_names_and_shapes_of_the_pre_activations():
    def activations(x):
        model = VGG16(7, 0.25, hidden=20, image_size=64, rngs=nnx.Rngs(0))
        assert model.layer_names == tuple(names)
        return model.activations(x)

    names, shapes, block, size = [], [], 1, 64
    for entry in _D:
        if entry == "M":
            block, size = block + 1, size // 2
        else:
            layer = sum(name.startswith(f"conv{block}_") for name in names) + 1
            names.append(f"conv{block}_{layer}")
            shapes.append((2, size, size, entry // 4))
    names += ["fc1", "fc2"]
    shapes += [(2, 20)] * 2
    logits, pre = nnx.eval_shape(activations, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32))
    assert [(name, array.shape) for name, array in pre.items()] == list(
        zip(names, shapes, strict=True)
    )
    assert len(names) == 15
    assert logits.shape == (2, 7)


def test_training_normalises_by_the_batch_and_keeps_running_statistics(small_vgg16):
    layer = small_vgg16().blocks[0][0]
    before = np.array(layer.norm.mean[...]), np.array(layer.norm.var[...])
    layer.train()
    x = images(2, 4, 4, 3)
    y = nnx.jit(lambda layer, x: layer(x))(layer, x)
    raw = lax.conv_general_dilated(
        x, layer.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, var = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    expected = (raw - mean) / jnp.sqrt(var + 1e-5) * layer.norm.scale[...] + layer.norm.bias[...]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(layer.norm.mean[...], 0.9 * before[0] + 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(layer.norm.var[...], 0.9 * before[1] + 0.1 * var, rtol=1e-5)


def test_dropout_follows_the_hidden_layers_in_training_only(small_vgg16):
    model = small_vgg16(hidden=64, dropout=0.5)
    ones = jnp.ones((1, 64))
    np.testing.assert_array_equal(model.dropout(ones), ones)
    model.train()
    first, second = model.dropout(ones), model.dropout(ones)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("size", [0, 16, 48])
def test_refuses_an_image_size_between(size):
    with pytest.raises(ValueError, match=f"VGG16: image_size must be a multiple of 32, got {size}"):
        VGG16(image_size=size, rngs=nnx.Rngs(0))


def test_refuses_a_width_without_channels(five_layers):
    with pytest.raises(ValueError, match=r"VGG16: width_multiplier 0\.01 leaves no channels"):
        VGG16(width_multiplier=0.01, rngs=nnx.Rngs(0))
    model = nnx.eval_shape(lambda: VGG16(width_multiplier=1 / 64, rngs=nnx.Rngs(0)))
    assert model.blocks[0][0].kernel.shape == (3, 3, 3, 1)


@pytest.mark.parametrize(
    "shape", [(32, 32, 3), (1, 32, 32, 1), (1, 3, 32, 32), (1, 16, 16, 3), (1, 32, 48, 3)]
)
def test_names_the_expected_shape_of_images(small_vgg16, shape):
    with pytest.raises(ValueError, match=r"VGG16: images must be \[B, H, W, 3\].*got \["):
        small_vgg16()(jnp.zeros(shape))
