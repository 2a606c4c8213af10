"""Networks of NNX, Linen, plain functions and pytrees, each through `synthesize`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen, nnx

import outgen_jax as og

SHAPE = (4, 4, 3)
IMAGES = np.random.default_rng(0).random((3, *SHAPE), np.float32)
TARGET = np.array([0.2, 0.5, 0.3])
FEW = og.preset("sgd", steps=3)


class NnxNetwork(nnx.Module):
    """A network that behaves differently in training: batch statistics and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(48, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.dropout(self.norm(self.linear(images.reshape(len(images), -1))))


class LinenNetwork(linen.Module):
    """The same in Linen."""

    @linen.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = linen.Dense(3)(images.reshape(len(images), -1))
        return linen.BatchNorm(use_running_average=not train)(x)


def with_statistics(kernel, bias, mean, var, images):
    """A linear layer and batch normalisation by running statistics, in numpy."""
    x = images.reshape(len(images), -1) @ np.asarray(kernel) + np.asarray(bias)
    return (x - np.asarray(mean)) / np.sqrt(np.asarray(var) + 1e-5)


def assert_probabilities(apply_fn, variables, logits_of) -> None:
    """`synthesize` works with the network, and what it reports is `logits_of` its images."""
    result = og.synthesize(apply_fn, variables, IMAGES, TARGET, solver=FEW, history=True)
    assert (result.kl < result.history[:, 0]).all()
    expected = scipy.special.softmax(logits_of(result.images), -1)
    np.testing.assert_allclose(result.probs, expected, atol=1e-5)


def nnx_network(seed: int) -> NnxNetwork:
    model = NnxNetwork(nnx.Rngs(seed))
    model.norm.mean[...] = jnp.array([0.1, -0.2, 0.3])
    model.norm.var[...] = jnp.array([0.5, 1.0, 2.0])
    return model


def test_nnx_in_inference_mode():
    model = nnx_network(0)
    apply_fn, variables = og.models.from_nnx(model)
    layer, norm = model.linear, model.norm
    weights = (layer.kernel[...], layer.bias[...], norm.mean[...], norm.var[...])
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))


def test_nnx_leaves_the_model_as_it_was():
    model = nnx_network(0)
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    apply_fn, variables = og.models.from_nnx(model)
    og.synthesize(apply_fn, variables, IMAGES, TARGET, solver=FEW)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not model.norm.use_running_average
    assert not model.dropout.deterministic
    assert not np.array_equal(model(IMAGES), model(IMAGES))  # dropout still drops


def test_nnx_networks_of_one_structure_share_one_function():
    first, weights = og.models.from_nnx(nnx_network(0))
    second, others = og.models.from_nnx(nnx_network(1))
    assert first is second
    assert not np.array_equal(first(weights, IMAGES), first(others, IMAGES))
    wider = nnx.Linear(48, 3, rngs=nnx.Rngs(0))
    assert og.models.from_nnx(wider)[0] is not first


def test_linen_with_options():
    module = LinenNetwork()
    variables = module.init(jax.random.key(0), IMAGES, train=False)
    mean, var = jnp.array([0.1, -0.2, 0.3]), jnp.array([0.5, 1.0, 2.0])
    variables = {**variables, "batch_stats": {"BatchNorm_0": {"mean": mean, "var": var}}}
    apply_fn = og.models.from_linen(module, train=False)
    dense = variables["params"]["Dense_0"]
    weights = (dense["kernel"], dense["bias"], mean, var)
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))


def test_linen_without_its_option_is_named():
    module = LinenNetwork()
    variables = module.init(jax.random.key(0), IMAGES, train=False)
    with pytest.raises(ValueError, match=r"synthesize: apply_fn\(variables, images\) fails.*train"):
        og.synthesize(og.models.from_linen(module), variables, IMAGES, TARGET)


def test_a_plain_function_of_nested_variables():
    rng = np.random.default_rng(1)
    variables = {"layers": [rng.normal(0, 0.2, (48, 8)), rng.normal(0, 0.5, (8, 3))]}

    def apply_fn(variables, images):
        first, second = variables["layers"]
        return jnp.tanh(images.reshape(len(images), -1) @ first) @ second

    def logits_of(images):
        first, second = variables["layers"]
        return np.tanh(images.reshape(3, -1) @ first) @ second

    assert_probabilities(apply_fn, variables, logits_of)


def test_a_callable_pytree_of_one_image():
    """As Equinox's modules are: arrays for leaves, and one image at a time."""
    kernel = jnp.asarray(np.random.default_rng(1).normal(0, 0.3, (48, 3)), jnp.float32)
    module = jax.tree_util.Partial(lambda kernel, image: image.ravel() @ kernel, kernel)

    def mapped(axis, module, images):
        return jax.vmap(module, axis)(images)

    apply_fn = functools.partial(mapped, 0)
    assert_probabilities(apply_fn, module, lambda images: images.reshape(3, -1) @ kernel)


def test_equinox_by_the_documented_recipe():
    eqx = pytest.importorskip("equinox")
    layers = [jnp.ravel, eqx.nn.Linear(48, 3, key=jax.random.key(0))]
    model = eqx.nn.Sequential([eqx.nn.Lambda(layers[0]), layers[1]])
    arrays, static = eqx.partition(model, eqx.is_array)

    def apply_fn(arrays, images):
        return jax.vmap(eqx.combine(arrays, static))(images)

    weight, bias = np.asarray(layers[1].weight), np.asarray(layers[1].bias)
    assert_probabilities(apply_fn, arrays, lambda x: x.reshape(3, -1) @ weight.T + bias)
