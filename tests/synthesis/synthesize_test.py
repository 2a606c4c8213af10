"""What comes back from `synthesize`, when an image stops, and what a failing network does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import scipy.special
from toy_synthesis import (
    APPLY,
    CLASSES,
    FAST,
    SHAPE,
    WEIGHTS,
    assert_same,
    rows_of,
    sources,
    targets,
)

import outgen_jax as og
from outgen_jax.synthesis import stream

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
    np.testing.assert_allclose(result.outputs, logits, atol=1e-4)
    np.testing.assert_array_equal(result.divergence, result.kl)
    np.testing.assert_array_equal(result.distance, result.total_variation)
    types = {name: field.dtype for name, field in result._asdict().items() if name != "meaning"}
    others = {"steps": np.int32, "converged": bool, "finite": bool, "gave_up": bool}
    assert types == {name: others.get(name, np.float32) for name in types}


@pytest.mark.parametrize("wrap", [lambda x: {"logits": x}, lambda x: (x,)], ids=["dict", "tuple"])
def test_one_softmax_may_come_in_a_dictionary(wrap):
    def wrapped(weights, images):
        return wrap(APPLY(weights, images))

    expected = og.synthesize(APPLY, WEIGHTS, sources(3), targets(3), solver=FAST)
    result = og.synthesize(wrapped, WEIGHTS, sources(3), wrap(targets(3)), solver=FAST)
    np.testing.assert_allclose(result.probs, expected.probs, atol=1e-6)
    np.testing.assert_allclose(result.kl, expected.kl, atol=1e-6)


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


def test_the_default_solver_is_exact():
    images, rows = sources(4), targets(4)
    result = og.synthesize(APPLY, WEIGHTS, images, rows)
    expected = og.synthesize(APPLY, WEIGHTS, images, rows, solver=og.exact(), tolerance=1e-5)
    assert_same(result, expected, atol=0)
    assert result.converged.all()
    assert result.distance.max() <= 1e-5


@pytest.mark.parametrize("name", ["arctan", "tanh", "identity"])
def test_no_updates_return_every_grey_level_as_it_was(name):
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), (16, 16, 3))
    images = np.stack([levels, np.zeros_like(levels), np.full_like(levels, 255)])
    still = og.gradient_descent(optax.sgd(0.1), steps=0, pixels=getattr(og.pixels, name)())
    weights = reference.perceptron((16, 16, 3))
    result = og.synthesize(APPLY, weights, images, targets(3), solver=still, history=True)
    np.testing.assert_array_equal(og.data.to_uint8(result.images), images)
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
    np.testing.assert_array_equal(og.data.to_uint8(result.images), np.clip(images, 1, 254))
    np.testing.assert_allclose(result.history, 0, atol=1e-6)


def test_converged_without_a_tolerance_means_within_one_percent():
    solver = og.gradient_descent(optax.sgd(2.0), steps=40)
    result = og.synthesize(APPLY, WEIGHTS, sources(16), targets(16), solver=solver)
    assert 0 < result.converged.sum() < 16
    np.testing.assert_array_equal(result.converged, result.total_variation <= 0.01)
    np.testing.assert_array_equal(result.steps, 40)


# By KL the first image is the nearer one to (0.5, 0.5, 0), by total variation the second.
_NEAR_BY_KL, _NEAR_BY_DISTANCE = [0.549, 0.45, 0.001], [0.495, 0.495, 0.01]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ToTheSecond(og.Solver):
    """A user's own solver: one step, onto the second image."""

    steps: int

    def init(self, problem: Any, image: jax.Array) -> jax.Array:
        return image

    def update(self, problem: Any, state: jax.Array) -> tuple[jax.Array, Any]:
        return jnp.array(_NEAR_BY_DISTANCE).reshape(state.shape), problem.network(state)

    def image(self, state: jax.Array) -> jax.Array:
        return state


@pytest.mark.parametrize("steps", [1, 3], ids=["at the last look", "on the way"])
def test_the_image_that_met_the_tolerance_is_the_one_returned(steps):
    def log_pixels(_, images):
        return jnp.log(images.reshape(len(images), -1))

    solver = ToTheSecond(steps)
    assert isinstance(solver, og.Solver)
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
@pytest.mark.parametrize("updates", [1, 5], ids=["one update a call", "several"])
def test_an_image_that_breaks_the_network_harms_no_other(monkeypatch, poison, updates):
    monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_: updates)
    solver = og.gradient_descent(_DESCENT, steps=20)
    images = np.random.default_rng(0).uniform(0.2, 0.4, (3, *SHAPE)).astype(np.float32)
    images[2] += 0.2
    rows = [[0.1, 0.9], [0.05, 0.95], [0.99, 0.01]]
    healthy, result = (
        og.synthesize(
            poisoned, (np.float32(limit), poison), images, rows, solver=solver, history=True
        )
        for limit in (np.inf, 0.53)
    )
    assert healthy.finite.all()
    np.testing.assert_array_equal(result.finite, [True, True, False])
    assert not result.converged[2]
    assert_same(rows_of(result, slice(2)), rows_of(healthy, slice(2)), atol=0)
    # The third crosses the limit on the way, and keeps the last image before that.
    assert 0 < result.steps[2] < 20
    last = result.steps[2] - 1
    np.testing.assert_array_equal(np.isfinite(result.history[2]), np.arange(21) <= last)
    np.testing.assert_array_equal(result.kl[2], result.history[2, last])
    assert 0.5 < result.images[2].mean() <= 0.53
    assert np.isfinite(result.probs[2]).all()


def test_an_image_that_failed_is_not_started_again():
    images = np.full((1, *SHAPE), 0.5, np.float32)
    solver = og.restarted(og.gradient_descent(_DESCENT, steps=20), times=3)
    result = og.synthesize(
        poisoned, (np.float32(0.53), np.float32(np.nan)), images, [0.99, 0.01], solver=solver
    )
    assert result.steps[0] < 20
    assert not result.finite[0]


_DESCENT = optax.sgd(0.5)


# --- other outputs ---


def test_properties_of_a_classifier_are_refused_for_other_outputs():
    result = og.synthesize(
        APPLY, WEIGHTS, sources(2), np.zeros(CLASSES), output=og.outputs.values(), solver=FAST
    )
    for name in ("probs", "kl", "total_variation"):
        with pytest.raises(AttributeError, match=f"Result.{name} is for one softmax output; use"):
            getattr(result, name)
    remedy = (result.outputs, result.distance, result.divergence)
    assert all(np.isfinite(part).all() for part in remedy)


def several(weights, images):
    """A classifier, labels of two halves, and numbers, by name."""
    logits = APPLY(weights, images)
    halves = jnp.stack([logits[:, :2], -logits[:, 1:3]], 1)
    return {"kind": logits, "labels": halves, "size": 2 * logits[:, 3:]}


SEVERAL_KINDS = {
    "kind": og.outputs.softmax(),
    "labels": og.outputs.sigmoid(),
    "size": og.outputs.values(scale=2.0),
}


def test_several_outputs_come_back_as_the_network_returns_them():
    images = sources(3)
    nearby = og.predict(several, WEIGHTS, sources(3, seed=9), output=SEVERAL_KINDS)
    solver = og.gauss_newton(steps=1)
    result = og.synthesize(several, WEIGHTS, images, nearby, output=SEVERAL_KINDS, solver=solver)
    assert {name: part.shape for name, part in result.outputs.items()} == {
        "kind": (3, 5),
        "labels": (3, 2, 2),
        "size": (3, 2),
    }
    raw = several(WEIGHTS, result.images)
    for name in SEVERAL_KINDS:
        np.testing.assert_allclose(result.outputs[name], raw[name], atol=1e-4)
    said = og.predict(several, WEIGHTS, result.images, output=SEVERAL_KINDS)
    distances = [
        np.abs(said["kind"] - nearby["kind"]).sum(1) / 2,
        np.abs(said["labels"] - nearby["labels"]).max((1, 2)),
        np.sqrt((((said["size"] - nearby["size"]) / 2) ** 2).mean(1)),
    ]
    np.testing.assert_allclose(result.distance, np.max(distances, 0), atol=1e-5)


def test_two_networks_at_once_are_both_steered():
    """A tuple of a classifier and of labels of another one, each with its own targets."""
    other = jax.tree.map(lambda w: w[::-1] if w.ndim == 1 else -w, WEIGHTS)

    def both(variables, images):
        return APPLY(variables[0], images), APPLY(variables[1], images[:, :, ::-1])[:, :3]

    kinds = (og.outputs.softmax(), og.outputs.sigmoid())
    images = np.random.default_rng(3).uniform(0.3, 0.7, (3, *SHAPE)).astype(np.float32)
    # What both say of another image, so that one image can have it.
    nearby = np.clip(images + np.random.default_rng(4).normal(0, 0.05, images.shape), 0, 1)
    rows = og.predict(both, (WEIGHTS, other), nearby, output=kinds)
    solver = og.gauss_newton()
    result = og.synthesize(
        both, (WEIGHTS, other), images, rows, output=kinds, solver=solver, tolerance=1e-4
    )
    assert result.converged.all()
    said = og.predict(both, (WEIGHTS, other), result.images, output=kinds)
    for found, row in zip(said, rows, strict=True):
        np.testing.assert_allclose(found, row, atol=2e-4)


def test_all_views_meet_one_target():
    flipped = og.views(APPLY, [lambda x: x, lambda x: x[:, ::-1], lambda x: x[::-1]])
    rows, images = np.array([0.4, 0.3, 0.1, 0.1, 0.1]), np.full((2, *SHAPE), 0.5, np.float32)
    images += np.random.default_rng(3).uniform(-0.05, 0.05, images.shape).astype(np.float32)
    result = og.synthesize(flipped, WEIGHTS, images, rows, solver=og.gauss_newton(), tolerance=1e-4)
    assert result.converged.all()
    assert result.outputs.shape == (2, 3, CLASSES)
    for images in (result.images, result.images[:, :, ::-1], result.images[:, ::-1]):
        said = og.predict(APPLY, WEIGHTS, images)
        np.testing.assert_allclose(said, np.tile(rows, (2, 1)), atol=2e-4)


# --- reported by users ---


def test_a_class_that_is_switched_off_may_be_wanted_with_0():
    def masked(weights, images):
        return jnp.where(jnp.arange(CLASSES) < 4, APPLY(weights, images), -jnp.inf)

    row = np.array([0.5, 0.3, 0.1, 0.1, 0.0])
    result = og.synthesize(
        masked, WEIGHTS, sources(3), row, solver=og.gauss_newton(), tolerance=1e-3
    )
    assert result.converged.all()
    np.testing.assert_array_equal(result.probs[:, 4], 0)
    descended = og.synthesize(masked, WEIGHTS, sources(3), row, solver=FAST)
    assert descended.finite.all()
    assert np.isfinite(descended.kl).all()
