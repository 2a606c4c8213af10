"""The loss of log-ratios: its derivatives, its minimum, and the step that minimises it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from outgen_jax.solvers import linearized, ratio_loss

TARGET = np.array([0.6, 0.3, 0.1, 0.0], np.float32)
WEIGHT = 0.1
RATIOS = st.lists(st.floats(-12, 12), min_size=3, max_size=3)


def at(ratios) -> jax.Array:
    return jnp.asarray(ratios, jnp.float32)


def oracle(target: np.ndarray, ratios: np.ndarray) -> float:
    """The loss in float64, one class after another."""
    log_probs = np.append(0.0, ratios) - np.logaddexp.reduce(np.append(0.0, ratios))
    total = sum(q * (np.log(q) - p) for q, p in zip(target, log_probs, strict=True) if q > 0)
    for q, ratio in zip(target[1:], ratios, strict=True):
        error = ratio - np.log(max(q, 1e-6) / target[0])
        size = max(error, 0) if q < 1e-6 else error
        total += WEIGHT * (np.sqrt(1 + size**2) - 1)
    return total


@settings(max_examples=50, deadline=None)
@given(RATIOS)
def test_loss_equals_the_definition(ratios):
    expected = oracle(np.float64(TARGET), np.array(ratios))
    np.testing.assert_allclose(
        ratio_loss.loss(TARGET, at(ratios), WEIGHT), expected, rtol=1e-4, atol=2e-5
    )


@settings(max_examples=50, deadline=None)
@given(RATIOS)
def test_slope_and_curvature_are_the_derivatives(ratios):
    slope = jax.grad(ratio_loss.loss, argnums=1)(TARGET, at(ratios), WEIGHT)
    np.testing.assert_allclose(ratio_loss.slope(TARGET, at(ratios), WEIGHT), slope, atol=1e-5)
    errors = np.abs(ratio_loss.log_errors(TARGET, at(ratios)))
    if not ((errors > 0) & (errors < 1e-3)).any():  # the second derivative jumps at the floor
        hessian = jax.jacobian(ratio_loss.slope, argnums=1)(TARGET, at(ratios), WEIGHT)
        np.testing.assert_allclose(
            ratio_loss.curvature(TARGET, at(ratios), WEIGHT), hessian, atol=1e-5
        )


@settings(max_examples=30, deadline=None)
@given(RATIOS, RATIOS)
def test_loss_is_convex(a, b):
    ends = (ratio_loss.loss(TARGET, at(a), WEIGHT) + ratio_loss.loss(TARGET, at(b), WEIGHT)) / 2
    assert ratio_loss.loss(TARGET, (at(a) + at(b)) / 2, WEIGHT) <= ends + 1e-4


def test_nothing_is_left_at_the_target_and_below_the_floor():
    full = jnp.array([0.5, 0.3, 0.2])
    exact = jnp.log(full[1:] / full[0])
    np.testing.assert_allclose(ratio_loss.loss(full, exact, WEIGHT), 0, atol=1e-7)
    np.testing.assert_allclose(ratio_loss.slope(full, exact, WEIGHT), 0, atol=1e-7)
    low = at([np.log(0.5), np.log(1 / 6), -30.0])
    np.testing.assert_array_equal(ratio_loss.log_errors(TARGET, low)[2], 0)
    np.testing.assert_allclose(ratio_loss.loss(TARGET, low, WEIGHT), 0, atol=1e-6)


def test_a_small_excess_counts_in_nats():
    """From 1e-3 to 1e-4 the KL divergence hardly gains; the loss gains nearly w a nat."""

    def loss(excess):
        return ratio_loss.loss(
            TARGET, at([np.log(0.5), np.log(1 / 6), np.log(excess / 0.6)]), WEIGHT
        )

    assert loss(1e-3) - loss(1e-4) > 0.9 * WEIGHT * np.log(10)


@pytest.mark.parametrize("damping", [10.0, 0.1, 1e-4])
def test_multipliers_minimise_the_regularised_loss(damping):
    """Against a general minimiser in float64, in the coordinates of the step."""
    rng = np.random.default_rng(1)
    rows, offset = rng.normal(size=(3, 7)), rng.normal(size=3)

    def objective(step):
        return oracle(np.float64(TARGET), offset + rows @ step) + damping / 2 * step @ step

    best = optimize.minimize(objective, np.zeros(7), tol=1e-12).fun
    multiplier = ratio_loss.multipliers(
        at(offset), at(rows @ rows.T), jnp.asarray(TARGET), jnp.float32(damping), WEIGHT
    )
    assert objective(np.float64(multiplier) @ rows) <= best + 1e-4


def test_number_of_ratios():
    assert linearized.num_ratios(10, 32) == 9
    assert linearized.num_ratios(10, 10) == 9
    assert linearized.num_ratios(10, 2) == 2
