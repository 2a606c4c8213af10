"""Networks of every framework, plain functions and pytrees, each through `synthesize`."""

import dataclasses
import functools
import sys
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import scipy.special
from flax import linen, nnx
from toy_synthesis import compilations

import outgen_jax as og

SHAPE = (4, 4, 3)
IMAGES = np.random.default_rng(0).random((3, *SHAPE), np.float32)
TARGET = np.array([0.2, 0.5, 0.3])
FEW = og.preset("sgd", steps=3)
MEAN, VAR = np.array([0.1, -0.2, 0.3], np.float32), np.array([0.5, 1.0, 2.0], np.float32)


class OwnNorm(keras.layers.BatchNormalization):
    """A layer of one's own class."""


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
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dropout(0.5, deterministic=not train)(x)


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
    model.norm.mean[...], model.norm.var[...] = MEAN, VAR
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


def linen_network(seed: int) -> tuple[linen.Module, Any]:
    module = LinenNetwork()
    variables = module.init(jax.random.key(seed), IMAGES, train=False)
    return module, variables | {"batch_stats": {"BatchNorm_0": {"mean": MEAN, "var": VAR}}}


def test_linen_in_inference_mode():
    module, variables = linen_network(0)
    apply_fn, passed = og.models.from_linen(module, variables, train=False)
    assert passed is variables
    dense = variables["params"]["Dense_0"]
    weights = (dense["kernel"], dense["bias"], MEAN, VAR)
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))


def test_linen_without_its_option_is_named():
    module, variables = linen_network(0)
    with pytest.raises(
        ValueError,
        match=r"synthesize: apply_fn\(variables, images\) fails.*train.*Give the argument to the adapter",
    ):
        og.synthesize(*og.models.from_linen(module, variables), IMAGES, TARGET)


class FlatLinen(linen.Module):
    """A network that needs no option."""

    widths: Any = (3,)

    @linen.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return linen.Dense(self.widths[0])(images.reshape(len(images), -1))


def test_linens_bound_apply_works_as_it_is():
    module = FlatLinen()
    variables = module.init(jax.random.key(0), IMAGES)
    expected = og.predict(*og.models.from_linen(module, variables), IMAGES)
    np.testing.assert_array_equal(og.predict(module.apply, variables, IMAGES), expected)


def test_a_linen_module_without_a_hash_needs_the_adapter():
    module = FlatLinen(np.array([3]))
    variables = module.init(jax.random.key(0), IMAGES)
    with pytest.raises(
        ValueError, match=r"must be hashable.*og\.models\.from_linen\(module, variables\)"
    ):
        og.predict(module.apply, variables, IMAGES)
    assert og.predict(*og.models.from_linen(module, variables), IMAGES).shape == (3, 3)


class EquinoxNetwork(eqx.Module):
    """The same in Equinox, of one image [H, W, C]."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key: jax.Array) -> None:
        self.linear = eqx.nn.Linear(48, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="ema")
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, image: jax.Array, state: eqx.nn.State, *, key: Any = None) -> Any:
        x, state = self.norm(self.linear(image.ravel()), state)
        return self.dropout(x, key=key), state


def equinox_network(seed: int) -> tuple[EquinoxNetwork, eqx.nn.State]:
    model, state = eqx.nn.make_with_state(EquinoxNetwork)(jax.random.key(seed))
    return model, state.set(model.norm.ema_state_index, (MEAN, VAR))


def test_equinox_in_inference_mode():
    model, state = equinox_network(0)
    apply_fn, variables = og.models.from_equinox(model, state, channels_first=False)
    weights = (model.linear.weight.T, model.linear.bias, MEAN, VAR)
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))
    assert not model.dropout.inference


def test_equinox_sees_channels_first_unless_told_otherwise():
    model = eqx.nn.Sequential(
        [eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(48, 3, key=jax.random.key(0))]
    )
    first, variables = og.models.from_equinox(model)
    last, _ = og.models.from_equinox(model, channels_first=False)
    weight, bias = np.asarray(model[1].weight), np.asarray(model[1].bias)
    for apply_fn, images in ((first, IMAGES.transpose(0, 3, 1, 2)), (last, IMAGES)):
        expected = images.reshape(3, -1) @ weight.T + bias
        np.testing.assert_allclose(apply_fn(variables, IMAGES), expected, atol=1e-5)


def haiku_network(images: jax.Array, *, is_training: bool) -> jax.Array:
    x = hk.Linear(3)(images.reshape(len(images), -1))
    x = hk.BatchNorm(True, True, 0.9)(x, is_training=is_training)
    return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x


HAIKU = hk.transform_with_state(haiku_network)


def haiku_weights(seed: int) -> tuple[Any, Any]:
    params, state = HAIKU.init(jax.random.key(seed), IMAGES, is_training=True)
    averages = {"batch_norm/~/mean_ema": MEAN, "batch_norm/~/var_ema": VAR}
    return params, {name: {**state[name], "average": averages[name][None]} for name in state}


def test_haiku_in_inference_mode():
    params, state = haiku_weights(0)
    apply_fn, variables = og.models.from_haiku(HAIKU, params, state, is_training=False)
    weights = (params["linear"]["w"], params["linear"]["b"], MEAN, VAR)
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))


@pytest.mark.parametrize("without_rng", [False, True])
def test_haiku_without_a_state(without_rng):
    transformed = hk.transform(lambda x: hk.Linear(3)(x.reshape(len(x), -1)))
    params = transformed.init(jax.random.key(0), IMAGES)
    if without_rng:
        transformed = hk.without_apply_rng(transformed)
    apply_fn, variables = og.models.from_haiku(transformed, params)
    layer = params["linear"]
    np.testing.assert_allclose(
        apply_fn(variables, IMAGES), IMAGES.reshape(3, -1) @ layer["w"] + layer["b"], atol=1e-5
    )


def test_haikus_state_is_asked_for_where_there_is_one():
    params, state = haiku_weights(0)
    with pytest.raises(
        ValueError, match=r"has a state; pass it .*from_haiku\(transformed, params, state\)"
    ):
        og.models.from_haiku(HAIKU, params, is_training=False)
    stateless = hk.transform(haiku_network)
    with pytest.raises(ValueError, match="a state came with a network that has none; leave it out"):
        og.models.from_haiku(stateless, params, state)


def keras_network(seed: int, activation: str | None = None) -> Any:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(3, bias_initializer="random_normal"),
            keras.layers.BatchNormalization(epsilon=1e-5),
            keras.layers.Dropout(0.5),
            keras.layers.Activation(activation),
        ]
    )
    norm = model.layers[2]
    norm.moving_mean.assign(MEAN)
    norm.moving_variance.assign(VAR)
    return model


def test_keras_in_inference_mode():
    model = keras_network(0)
    apply_fn, variables = og.models.from_keras(model)
    weights = (*(weight.value for weight in model.layers[1].weights), MEAN, VAR)
    assert_probabilities(apply_fn, variables, functools.partial(with_statistics, *weights))


def test_what_a_keras_layer_was_adapted_to_is_the_models_own():
    """It is kept beside the variables, and no part of the configuration."""

    def adapted(seed: int) -> Any:
        norm = keras.layers.Normalization(axis=-1)
        norm.adapt(seed + np.random.default_rng(seed).random((20, *SHAPE)))
        return keras.Sequential([keras.Input(SHAPE), norm, keras.layers.Flatten()]), norm

    images = np.random.default_rng(9).random((2, *SHAPE), np.float32)
    models = [adapted(seed) for seed in (0, 1)]
    for model, _ in models:
        apply_fn, variables = og.models.from_keras(model)
        np.testing.assert_allclose(apply_fn(variables, images), model(images), rtol=1e-5)
    model, norm = models[0]
    norm.adapt(5 + np.random.default_rng(2).random((20, *SHAPE)))
    apply_fn, variables = og.models.from_keras(model)
    np.testing.assert_allclose(apply_fn(variables, images), model(images), rtol=1e-5)


def test_keras_may_use_its_model_after_the_call():
    model = keras_network(0)
    apply_fn, variables = og.models.from_keras(model)
    expected = apply_fn(variables, IMAGES)
    model.compile("sgd", "mse")
    model.predict(IMAGES, verbose=0)  # donates the model's arrays, as fit and evaluate do
    model.fit(IMAGES, np.zeros((len(IMAGES), 3)), verbose=0)
    np.testing.assert_array_equal(apply_fn(variables, IMAGES), expected)


@pytest.mark.parametrize("norm", [keras.layers.BatchNormalization, OwnNorm])
def test_a_keras_model_may_be_frozen_after_the_call(norm):
    """Freezing changes which variables Keras calls trainable; two layers of both kinds would change places."""
    layers = [norm(), norm(), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2, weight.shape))
    expected = model(IMAGES, training=False)
    apply_fn, variables = og.models.from_keras(model)
    for change in (lambda: None, lambda: setattr(model, "trainable", False), model.compile):
        change()
        np.testing.assert_array_equal(apply_fn(variables, IMAGES), expected)
        np.testing.assert_array_equal(apply_fn(og.models.from_keras(model)[1], IMAGES), expected)


def test_a_keras_model_with_more_layers_than_at_the_call_is_refused():
    layers = [OwnNorm(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input(SHAPE), *layers])  # a function of its own
    apply_fn, variables = og.models.from_keras(model)
    model.add(keras.layers.Dense(3))
    with pytest.raises(ValueError, match=r"got or lost variables since .*call from_keras again"):
        apply_fn(variables, IMAGES)


class OwnKeras(keras.Model):
    """A model of one's own class, whose `call` knows nothing of training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = keras_network(0)

    def call(self, images: jax.Array) -> jax.Array:
        return 2 * self.layer(images)


def test_a_keras_model_of_ones_own_class():
    model = OwnKeras()
    with pytest.raises(
        ValueError, match=r"the model is not built.*call it once on a batch of images"
    ):
        og.models.from_keras(model)
    model(IMAGES)
    apply_fn, variables = og.models.from_keras(model)
    inner, weights = og.models.from_keras(model.layer)
    np.testing.assert_allclose(apply_fn(variables, IMAGES), 2 * inner(weights, IMAGES), rtol=1e-6)
    assert og.models.from_keras(model)[0] is not apply_fn  # nothing says that it is the same still


def test_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(
        RuntimeError, match=r'runs on tensorflow; before the first .*\["KERAS_BACKEND"\] = "jax"'
    ):
        og.models.from_keras(keras_network(0))


def test_keras_channels_first():
    convolution = keras.layers.Conv2D(2, 3, data_format="channels_first")
    model = keras.Sequential([keras.Input((3, 4, 5)), convolution, keras.layers.Flatten()])
    images = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"shape \[3, 4, 5\], channels first; pass channels_first=True"
    ):
        og.models.from_keras(model)
    apply_fn, variables = og.models.from_keras(model, channels_first=True)
    expected = np.asarray(model(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(apply_fn(variables, images), expected, atol=1e-6)
    with pytest.raises(ValueError, match="channels last; leave channels_first out"):
        og.models.from_keras(keras_network(0), channels_first=True)


def test_a_keras_model_that_ends_in_a_softmax_is_refused_and_both_remedies_work():
    images = np.repeat(IMAGES, 2, 0)
    model = keras_network(0, "softmax")
    with pytest.raises(
        ValueError, match=r"must return logits.*\(in Keras, activation=None in the last layer\)"
    ):
        og.synthesize(*og.models.from_keras(model), images, TARGET, solver=FEW)
    expected = og.predict(*og.models.from_keras(keras_network(0)), images)
    np.testing.assert_allclose(model(images), expected, atol=1e-6)
    model.layers[-1].activation = keras.activations.linear
    np.testing.assert_allclose(
        og.predict(*og.models.from_keras(model), images), expected, atol=1e-6
    )
    og.synthesize(*og.models.from_keras(model), images, TARGET, solver=FEW)


def test_a_changed_keras_model_does_not_answer_for_another():
    """The function that is kept for a structure must not come from a model that has left it."""
    first, second = keras_network(0, "softmax"), keras_network(0, "softmax")
    og.models.from_keras(first)
    first.layers[-1].activation = keras.activations.linear
    apply_fn, variables = og.models.from_keras(second)
    np.testing.assert_allclose(apply_fn(variables, IMAGES).sum(-1), 1, rtol=1e-5)


# --- one structure, one function ---


PAIRS = {
    "nnx": lambda seed: og.models.from_nnx(nnx_network(seed)),
    "linen": lambda seed: og.models.from_linen(*linen_network(seed), train=False),
    "equinox": lambda seed: og.models.from_equinox(*equinox_network(seed), channels_first=False),
    "haiku": lambda seed: og.models.from_haiku(HAIKU, *haiku_weights(seed), is_training=False),
    "keras": lambda seed: og.models.from_keras(keras_network(seed)),
}


@pytest.mark.parametrize("framework", PAIRS)
def test_new_weights_of_one_structure_compile_nothing(framework):
    first, second = PAIRS[framework](0), PAIRS[framework](1)
    assert first[0] is second[0]
    before = og.predict(*first, IMAGES)
    with compilations() as compiled:
        after = og.predict(*second, IMAGES)
    assert compiled == []
    assert not np.allclose(before, after)


def test_other_structures_get_functions_of_their_own():
    module, variables = linen_network(0)
    model, state = equinox_network(0)
    params, averages = haiku_weights(0)
    functions = [
        *(make(0)[0] for make in PAIRS.values()),
        og.models.from_nnx(nnx.Linear(48, 3, rngs=nnx.Rngs(0)))[0],
        og.models.from_linen(module, variables, train=True)[0],
        og.models.from_linen(linen.Dense(3), variables)[0],
        og.models.from_equinox(model, state)[0],
        og.models.from_equinox(eqx.tree_at(lambda m: m.dropout.p, model, 0.6), state)[0],
        og.models.from_haiku(HAIKU, params, averages, is_training=True)[0],
        og.models.from_keras(keras_network(0, "relu"))[0],
    ]
    assert len(set(functions)) == len(functions)


def test_options_without_a_hash_make_a_new_function():
    module, variables = linen_network(0)
    options = {"train": False, "mutable": ["batch_stats"]}
    first, second = (og.models.from_linen(module, variables, **options)[0] for _ in range(2))
    assert first is not second
    np.testing.assert_array_equal(first(variables, IMAGES)[0], second(variables, IMAGES)[0])


def noise(strength: Any) -> Any:
    layer = keras.layers.GaussianNoise(strength)
    layer.build((None, *SHAPE))
    return layer


def test_a_keras_layer_whose_options_json_cannot_hold_makes_a_new_function():
    layer = noise(np.float32(0.3))
    apply_fn, variables = og.models.from_keras(layer)
    np.testing.assert_array_equal(apply_fn(variables, IMAGES), IMAGES)
    assert og.models.from_keras(layer)[0] is not apply_fn
    assert og.models.from_keras(noise(0.3))[0] is og.models.from_keras(noise(0.3))[0]


class Doubled(keras.Operation):
    """An operation without a configuration."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def call(self, images: jax.Array) -> jax.Array:
        return self.function(images)

    def compute_output_spec(self, images: Any) -> Any:
        return keras.KerasTensor(images.shape, images.dtype)


def test_so_does_a_keras_operation_without_a_configuration():
    given = keras.Input(SHAPE)
    model = keras.Model(given, Doubled(lambda images: 2 * images)(given))
    apply_fn, variables = og.models.from_keras(model)
    np.testing.assert_array_equal(apply_fn(variables, IMAGES), 2 * IMAGES)
    assert og.models.from_keras(model)[0] is not apply_fn


@dataclasses.dataclass
class Config:
    """Options that may be changed, so without a hash."""

    names: tuple[str, ...] = ("a", "b")


class NnxOption(nnx.Module):
    """A network with an attribute that is no array."""

    def __init__(self, option: Any) -> None:
        self.option = option
        self.linear = nnx.Linear(48, 3, rngs=nnx.Rngs(0))

    def __call__(self, images: jax.Array) -> jax.Array:
        logits = self.linear(images.reshape(len(images), -1))
        return 2 * logits if is_flag(self.option) else logits


class LinenOption(linen.Module):
    """The same in Linen, without weights."""

    option: Any

    def __call__(self, images: jax.Array) -> jax.Array:
        return images.mean((1, 2)) * (2 if is_flag(self.option) else 1)


class EquinoxOption(eqx.Module):
    """The same in Equinox, by a static field or a leaf."""

    option: Any
    static: Any = eqx.field(static=True)

    def __call__(self, image: jax.Array) -> jax.Array:
        twice = is_flag(self.option) or is_flag(self.static)
        return image.mean((1, 2)) * (2 if twice else 1)


def is_flag(option: Any) -> bool:
    """Whether an option, or what it holds, is True, not 1, or is the negative zero."""
    if isinstance(option, Held):
        return is_flag(option.value)
    if isinstance(option, tuple):
        return is_flag(option[0])
    return option is True or (isinstance(option, float) and np.signbit(option))


@dataclasses.dataclass(frozen=True)
class Held:
    """Options of one's own class."""

    value: Any


@pytest.mark.parametrize(
    "option", [["a"], {"a": 1}, {1, 2}, Config()], ids=lambda o: type(o).__name__
)
def test_nnx_attributes_without_a_hash_make_a_new_function(option):
    model = NnxOption(option)
    apply_fn, variables = og.models.from_nnx(model)
    np.testing.assert_allclose(jax.jit(apply_fn)(variables, IMAGES), model(IMAGES), atol=1e-6)
    assert og.models.from_nnx(model)[0] is not apply_fn
    assert og.models.from_nnx(NnxOption(("a",)))[0] is og.models.from_nnx(NnxOption(("a",)))[0]


OPTIONS = {
    "nnx": lambda option: og.models.from_nnx(NnxOption(option)),
    "linen": lambda option: og.models.from_linen(LinenOption(option), {}),
    "linen, of the call": lambda option: og.models.from_linen(Called(), {}, option=option),
    "equinox": lambda option: og.models.from_equinox(EquinoxOption(option, None)),
    "equinox, static": lambda option: og.models.from_equinox(EquinoxOption(None, option)),
}


class Called(linen.Module):
    """A network with an option of the call."""

    @linen.compact
    def __call__(self, images: jax.Array, option: Any) -> jax.Array:
        return LinenOption(option)(images)


@pytest.mark.parametrize("framework", OPTIONS)
@pytest.mark.parametrize(
    "held", [lambda x: x, lambda x: (x, "a"), Held], ids=["itself", "tuple", "class"]
)
def test_options_that_are_equal_but_not_the_same_have_functions_of_their_own(framework, held):
    make = OPTIONS[framework]
    for plain, flag in ((1, True), (0.0, -0.0)):
        one, other = make(held(plain)), make(held(flag))
        assert one[0] is not other[0]
        np.testing.assert_allclose(other[0](other[1], IMAGES), 2 * one[0](one[1], IMAGES))
        assert make(held(plain))[0] is one[0]


# --- what is no function ---


NETWORKS = {
    "from_nnx": lambda: nnx_network(0),
    "from_linen": lambda: LinenNetwork(),
    "from_equinox": lambda: equinox_network(0)[0],
    "from_haiku": lambda: HAIKU,
    "from_keras": lambda: keras_network(0),
}


@pytest.mark.parametrize("adapter", NETWORKS)
def test_a_network_passed_as_it_is_gets_its_adapter_named(adapter):
    for caller in (og.predict, functools.partial(og.synthesize, targets=TARGET)):
        with pytest.raises(ValueError, match=rf"apply_fn, variables = og\.models\.{adapter}\("):
            caller(NETWORKS[adapter](), {}, IMAGES)


@pytest.mark.parametrize(
    ("adapter", "method"),
    [
        ("from_nnx", lambda: nnx_network(0).__call__),
        ("from_equinox", lambda: equinox_network(0)[0].__call__),
        ("from_haiku", lambda: HAIKU.apply),
        ("from_keras", lambda: keras_network(0).call),
    ],
)
def test_so_does_a_method_of_one(adapter, method):
    with pytest.raises(ValueError, match=rf"(?s)apply_fn.*og\.models\.{adapter}\("):
        og.predict(method(), {}, IMAGES)


@pytest.mark.parametrize("adapter", NETWORKS)
def test_an_adapter_refuses_what_another_is_for(adapter):
    other = "from_linen" if adapter == "from_nnx" else "from_nnx"
    arguments = {"from_linen": ({},), "from_haiku": ({},)}.get(adapter, ())
    with pytest.raises(TypeError, match=rf"{adapter} takes .*; use og\.models\.{other}\("):
        getattr(og.models, adapter)(NETWORKS[other](), *arguments)
    remedy = "make it with hk.transform" if adapter == "from_haiku" else "pass the network itself"
    with pytest.raises(TypeError, match=rf"{adapter} takes .*got function; {remedy}"):
        getattr(og.models, adapter)(lambda variables, images: images, *arguments)


@pytest.mark.parametrize(
    ("module", "distribution"), [("equinox", "equinox"), ("haiku", "dm-haiku"), ("keras", "keras")]
)
def test_a_framework_that_is_missing_is_named_with_its_command(module, distribution, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    arguments = ({},) if module == "haiku" else ()
    with pytest.raises(ImportError, match=f"needs {module}.*: pip install {distribution}$"):
        getattr(og.models, f"from_{module}")(None, *arguments)


def test_a_function_that_equinox_wraps_is_a_function():
    kernel = jnp.ones((48, 3))
    wrapped = eqx.filter_jit(lambda kernel, images: images.reshape(len(images), -1) @ kernel)
    assert og.predict(wrapped, kernel, IMAGES).shape == (3, 3)


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


class LinenWithModes(linen.Module):
    """Dropout and batch normalisation, which train unless they are told not to."""

    dropout: bool = True
    statistics: bool = True

    @linen.compact
    def __call__(self, x, train=True):
        x = x.reshape(len(x), -1)
        if self.statistics:
            x = linen.BatchNorm(use_running_average=not train)(x)
        if self.dropout:
            x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(3)(x)


@pytest.mark.parametrize("part", ["dropout", "statistics"])
def test_a_network_in_training_mode_is_told_from_others(part):
    images = np.zeros((2, 4, 4, 1), np.float32)
    module = LinenWithModes(**{"dropout": False, "statistics": False, part: True})
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, images)
    network = og.models.from_linen(module, variables)
    with pytest.raises(ValueError, match=r"in training mode.*variables, train=False") as caught:
        og.predict(*network, images)
    assert "check that variables" not in str(caught.value)
    assert og.predict(*og.models.from_linen(module, variables, train=False), images).shape == (2, 3)


def test_an_nnx_network_gets_its_options():
    class Takes(nnx.Module):
        def __call__(self, images, train):
            return images[:, 0, 0, :1] + (5 if train else 2) * jnp.arange(3)

    images = np.zeros((1, 4, 4, 1), np.float32)
    apply_fn, variables = og.models.from_nnx(Takes(), train=False)
    np.testing.assert_array_equal(apply_fn(variables, images), [[0, 2, 4]])
    assert og.models.from_nnx(Takes(), train=False)[0] is apply_fn
    assert og.models.from_nnx(Takes(), train=True)[0] is not apply_fn


def test_what_haiku_makes_otherwise_is_refused_with_its_remedy():
    made = hk.multi_transform(lambda: (lambda x: x, (lambda x: x,)))
    with pytest.raises(TypeError, match=r"got MultiTransformed; make it with hk\.transform or"):
        og.models.from_haiku(made, {})
