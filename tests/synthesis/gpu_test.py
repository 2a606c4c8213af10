"""On a GPU the engine keeps its promises, at its default precision: python -m pytest -m gpu."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy_synthesis
from flax import nnx
from toy_synthesis import APPLY, WEIGHTS, assert_same, rows_of, sources, targets

import outgen_jax as og

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]


@pytest.fixture(scope="module")
def gpu():
    if jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU; JAX found {jax.default_backend()}")


def probabilities(images: np.ndarray) -> np.ndarray:
    """What the toy network says, in float64 on the host."""
    network = reference.perceptron_gradient(WEIGHTS)
    logits = [network(image.astype(np.float64), np.zeros(1))[0] for image in images]
    return reference.softmax(np.stack(logits))


def test_exact_targets_are_exact_in_float64():
    """TF32 would miss them by 1e-4 and more."""
    wanted = targets(40)
    result = og.synthesize(APPLY, WEIGHTS, sources(40), wanted)
    assert result.converged.all()
    said = probabilities(result.images)
    assert np.abs(said - wanted).sum(-1).max() / 2 < 1.2e-5  # the tolerance, and float32's rounding
    np.testing.assert_allclose(result.probs, said, atol=2e-6)


def test_predictions_lose_nothing_to_tf32():
    """A layer of 3,072 inputs against float64."""
    shape = (32, 32, 3)
    weights = reference.perceptron(shape)
    images = np.random.default_rng(0).random((16, *shape), np.float32)
    network = reference.perceptron_gradient(weights)
    logits = np.stack([network(x.astype(np.float64), np.zeros(5))[0] for x in images])
    found = og.predict(APPLY, weights, images)
    np.testing.assert_allclose(found, reference.softmax(logits), atol=5e-6)


def test_convolutions_lose_nothing_to_tf32(small_vgg16):
    """Outputs and a gradient of the package's convolutions, beside the host's."""
    graphdef, variables = nnx.split(small_vgg16(width_multiplier=1))

    def outputs(variables, images):
        return nnx.merge(graphdef, variables)(images)

    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    found = og.predict(outputs, variables, images)
    host = jax.devices("cpu")[0]
    with jax.default_device(host):
        expected = jax.nn.softmax(jax.jit(outputs)(jax.device_put(variables, host), images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_does_not_depend_on_its_neighbours(batch_size):
    options = {"solver": og.gauss_newton(steps=6), "tolerance": 1e-4}
    expected = og.synthesize(APPLY, WEIGHTS, sources(7), targets(7), **options)
    for chosen in (slice(4, 5), slice(None, None, -1)):
        found = og.synthesize(
            APPLY,
            WEIGHTS,
            sources(7)[chosen],
            targets(7)[chosen],
            batch_size=batch_size,
            **options,
        )
        assert_same(found, rows_of(expected, chosen), atol=1e-4)


def test_what_the_caller_holds_is_not_given_away():
    """The engine donates its slots; the caller's arrays on the same device live on."""
    held = jax.tree.map(jnp.asarray, WEIGHTS)
    images, wanted = jnp.asarray(sources(6)), jnp.asarray(targets(6))
    first = og.synthesize(APPLY, held, images, wanted, batch_size=2)
    second = og.synthesize(APPLY, held, images, wanted, batch_size=2)
    assert_same(second, first)
    np.testing.assert_array_equal(images, sources(6))  # raises if its buffer was given away
    np.testing.assert_array_equal(wanted, targets(6))
    for array, expected in zip(held, WEIGHTS, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_slots_are_updated_in_place():
    """Buffers of the slots are handed from call to call, not copied."""
    from outgen_jax.synthesis import slots
    from outgen_jax.synthesis.programs import Network

    network, solver, mesh = Network(APPLY), og.gauss_newton(), slots.local_mesh()
    images = np.full((2, *toy_synthesis.SHAPE), 0.5, np.float32)
    entries = slots.Entry(images, images, (targets(2)[:, None],))
    kinds, counts = (og.outputs.softmax(),), (None,)
    threshold = np.float32(1e-5)
    begun = slots.start(
        *(network, solver, WEIGHTS, threshold, entries, np.ones(2, bool)),
        kinds=kinds,
        counts=counts,
        mesh=mesh,
    )
    limits = threshold, np.int32(2)
    slots.advance(network, solver, WEIGHTS, *limits, begun, updates=2, mesh=mesh)
    assert begun.best_image.is_deleted()


def test_a_network_in_bfloat16():
    """Its outputs come back in float32, and its images come as near as its rounding lets them."""

    def outputs(weights, images):
        rounded = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
        return APPLY(rounded, images.astype(jnp.bfloat16))

    wanted = targets(8)
    solver = og.gauss_newton(steps=20)
    result = og.synthesize(outputs, WEIGHTS, sources(8), wanted, solver=solver, tolerance=0.02)
    assert result.converged.all()
    assert result.probs.dtype == np.float32


def test_everything_equals_the_cpus(tmp_path):
    """Every solver, quantisation and predictions; the CPU's in a process of its own."""
    command = [sys.executable, "-W", "error", toy_synthesis.__file__, str(tmp_path / "cpu.npz")]
    settings = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = toy_synthesis.examples()
    with np.load(tmp_path / "cpu.npz") as expected:
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-4, err_msg=name)
