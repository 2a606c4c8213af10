"""JAX's global switches, all of them at once, change nothing of what synthesis returns."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import switches
from toy_synthesis import APPLY, CLASSES, FAST, WEIGHTS, assert_same, sources, targets

import outgen_jax as og
from outgen_jax.solvers.momentum import Momentum

IMAGES, ROWS = sources(3), targets(3)
MIXED_KINDS = (og.outputs.sigmoid(), og.outputs.values(scale=2.0))


def strict(weights, images):
    """The network of `toy_synthesis`, without a promotion."""
    flat = images.reshape(len(images), -1)
    hidden = jnp.tanh(flat @ weights.w1 + weights.b1[None])
    return hidden @ weights.w2 + weights.b2[None]


def mixed(weights, images):
    logits = strict(weights, images)
    return logits[:, None, :3], logits[:, 2:]


def two_ways(call):
    """With the switches and without."""
    with switches():
        found = call()
    return found, call()


SOLVERS = {
    "exact": og.exact(max_change=0.9, mask=np.ones((8, 6)), lowpass_radius=6),
    "sgd": og.preset("sgd", steps=3),
    "momentum_lowpass": og.preset("momentum_lowpass", steps=3),
    "gauss_newton_cg": og.gauss_newton_cg(steps=4),
    "restarted": og.restarted(FAST, times=1, from_source=True, via=Momentum(steps=2)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_synthesize(name):
    def call():
        return og.synthesize(
            strict, WEIGHTS, IMAGES, ROWS, solver=SOLVERS[name], history=True, batch_size=2
        )

    found, expected = two_ways(call)
    # Each step rounds; x64 must not change what is computed, only how numpy scalars come in.
    assert_same(found, expected, atol=1e-4 if name != "exact" else 5e-3)
    types = {x.dtype for x in (found.images, found.outputs, found.distance, found.history)}
    assert types == {np.dtype(np.float32)}
    assert found.steps.dtype == np.int32


NUMPY_SOLVERS = {
    "gauss_newton": lambda n, x: og.gauss_newton(
        steps=n(3),
        trials=n(2),
        stride=x(0.5),
        floor=x(1e-6),
        max_change=x(0.5),
        lowpass_radius=x(6),
    ),
    "smallest_change": lambda n, x: og.smallest_change(
        steps=n(3), trials=n(2), tolerance=x(1e-3), max_change=x(0.5)
    ),
    "gauss_newton_cg": lambda n, x: og.gauss_newton_cg(
        steps=n(3), iterations=n(4), max_change=x(0.5), lowpass_radius=x(6)
    ),
    "gradient_descent": lambda n, x: og.gradient_descent(
        LBFGS, steps=n(3), weight_decay=x(5e-4), lowpass_radius=x(3)
    ),
    "exact": lambda n, x: og.exact(tolerance=x(1e-3), max_change=x(0.5)),
    "then": lambda n, x: og.then(FAST, FAST, at=x(0.1)),
    "restarted": lambda n, x: og.restarted(FAST, times=n(1), patience=n(1), beyond=x(0.1)),
}
LBFGS = optax.lbfgs()


@pytest.mark.parametrize("name", NUMPY_SOLVERS)
def test_options_of_numpy_are_as_those_of_python(name):
    """A float64 of numpy has a type, unlike a number of Python, and would widen what it meets."""
    build = NUMPY_SOLVERS[name]
    solvers = build(np.int64, np.float64), build(int, float)
    assert solvers[0] == solvers[1]
    with jax.enable_x64(True):
        found, expected = (
            og.synthesize(APPLY, WEIGHTS, IMAGES, ROWS, solver=solver) for solver in solvers
        )
    assert_same(found, expected, atol=0)


def test_synthesize_with_free_entries_of_other_outputs():
    """NaN stands for them inside, which `jax_debug_nans` must not see."""
    labels = np.ma.masked_array(np.full((3, 3), 0.4), mask=np.eye(3))
    rows = (labels, np.array([0.5, 0.1, -0.2]))

    def call():
        return og.synthesize(
            mixed, WEIGHTS, IMAGES, rows, output=MIXED_KINDS, solver=og.gauss_newton(steps=5)
        )

    found, expected = two_ways(call)
    assert_same(found, expected, atol=1e-4)
    named = og.targets.validate(ROWS, num_images=3, num_classes=CLASSES)
    assert named.dtype == np.float32


def test_quantize_and_predict():
    images = np.random.default_rng(0).random((2, *IMAGES.shape[1:]))

    def call():
        quantized = og.quantize(strict, WEIGHTS, images, ROWS[:2], rounds=2)
        return quantized, og.predict(strict, WEIGHTS, quantized)

    (images_found, probs), (images_expected, probs_expected) = two_ways(call)
    np.testing.assert_array_equal(images_found, images_expected)
    np.testing.assert_allclose(probs, probs_expected, atol=1e-6)
    assert probs.dtype == np.float32


def test_generate_dataset(tmp_path):
    def make(name):
        return og.generate_dataset(
            strict, WEIGHTS, IMAGES, ROWS, tmp_path / name, solver=FAST, tolerance=0.1
        )

    with switches():
        report = make("with")
    assert report.examples == 3
    make("without")
    records = [
        next((tmp_path / n).glob("*array_record*")).read_bytes() for n in ("with", "without")
    ]
    assert records[0] == records[1]
    manifests = [
        json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("with", "without")
    ]
    assert manifests[0]["made_from"]["classifier"] == manifests[1]["made_from"]["classifier"]


def test_weights_in_float64_give_what_float32_gives():
    expected = og.synthesize(APPLY, WEIGHTS, IMAGES, ROWS, solver=FAST)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, WEIGHTS)
        result = og.synthesize(APPLY, wide, IMAGES, ROWS, solver=FAST)
    assert result.images.dtype == np.float32
    assert_same(result, expected, atol=1e-4)
