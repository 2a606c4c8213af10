"""Networks of every framework, accelerated, against themselves as they are written."""

import copy
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

import outgen_jax as og
from outgen_jax.models.acceleration.accelerate import accelerate, as_written

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 0.3, jnp.float32)


class NnxNetwork(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 32, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.second = nnx.Conv(32, 32, (3, 3), rngs=rngs)
        self.depthwise = nnx.Conv(32, 32, (3, 3), strides=2, feature_group_count=32, rngs=rngs)
        self.head = nnx.Linear(32, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.first(x)))
        x = nnx.max_pool(nnx.relu(self.second(x)), (2, 2), strides=(2, 2))
        return self.head(nnx.avg_pool(self.depthwise(x), (2, 2)).mean((1, 2)))


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Conv(8, (5, 5), strides=2)(x))
        x = linen.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        return linen.Dense(5)(linen.Conv(6, (1, 1))(x).mean((1, 2)))


class EquinoxNetwork(eqx.Module):
    layers: list

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Conv2d(3, 8, 3, padding=1, key=keys[0]),
            eqx.nn.MaxPool2d(3, 2),
            eqx.nn.Conv2d(8, 8, 3, groups=4, dilation=2, padding=1, key=keys[1]),
            eqx.nn.AvgPool2d(1),
            eqx.nn.Linear(8, 5, key=keys[2]),
        ]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x)) if isinstance(layer, eqx.nn.Conv2d) else layer(x)
        return self.layers[-1](x.mean((1, 2)))


def nnx_network() -> tuple[Callable[..., Any], Any]:
    return og.models.from_nnx(NnxNetwork(nnx.Rngs(0)))


def linen_network() -> tuple[Callable[..., Any], Any]:
    module = LinenNetwork()
    return og.models.from_linen(module, module.init(jax.random.key(0), IMAGES))


def equinox_network() -> tuple[Callable[..., Any], Any]:
    return og.models.from_equinox(EquinoxNetwork(jax.random.key(0)))


def haiku_network() -> tuple[Callable[..., Any], Any]:
    def network(x: jax.Array) -> jax.Array:
        x = jax.nn.relu(hk.GroupNorm(2)(hk.Conv2D(8, 3, stride=2)(x)))
        x = hk.MaxPool((2, 2, 1), (2, 2, 1), "SAME")(hk.Conv2DTranspose(6, 3)(x))
        return hk.Linear(5)(hk.AvgPool((2, 2, 1), 1, "VALID")(x).mean((1, 2)))

    transformed = hk.transform(network)
    return og.models.from_haiku(transformed, transformed.init(jax.random.key(0), IMAGES))


def keras_network() -> tuple[Callable[..., Any], Any]:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(8, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.MaxPooling2D(2),
        keras.layers.SeparableConv2D(6, 3, padding="same"),
        keras.layers.AveragePooling2D(2),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(5),
    ]
    return og.models.from_keras(keras.Sequential(layers))


def keras_network_channels_first() -> tuple[Callable[..., Any], Any]:
    keras.utils.set_random_seed(0)
    layout = {"data_format": "channels_first"}
    layers = [
        keras.Input((3, 8, 8)),
        keras.layers.Conv2D(8, 3, activation="relu", **layout),
        keras.layers.MaxPooling2D(2, **layout),
        keras.layers.GlobalAveragePooling2D(**layout),
        keras.layers.Dense(5),
    ]
    return og.models.from_keras(keras.Sequential(layers), channels_first=True)


def residual_network() -> tuple[Callable[..., Any], Any]:
    """A residual block with a strided shortcut, of `lax` alone; the bodies of all control flow."""
    layout = ("NCHW", "OIHW", "NCHW")

    @jax.custom_vjp
    def doubled(x, kernel):
        return 2 * convolve(x, kernel)

    def convolve(x, kernel, stride=1):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=layout
        )

    def backward(saved, cotangent):
        return jax.vjp(lambda *o: 2 * convolve(*o), *saved)[1](cotangent)

    doubled.defvjp(lambda *o: (doubled(*o), o), backward)

    def apply_fn(variables, images):
        x = convolve(images.transpose(0, 3, 1, 2), variables["in"])
        step = jax.checkpoint(lambda x: jnp.tanh(convolve(x, variables["same"])))
        x, _ = lax.scan(lambda x, _: (step(x), None), x, None, length=2)
        x = doubled(x, variables["same"]) + jax.jit(convolve)(x, variables["same"])
        x = convolve(x, variables["down"], 2) + convolve(x, variables["short"], 2)
        x = lax.cond(x.mean() > -9, lambda x: convolve(x, variables["same"]), lambda x: x, x)
        return x.mean((2, 3))

    kernels = {
        "in": (6, 3, 3, 3),
        "same": (6, 6, 3, 3),
        "down": (6, 6, 3, 3),
        "short": (6, 6, 1, 1),
    }
    return apply_fn, {name: normal(i, *shape) for i, (name, shape) in enumerate(kernels.items())}


NETWORKS = [nnx_network, linen_network, equinox_network, haiku_network, keras_network]
NETWORKS += [keras_network_channels_first, residual_network]


def text_of(function: Callable[..., Any], *operands: Any, platform: str = "cpu") -> str:
    return jax.jit(function).trace(*operands).lower(lowering_platforms=(platform,)).as_text()


def slow_in_loops(text: str) -> list[str]:
    """XLA's convolutions in another layout than images NHWC and kernels HWIO, and its gradient of max pooling."""
    fast = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    names = ("stablehlo.convolution", "select_and_scatter")
    lines = [line for line in text.splitlines() if any(name in line for name in names)]
    return [line for line in lines if fast not in line]


def all_ways(apply_fn: Callable[..., Any], variables: Any, images: jax.Array) -> Any:
    """What solvers and training ask of a network: images one by one, in a loop, and second derivatives."""

    def energy(variables, images):
        return (apply_fn(variables, images) ** 2).sum()

    def of_one(x):
        return jax.grad(lambda x: energy(variables, x[None]))(x)

    def step(x, _):
        return x - 0.01 * jax.vmap(of_one)(x), None

    def gauss_newton_product(x):
        y, pull_back = jax.vjp(lambda x: apply_fn(variables, x[None])[0], x)
        push = jax.vjp(lambda ct: pull_back(ct)[0], jnp.ones_like(y))[1]
        return pull_back(push(x)[0])[0]

    return (
        apply_fn(variables, images),
        lax.scan(step, images, None, length=2)[0],
        jax.vmap(gauss_newton_product)(images),
        jax.grad(energy)(variables, images),
    )


def assert_close(got: Any, expected: Any, rtol: float = 2e-5) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(jnp.abs(b).max()))


@pytest.mark.parametrize("network", NETWORKS)
def test_equals_the_network_as_written(network):
    apply_fn, variables = network()
    compute = functools.partial(jax.jit, static_argnums=0)(all_ways)
    fast = accelerate(apply_fn)
    assert slow_in_loops(text_of(functools.partial(all_ways, apply_fn), variables, IMAGES))
    assert not slow_in_loops(text_of(functools.partial(all_ways, fast), variables, IMAGES))
    assert_close(compute(fast, variables, IMAGES), compute(apply_fn, variables, IMAGES))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_accelerators_the_convolutions_are_those_of_xla(platform):
    apply_fn, variables = nnx_network()
    got = text_of(accelerate(apply_fn), variables, IMAGES, platform=platform)
    expected = text_of(apply_fn, variables, IMAGES, platform=platform)
    for name in ("stablehlo.convolution", "stablehlo.reduce_window", "stablehlo.dot_general"):
        assert got.count(name) == expected.count(name) > 0


def test_forward_mode():
    apply_fn, variables = equinox_network()
    tangent = normal(1, *IMAGES.shape)

    def derivative(apply_fn):
        return jax.jit(lambda x: jax.jvp(lambda x: apply_fn(variables, x), (x,), (tangent,)))

    assert_close(derivative(accelerate(apply_fn))(IMAGES), derivative(apply_fn)(IMAGES))


def test_equal_maxima_give_the_gradient_to_the_first():
    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 7, 7, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: (accelerate(pool)(x) * jnp.arange(3.0)).sum()))(x)
    expected = jax.jit(jax.grad(lambda x: (pool(x) * jnp.arange(3.0)).sum()))(x)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_sixteen_bits(dtype):
    apply_fn, variables = residual_network()
    half = jax.tree.map(lambda a: a.astype(dtype), (variables, IMAGES))
    outputs = jax.eval_shape(functools.partial(all_ways, accelerate(apply_fn)), *half)
    assert {y.dtype for y in jax.tree.leaves(outputs)} == {jnp.dtype(dtype)}
    assert_close(accelerate(apply_fn)(*half), apply_fn(*half), rtol=0.05)


def test_works_with_x64_and_strict_promotion():
    apply_fn, variables = equinox_network()
    expected = jax.jit(apply_fn)(variables, IMAGES)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert_close(jax.jit(accelerate(apply_fn))(variables, IMAGES), expected)


def test_random_numbers_effects_and_other_values_pass(capsys):
    def apply_fn(variables, images, *, scale, name=None):
        key, kernel = variables
        jax.debug.print("scale {}", scale)
        assert name == "network"
        noise = jax.random.normal(key, images.shape) if scale > 1 else 0.0
        y = lax.conv_general_dilated(
            images + noise, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return {"y": y, "n": None}

    variables = (jax.random.key(3), normal(0, 3, 3, 3, 4))
    expected = apply_fn(variables, IMAGES, scale=2.0, name="network")
    got = accelerate(apply_fn)(variables, IMAGES, scale=2.0, name="network")
    jax.effects_barrier()
    assert capsys.readouterr().out.count("scale 2.0") == 2
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert_close(got, expected)


def test_what_looks_at_values_runs_as_written():
    def apply_fn(variables, images):
        return images @ variables if images.sum() > 0 else images

    x = jnp.ones((2, 3))
    assert_close(accelerate(apply_fn)(jnp.eye(3), x), x)
    with pytest.raises(ValueError, match=r"lax\.dot"):
        accelerate(lambda x: lax.dot(x, jnp.ones((2, 2))))(x)


def test_one_for_each_function_as_long_as_it_lives():
    def apply_fn(variables, images):
        return images @ variables

    fast = accelerate(apply_fn)
    assert fast is accelerate(apply_fn) is accelerate(fast)
    assert fast.__name__ == "apply_fn"

    @functools.wraps(apply_fn)  # copies what is written on the function
    def other(variables, images):
        return 2 * (images @ variables)

    assert_close(accelerate(other)(jnp.eye(2), jnp.ones((1, 2))), jnp.full((1, 2), 2.0))
    gone = weakref.ref(apply_fn), weakref.ref(fast)
    jax.jit(fast)(jnp.eye(2), jnp.ones((1, 2)))
    del apply_fn, fast, other
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_methods_are_found_again_by_equality():
    class Network:
        traced = 0

        def apply(self, variables, images):
            self.traced += 1
            return images @ variables

    network = Network()
    assert accelerate(network.apply) == accelerate(network.apply)
    compute = jax.jit(lambda f, *operands: f(*operands), static_argnums=0)
    for _ in range(3):
        compute(accelerate(network.apply), jnp.eye(2), jnp.ones((1, 2)))
    assert network.traced == 1


def test_as_written_stays():
    apply_fn, variables = linen_network()
    plain = as_written(apply_fn)
    assert accelerate(plain) is plain
    assert plain == as_written(apply_fn) != accelerate(apply_fn)
    assert slow_in_loops(text_of(jax.grad(lambda *o: plain(*o).sum()), variables, IMAGES))


def test_an_equation_that_fails_stays(monkeypatch):
    def fail(equation):
        raise RuntimeError("not today")

    monkeypatch.setattr("outgen_jax.models.acceleration.accelerate.convolutions.form", fail)
    apply_fn, variables = linen_network()
    assert_close(accelerate(apply_fn)(variables, IMAGES), apply_fn(variables, IMAGES))


def test_the_logarithm_of_a_complex_quotient_stays():
    def apply_fn(scale, images):
        spectrum = jnp.fft.fft2(images, axes=(1, 2))
        return jnp.log(jnp.exp(spectrum / 100) / scale).real.mean((1, 2))

    found = jax.jit(accelerate(apply_fn))(jnp.complex64(2), IMAGES)
    assert_close(found, apply_fn(jnp.complex64(2), IMAGES))


def test_a_logarithm_whose_form_fails_stays(monkeypatch):
    def apply_fn(variables, images):
        return jnp.log(jax.nn.softmax(images.mean((1, 2)) @ variables))

    def fail(*_):
        raise RuntimeError("not today")

    monkeypatch.setattr("outgen_jax.models.acceleration.logarithm.log", fail)
    variables = normal(0, 3, 4)
    assert_close(accelerate(apply_fn)(variables, IMAGES), apply_fn(variables, IMAGES))


softmax = jax.jit(jax.nn.softmax)
inner_softmax = jax.jit(lambda x: (x.sum(), softmax(x)))


@pytest.mark.parametrize(
    "network",
    [
        lambda x: jnp.log(jax.nn.softmax(x)),
        lambda x: jnp.log(softmax(x)),
        lambda x: jnp.log(inner_softmax(x)[1]) + jnp.log(inner_softmax(x)[1]) - jnp.log(softmax(x)),
        jax.jit(lambda x: jnp.log(softmax(x))),
        lambda x: jax.lax.scan(lambda c, _: (jnp.log(softmax(c)), None), x, None, length=2)[0],
    ],
    ids=["plain", "in a jit", "in two", "all in a jit", "in a loop"],
)
def test_the_logarithm_of_a_softmax_that_underflows(network):
    x = jnp.array([0.0, -200.0, 3.0])
    expected, pull = jax.vjp(jax.nn.log_softmax, x)
    found, pull_found = jax.vjp(jax.jit(accelerate(network)), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    one = jnp.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(pull_found(one)[0], pull(one)[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_quotient_that_has_a_logarithm_keeps_it(dtype):
    """Digits of large a and s would be lost in a − log s."""

    def network(z):
        return jnp.log(jnp.exp(z) / jnp.exp(z).sum())

    z = jnp.array([80.0, 79.5, 79.0], dtype)
    np.testing.assert_array_equal(jax.jit(accelerate(network))(z), jax.jit(network)(z))


@pytest.mark.parametrize(("init", "pool"), [(-jnp.inf, lax.max), (0.0, lax.add)])
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 1, 6, 3), (0, 6, 6, 3)])
def test_pools_of_nothing_have_a_gradient(init, pool, shape):
    def total(x):
        return lax.reduce_window(x, init, pool, (1, 5, 5, 1), (1, 2, 2, 1), "VALID").sum()

    x = jnp.ones(shape)
    found = jax.jit(jax.grad(accelerate(total)))(x)
    np.testing.assert_array_equal(found, np.zeros(shape))


def test_convolutions_of_nothing():
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    fast, kernel = accelerate(convolve), jnp.ones((3, 3, 3, 4))
    none = jnp.ones((0, 2, 4, 4, 3))
    assert jax.vmap(fast, (0, None))(none, kernel).shape == (0, 2, 4, 4, 4)
    assert jax.vmap(fast)(none, jnp.ones((0, 3, 3, 3, 4))).shape == (0, 2, 4, 4, 4)
    assert jax.vmap(fast, (0, None))(jnp.ones((2, 0, 4, 4, 3)), kernel).shape == (2, 0, 4, 4, 4)


def test_a_maximum_that_is_nan_passes_the_gradient_on():
    def total(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").sum()

    x = jnp.zeros((1, 2, 2, 1)).at[0, 0, 1, 0].set(jnp.nan)
    assert jax.jit(jax.grad(accelerate(total)))(x).sum() == 1


def test_a_network_object_is_left_as_it_is():
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    before = nnx.graphdef(model)
    fast = accelerate(model)
    assert nnx.graphdef(model) == before
    assert copy.deepcopy(model)(jnp.ones(3)).shape == (4,)
    assert fast == accelerate(model)
