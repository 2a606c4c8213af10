"""Gauss–Newton by conjugate gradients: the step against dense algebra, and targets over many classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import outgen_jax as og
from outgen_jax.solvers import newton_cg

SHAPE = (8, 8, 3)
CLASSES = 60
D = 12


@functools.cache
def wide_network() -> dict[str, jax.Array]:
    """A network of one hidden layer with 60 classes."""
    rng = np.random.default_rng(0)
    return {
        "inner": jnp.asarray(rng.normal(size=(192, 100)) * 0.15, jnp.float32),
        "outer": jnp.asarray(rng.normal(size=(100, CLASSES)) * 0.25, jnp.float32),
    }


def wide_logits(variables, images):
    return jnp.tanh(images.reshape(len(images), -1) @ variables["inner"]) @ variables["outer"]


def bowl(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite matrix and a gradient."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(D, D))
    return root @ root.T + 0.5 * np.eye(D), rng.normal(size=D)


@functools.cache
def compiled(iterations: int):
    return jax.jit(
        lambda matrix, gradient, radius: newton_cg.truncated_cg(
            lambda x: matrix @ x, gradient, radius, 1e-6, iterations
        )
    )


# --- the step ---


@pytest.mark.parametrize("seed", range(3))
def test_within_the_radius_it_is_newtons_step(seed):
    matrix, gradient = bowl(seed)
    step = compiled(40)(jnp.float32(matrix), jnp.float32(gradient), jnp.float32(1e3))
    np.testing.assert_allclose(step, np.linalg.solve(matrix, -gradient), rtol=2e-3, atol=2e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.floats(1e-3, 10))
def test_no_step_is_longer_than_the_radius_or_worse_than_steepest_descent(seed, radius):
    matrix, gradient = bowl(seed)
    step = np.asarray(
        compiled(6)(jnp.float32(matrix), jnp.float32(gradient), jnp.float32(radius)), np.float64
    )
    assert np.linalg.norm(step) <= radius * (1 + 1e-4)

    def model(x):
        return gradient @ x + x @ matrix @ x / 2

    norm = np.linalg.norm(gradient)
    length = min(radius / norm, norm**2 / (gradient @ matrix @ gradient))
    assert model(step) <= model(-length * gradient) + 1e-4 * abs(model(-length * gradient))


def test_a_flat_model_ends_at_the_radius():
    gradient = jnp.arange(1.0, 5.0)
    step = newton_cg.truncated_cg(jnp.zeros_like, gradient, 0.5, 1e-6, 3)
    np.testing.assert_allclose(step, -0.5 * gradient / jnp.linalg.norm(gradient), rtol=1e-5)
    assert not newton_cg.truncated_cg(jnp.zeros_like, 0 * gradient, 0.5, 1e-6, 3).any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0, 3))
def test_over_all_logits_the_models_minimum_is_the_losss(seed, spread):
    rng = np.random.default_rng(seed)
    probs, wanted = (jax.nn.softmax(spread * rng.normal(size=7)) for _ in range(2))
    weights = np.asarray(newton_cg.curvature_weights(probs, wanted), np.float64)
    curvature = np.diag(weights) - np.outer(weights, weights) / weights.sum()
    step = np.log(wanted) - np.log(probs)
    np.testing.assert_allclose(curvature @ step, np.asarray(wanted - probs), atol=2e-5)
    assert (weights >= np.minimum(probs, wanted) * (1 - 1e-3)).all()
    assert (weights <= np.maximum(probs, wanted) * (1 + 1e-3)).all()


def test_classes_wanted_with_0_weigh_little_and_alike_ones_their_probability():
    probs, wanted = jnp.array([0.5, 0.2, 0.3]), jnp.array([0.8, 0.2, 0.0])
    weights = newton_cg.curvature_weights(probs, wanted)
    np.testing.assert_allclose(weights[:2], [0.3 / np.log(1.6), 0.2], rtol=1e-5)
    assert 0 < weights[2] < 0.02


@pytest.mark.parametrize(("now", "before", "beta"), [(1, np.inf, 0), (1, 2, 0.25), (2, 2, 0.95)])
def test_the_slower_the_loss_falls_the_more_momentum(now, before, beta):
    np.testing.assert_allclose(newton_cg.momentum(now, before), beta)


# --- the solver ---


def test_a_target_over_sixty_classes_is_reached():
    images = np.random.default_rng(1).uniform(0, 1, (6, *SHAPE)).astype(np.float32)
    wanted = np.roll(og.predict(wide_logits, wide_network(), images), 1, axis=0)
    before = og.metrics.total_variation(np.roll(wanted, -1, axis=0), wanted)
    result = og.synthesize(
        wide_logits, wide_network(), images, wanted, solver=og.gauss_newton_cg(), tolerance=1e-4
    )
    assert before.min() > 0.1
    assert result.converged.all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_every_step_lowers_the_divergence_and_black_and_white_pixels_may_stay():
    images = np.random.default_rng(2).integers(0, 256, (4, *SHAPE), np.uint8)
    images[:, :2], images[:, 2:4] = 0, 255
    rows = np.random.default_rng(3).dirichlet(np.ones(5), 4).astype(np.float32)
    result = og.synthesize(
        reference.perceptron_logits,
        reference.perceptron(SHAPE, steepness=2.8),
        images,
        rows,
        solver=og.gauss_newton_cg(steps=15),
        history=True,
    )
    assert (np.diff(result.history, axis=1) <= 1e-7).all()
    assert np.median(result.history[:, -1]) < 1e-3 * np.median(result.history[:, 0])


def test_partial_targets_are_met():
    images = np.random.default_rng(4).uniform(0, 1, (3, *SHAPE)).astype(np.float32)
    rows = np.ma.masked_all((3, CLASSES), np.float32)
    rows[:, 7], rows[:, 3] = 0.6, 0.2
    result = og.synthesize(
        wide_logits, wide_network(), images, rows, solver=og.gauss_newton_cg(), tolerance=1e-3
    )
    assert result.converged.all()
    np.testing.assert_allclose(result.probs[:, 7], 0.6, atol=1e-3)


def test_a_jump_to_nan_is_not_taken():
    def apply_fn(variables, images):
        flat = images.reshape(len(images), -1)
        return jnp.where(flat.mean(-1, keepdims=True) > 0.52, jnp.nan, flat @ variables)

    matrix = jnp.zeros((192, 2)).at[:, 1].set(0.1)
    image = np.full((1, *SHAPE), 0.5, np.float32)
    solver = og.gauss_newton_cg(steps=4)
    result = og.synthesize(apply_fn, matrix, image, np.array([0.0, 1.0]), solver=solver)
    assert result.finite.all()
    assert 0.5 < result.images.mean() <= 0.52


def test_equal_settings_are_one_solver_and_bad_ones_are_refused():
    assert og.gauss_newton_cg() is og.gauss_newton_cg()
    with pytest.raises(ValueError, match="got -1 and 5"):
        og.gauss_newton_cg(steps=-1, iterations=5)
    with pytest.raises(ValueError, match="iterations be at least 1, got 3 and 0"):
        og.gauss_newton_cg(steps=3, iterations=0)
