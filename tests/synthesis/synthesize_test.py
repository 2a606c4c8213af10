"""What comes back from `synthesize`, when an image stops, and what a failing network does."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import scipy.special
from toy_synthesis import APPLY, CLASSES, FAST, SHAPE, WEIGHTS, assert_same, sources, targets

import outgen_jax as og
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import batch as module

# --- what comes back ---


def test_the_result_describes_its_images():
    images, rows = sources(6), targets(6)
    result = og.synthesize(APPLY, WEIGHTS, images, rows, solver=FAST, history=True)
    logits = np.asarray(APPLY(WEIGHTS, result.images), np.float64)
    probs = scipy.special.softmax(logits, -1)
    np.testing.assert_allclose(result.probs, probs, atol=1e-6)
    np.testing.assert_allclose(result.probs, og.predict(APPLY, WEIGHTS, result.images), atol=1e-6)
    kl = [reference.kl_divergence(row, x) for row, x in zip(rows, logits, strict=True)]
    np.testing.assert_allclose(result.kl, kl, rtol=1e-4, atol=1e-6)
    distance = np.abs(probs - rows).sum(-1) / 2
    np.testing.assert_allclose(result.total_variation, distance, atol=1e-6)
    assert result.images.shape == images.shape
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    np.testing.assert_array_equal(result.steps, 12)
    assert result.finite.all()
    kinds = [field.dtype for field in result]
    assert kinds == [np.float32] * 4 + [np.int32, bool, bool, np.float32]


def test_history_begins_at_the_source_and_holds_the_best():
    images, rows = sources(6), targets(6)
    result = og.synthesize(APPLY, WEIGHTS, images, rows, solver=FAST, history=True)
    logits = np.asarray(APPLY(WEIGHTS, images / np.float32(255)))
    kl = [reference.kl_divergence(row, x) for row, x in zip(rows, logits, strict=True)]
    np.testing.assert_allclose(
        result.history[:, 0], kl, rtol=5e-3
    )  # black and white move by half a level
    assert result.history.shape == (6, 13)
    np.testing.assert_allclose(result.history.min(1), result.kl, rtol=1e-5, atol=1e-7)
    assert (result.kl < result.history[:, 0]).all()
    assert og.synthesize(APPLY, WEIGHTS, images, rows, solver=FAST).history is None


def test_a_far_too_large_step_never_makes_an_image_worse():
    wild = og.gradient_descent(optax.sgd(1e4), steps=12)
    result = og.synthesize(APPLY, WEIGHTS, sources(8), targets(8), solver=wild, history=True)
    assert (result.history.max(1) > 1.5 * result.history[:, 0]).any()
    assert (result.kl <= result.history[:, 0]).all()
    np.testing.assert_allclose(result.kl, result.history.min(1), rtol=1e-5)
    logits = np.asarray(APPLY(WEIGHTS, result.images))
    kl = [reference.kl_divergence(row, x) for row, x in zip(targets(8), logits, strict=True)]
    np.testing.assert_allclose(kl, result.kl, rtol=1e-3, atol=1e-5)


def test_the_default_solver_is_the_papers_sgd():
    images, rows = sources(2), targets(2)
    expected = og.synthesize(APPLY, WEIGHTS, images, rows, solver=og.preset("sgd"))
    assert_same(og.synthesize(APPLY, WEIGHTS, images, rows), expected, atol=0)
    np.testing.assert_array_equal(expected.steps, 100)


@pytest.mark.parametrize("name", ["arctan", "tanh", "identity"])
def test_no_updates_return_every_grey_level_as_it_was(name):
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), (16, 16, 3))
    images = np.stack([levels, np.zeros_like(levels), np.full_like(levels, 255)])
    still = og.gradient_descent(optax.sgd(0.1), steps=0, pixels=getattr(og.pixels, name)())
    weights = reference.perceptron((16, 16, 3))
    result = og.synthesize(APPLY, weights, images, targets(3), solver=still, history=True)
    np.testing.assert_array_equal(og.pixels.to_uint8(result.images), images)
    np.testing.assert_array_equal(result.steps, 0)
    np.testing.assert_array_equal(result.history, result.kl[:, None])
    floats = images / np.float32(255)
    again = og.synthesize(APPLY, weights, floats, targets(3), solver=still, history=True)
    assert_same(again, result, atol=0)


def test_one_target_serves_all_images():
    images, row = sources(3), targets(1)[0]
    expected = og.synthesize(APPLY, WEIGHTS, images, np.tile(row, (3, 1)), solver=FAST)
    assert_same(og.synthesize(APPLY, WEIGHTS, images, row, solver=FAST), expected, atol=0)


def test_float_and_8_bit_images_agree():
    images, rows = sources(3), targets(3)
    expected = og.synthesize(APPLY, WEIGHTS, images, rows, solver=FAST)
    floats = og.synthesize(APPLY, WEIGHTS, images / 255, rows, solver=FAST)  # float64
    assert_same(floats, expected, atol=1e-6)


def test_a_target_out_of_reach_is_no_error():
    def bounded(weights, images):
        return jnp.tanh(APPLY(weights, images))  # no class above e/(e + 4/e) = 0.65

    result = og.synthesize(
        bounded, WEIGHTS, sources(3), np.eye(CLASSES)[:3], solver=FAST, tolerance=0.05
    )
    assert not result.converged.any()
    assert result.finite.all()
    np.testing.assert_array_equal(result.steps, 12)
    assert (result.total_variation > 0.3).all()


# --- stopping ---


def test_each_image_stops_at_the_tolerance_by_itself():
    images, rows = sources(16), targets(16)
    solver = og.gradient_descent(optax.sgd(0.5), steps=40)
    result = og.synthesize(APPLY, WEIGHTS, images, rows, solver=solver, tolerance=0.1, history=True)
    network = reference.perceptron_gradient(WEIGHTS)
    for i in range(16):
        expected = reference.descend(
            network, images[i] / 255, rows[i], steps=40, learning_rate=0.5, tolerance=0.1
        )
        assert result.steps[i] == expected.steps
        np.testing.assert_allclose(result.images[i], expected.image, atol=1e-4)
        # Where it stopped, it stayed.
        curve = np.pad(expected.history, (0, 40 - expected.steps), mode="edge")
        np.testing.assert_allclose(result.history[i], curve, rtol=1e-3, atol=1e-5)
    assert len(set(result.steps)) > 4
    assert 0 < (result.steps == 40).sum() < 16
    np.testing.assert_array_equal(result.converged, result.total_variation <= 0.1)
    assert result.converged[result.steps < 40].all()


def test_an_image_at_its_target_takes_no_step():
    images = sources(3)
    rows = og.predict(APPLY, WEIGHTS, np.clip(images, 1, 254))
    result = og.synthesize(
        APPLY, WEIGHTS, np.clip(images, 1, 254), rows, solver=FAST, tolerance=1e-5, history=True
    )
    np.testing.assert_array_equal(result.steps, 0)
    assert result.converged.all()
    np.testing.assert_array_equal(og.pixels.to_uint8(result.images), np.clip(images, 1, 254))
    np.testing.assert_allclose(result.history, 0, atol=1e-6)


def test_converged_without_a_tolerance_means_within_one_percent():
    solver = og.gradient_descent(optax.sgd(2.0), steps=40)
    result = og.synthesize(APPLY, WEIGHTS, sources(16), targets(16), solver=solver)
    assert 0 < result.converged.sum() < 16
    np.testing.assert_array_equal(result.converged, result.total_variation <= 0.01)
    np.testing.assert_array_equal(result.steps, 40)


# By KL the first image is the nearer one to (0.5, 0.5, 0), by total variation the second.
_NEAR_BY_KL, _NEAR_BY_DISTANCE = [0.549, 0.45, 0.001], [0.495, 0.495, 0.01]
_TO_THE_SECOND = [
    Solver(
        init=lambda image, target: image,
        update=lambda network, image, target: (
            jnp.array(_NEAR_BY_DISTANCE).reshape(image.shape),
            network(image),
        ),
        image=lambda image: image,
        steps=steps,
    )
    for steps in (1, 3)
]


@pytest.mark.parametrize("solver", _TO_THE_SECOND, ids=["at the last look", "on the way"])
def test_the_image_that_met_the_tolerance_is_the_one_returned(solver):
    def log_pixels(_, images):
        return jnp.log(images.reshape(len(images), -1))

    # Two images: their pixels alone would pass for the probabilities that `synthesize` refuses.
    images = np.float32([_NEAR_BY_KL, [0.8, 0.1, 0.2]]).reshape(2, 1, 1, 3)
    row = [0.5, 0.5, 0]
    result = og.synthesize(log_pixels, {}, images, row, solver=solver, tolerance=0.02, history=True)
    assert result.history[0, 0] < result.kl[0]
    np.testing.assert_allclose(result.images[0].ravel(), _NEAR_BY_DISTANCE, atol=1e-6)
    np.testing.assert_allclose(result.total_variation, 0.01, atol=1e-6)
    np.testing.assert_array_equal(result.steps, 1)
    assert result.converged.all()
    best = og.synthesize(log_pixels, {}, images, row, solver=solver)
    np.testing.assert_allclose(best.images[0].ravel(), _NEAR_BY_KL, atol=1e-6)


# --- networks that fail ---


def poisoned(variables, images):
    """Two classes by brightness; beyond `limit`, the network breaks."""
    limit, poison = variables
    brightness = images.mean((1, 2, 3))
    logits = jnp.stack([40 * (brightness - 0.5), jnp.zeros_like(brightness)], -1)
    return jnp.where(brightness[:, None] > limit, poison, logits)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("updates", [1, 5], ids=["host loop", "scanned"])
def test_an_image_that_breaks_the_network_harms_no_other(monkeypatch, poison, updates):
    monkeypatch.setattr(module, "_chunks", lambda *_: [updates] * (20 // updates))
    solver = og.gradient_descent(optax.sgd(0.5), steps=20)
    images = np.random.default_rng(0).uniform(0.2, 0.4, (4, *SHAPE)).astype(np.float32)
    images[2] += 0.2
    images[3] = 0.7  # beyond the limit from the start
    rows = [[0.1, 0.9], [0.05, 0.95], [0.99, 0.01], [0.99, 0.01]]
    healthy, result = (
        og.synthesize(
            poisoned, (np.float32(limit), poison), images, rows, solver=solver, history=True
        )
        for limit in (np.inf, 0.53)
    )
    assert healthy.finite.all()
    np.testing.assert_array_equal(result.finite, [True, True, False, False])
    assert not result.converged[2:].any()
    for name, a, b in zip(og.Result._fields, result, healthy, strict=True):
        np.testing.assert_array_equal(a[:2], b[:2], err_msg=name)
    # The third crosses the limit on the way, and keeps the last image before that.
    assert 0 < result.steps[2] < 20
    last = result.steps[2] - 1
    np.testing.assert_array_equal(np.isfinite(result.history[2]), np.arange(21) <= last)
    np.testing.assert_array_equal(result.kl[2], result.history[2, last])
    assert 0.5 < result.images[2].mean() <= 0.53
    assert np.isfinite(result.probs[2]).all()
    # The fourth never gave a number: its source comes back.
    assert result.steps[3] == 0
    np.testing.assert_array_equal(result.images[3], images[3])
    assert np.isinf(result.kl[3])
    assert np.isnan(result.probs[3]).all()
