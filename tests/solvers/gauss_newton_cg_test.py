"""Gauss-Newton by conjugate gradients: the step against dense algebra, and targets over many classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import outgen_jax as og
from outgen_jax.solvers import gauss_newton_cg

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
        lambda matrix, gradient, radius: gauss_newton_cg.truncated_cg(
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
    step = gauss_newton_cg.truncated_cg(jnp.zeros_like, gradient, 0.5, 1e-6, 3)
    np.testing.assert_allclose(step, -0.5 * gradient / jnp.linalg.norm(gradient), rtol=1e-5)
    assert not gauss_newton_cg.truncated_cg(jnp.zeros_like, 0 * gradient, 0.5, 1e-6, 3).any()


@pytest.mark.parametrize(("now", "before", "beta"), [(1, np.inf, 0), (1, 2, 0.25), (2, 2, 0.95)])
def test_the_slower_the_loss_falls_the_more_momentum(now, before, beta):
    np.testing.assert_allclose(gauss_newton_cg.momentum(now, before), beta)


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


def test_steps_stay_within_the_box_and_other_kinds_of_output_are_reached():
    """Forty labels and twenty numbers at once, without a row for any of them."""
    rng = np.random.default_rng(5)
    weights = jnp.asarray(rng.normal(size=(192, 60)) * 0.3, jnp.float32)

    def apply_fn(weights, images):
        found = (images.reshape(len(images), -1) - 0.5) @ weights
        return found[:, :40], found[:, 40:]

    images = rng.uniform(0.2, 0.8, (3, *SHAPE)).astype(np.float32)
    result = og.synthesize(
        apply_fn,
        weights,
        images,
        (rng.uniform(0.1, 0.9, (3, 40)), rng.normal(size=(3, 20))),
        output=(og.outputs.sigmoid(), og.outputs.values()),
        solver=og.gauss_newton_cg(),
        tolerance=1e-3,
    )
    assert result.converged.all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1


@pytest.mark.parametrize(
    "options", [{"mask": np.tri(8)}, {"max_change": 0.1}, {"lowpass_radius": 2.0}], ids=str
)
def test_restrictions_hold(options):
    images = np.random.default_rng(6).uniform(0.3, 0.7, (2, *SHAPE)).astype(np.float32)
    nearby = np.clip(images + np.random.default_rng(7).normal(0, 0.03, images.shape), 0, 1)
    wanted = og.predict(wide_logits, wide_network(), nearby)
    free, bound = (
        og.synthesize(
            wide_logits, wide_network(), images, wanted, solver=og.gauss_newton_cg(steps=20, **o)
        )
        for o in ({}, options)
    )
    change = bound.images - images
    before = (scipy.special.rel_entr(wanted, og.predict(wide_logits, wide_network(), images))).sum(
        1
    )
    assert (bound.divergence < 0.3 * before).all()
    if "mask" in options:
        assert not change[:, np.tri(8) == 0].any()
    elif "max_change" in options:
        assert np.abs(change).max() <= 0.1 + 1e-6
    else:
        fine = [og.pixels.high_frequency_energy(jnp.asarray(c), 3.5) for c in change]
        share = np.array(fine) / (change**2).mean((1, 2, 3))
        wide = [og.pixels.high_frequency_energy(jnp.asarray(c), 3.5) for c in free.images - images]
        assert (share < 0.5 * np.array(wide) / ((free.images - images) ** 2).mean((1, 2, 3))).all()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="gauss_newton_cg: max_change must be positive"):
        og.gauss_newton_cg(max_change=0)
    with pytest.raises(ValueError, match=r"gauss_newton_cg: .* got -1 and 5"):
        og.gauss_newton_cg(steps=-1, iterations=5)
    with pytest.raises(ValueError, match="iterations be at least 1, got 3 and 0"):
        og.gauss_newton_cg(steps=3, iterations=0)
