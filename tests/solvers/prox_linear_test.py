"""The prox-linear loss: its definition, its derivatives, and the step that minimises it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import outgen_jax as og
from outgen_jax.solvers import prox_linear
from outgen_jax.solvers.convex_loss import RatioLoss
from outgen_jax.solvers.limits import Limits
from outgen_jax.solvers.objective import Objective

TARGET = np.array([0.6, 0.3, 0.1, 0.0], np.float32)
WEIGHT, FLOOR = 0.1, 1e-6
RATIOS = st.lists(st.floats(-12, 12), min_size=3, max_size=3)


def at(ratios) -> jax.Array:
    return jnp.asarray(ratios, jnp.float32)


def loss_of(target, weight=WEIGHT) -> RatioLoss:
    """Of one softmax row whose target is sorted, largest first, so that the coordinates are in its order."""
    target = jnp.asarray(target, jnp.float32)
    objective = Objective((target[None],), (og.outputs.softmax(),), (None,))
    return RatioLoss(objective, (target[None],), jnp.float32(weight), FLOOR)


LOSS = loss_of(TARGET)
value, gradient, hessian = (
    jax.jit(functools.partial(getattr(RatioLoss, name), LOSS))
    for name in ("value", "gradient", "hessian")
)
errors = jax.jit(functools.partial(RatioLoss._errors, LOSS))
derivative = jax.jit(jax.grad(functools.partial(RatioLoss.value, LOSS)))
second_derivative = jax.jit(jax.jacobian(functools.partial(RatioLoss.gradient, LOSS)))


def oracle(target: np.ndarray, ratios: np.ndarray) -> float:
    """The loss in float64, one class after another."""
    log_probs = np.append(0.0, ratios) - np.logaddexp.reduce(np.append(0.0, ratios))
    total = sum(q * (np.log(q) - p) for q, p in zip(target, log_probs, strict=True) if q > 0)
    for q, ratio in zip(target[1:], ratios, strict=True):
        error = ratio - np.log(max(q, FLOOR) / target[0])
        size = max(error, 0) if q < FLOOR else error
        total += WEIGHT * (np.sqrt(1 + size**2) - 1)
    return total


@settings(max_examples=50, deadline=None)
@given(RATIOS)
def test_loss_equals_the_definition(ratios):
    expected = oracle(np.float64(TARGET), np.array(ratios))
    np.testing.assert_allclose(value(at(ratios)), expected, rtol=1e-4, atol=2e-5)


@settings(max_examples=50, deadline=None)
@given(RATIOS)
def test_gradient_and_hessian_are_the_derivatives(ratios):
    np.testing.assert_allclose(gradient(at(ratios)), derivative(at(ratios)), atol=1e-5)
    off = np.abs(errors(at(ratios)))
    if not ((off > 0) & (off < 1e-3)).any():  # the second derivative jumps at the floor
        expected = second_derivative(at(ratios))
        np.testing.assert_allclose(hessian(at(ratios)), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(RATIOS, RATIOS)
def test_loss_is_convex(a, b):
    ends = (value(at(a)) + value(at(b))) / 2
    assert value((at(a) + at(b)) / 2) <= ends + 1e-4


def test_nothing_is_left_at_the_target_and_below_the_floor():
    full = jnp.array([0.5, 0.3, 0.2])
    exact = jnp.log(full[1:] / full[0])
    np.testing.assert_allclose(loss_of(full).value(exact), 0, atol=1e-7)
    np.testing.assert_allclose(loss_of(full).gradient(exact), 0, atol=1e-7)
    low = at([np.log(0.5), np.log(1 / 6), -30.0])
    np.testing.assert_array_equal(errors(low)[2], 0)
    np.testing.assert_allclose(value(low), 0, atol=1e-6)


def test_a_small_excess_counts_in_nats():
    """From 1e-3 to 1e-4 the KL divergence hardly gains; the loss gains nearly w a nat."""

    def loss(excess):
        return value(at([np.log(0.5), np.log(1 / 6), np.log(excess / 0.6)]))

    assert loss(1e-3) - loss(1e-4) > 0.9 * WEIGHT * np.log(10)


@pytest.mark.parametrize("damping", [10.0, 0.1, 1e-4])
def test_multipliers_minimise_the_regularised_loss(damping):
    """Against a general minimiser in float64, in the coordinates of the step."""
    rng = np.random.default_rng(1)
    rows, offset = rng.normal(size=(3, 7)), rng.normal(size=3)

    def objective(step):
        return oracle(np.float64(TARGET), offset + rows @ step) + damping / 2 * step @ step

    best = optimize.minimize(objective, np.zeros(7), tol=1e-12).fun
    multiplier = prox_linear.multipliers(LOSS, at(offset), at(rows @ rows.T), jnp.float32(damping))
    assert objective(np.float64(multiplier) @ rows) <= best + 1e-4


# --- the step in the box ---

BOX = Limits(jnp.zeros(40), jnp.ones(40), lambda row: row, lambda row: row)


def test_step_stays_in_the_box_and_no_longer_than_gradient_over_damping():
    rng = np.random.default_rng(2)
    image = jnp.asarray(rng.uniform(0, 1, 40).round(1), jnp.float32)
    rows, offset = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 40), 3))
    target = jnp.array([0.97, 0.01, 0.01, 0.01])
    loss = loss_of(target)
    gradient = loss.gradient(offset) @ rows
    step = jax.jit(
        lambda damping: prox_linear.bounded_step(
            loss, BOX, image, offset, rows, damping, jnp.zeros(40)
        )
    )
    for damping in (1e-3, 0.3, 10.0):
        change = step(jnp.float32(damping))
        assert (image + change >= -1e-6).all()
        assert (image + change <= 1 + 1e-6).all()
        assert jnp.linalg.norm(change) <= jnp.linalg.norm(gradient) / damping * (1 + 1e-5)
    # The least damped one meets the sides and still reaches the target of the linear model.
    change = step(jnp.float32(1e-4))
    at_sides = [((x < 1e-6) | (x > 1 - 1e-6)).sum() for x in (image, image + change)]
    assert at_sides[1] > at_sides[0]
    reached = jax.nn.softmax(jnp.append(0.0, offset + rows @ change))
    np.testing.assert_allclose(reached, target, atol=0.02)


def test_a_shift_does_not_cost_the_target():
    """Where the output is right already, Jᵀλ makes up for whatever the shift does to it."""
    rng = np.random.default_rng(8)
    image, shift = (
        jnp.asarray(rng.uniform(*side, 40), jnp.float32) for side in ((0.4, 0.6), (-0.1, 0.1))
    )
    rows = jnp.asarray(rng.normal(size=(3, 40)), jnp.float32)
    target = jnp.array([0.4, 0.2, 0.3, 0.1])
    offset = jnp.log(target[1:] / 0.4)
    step = prox_linear.bounded_step(
        loss_of(target), BOX, image, offset, rows, jnp.float32(1e-6), shift
    )
    np.testing.assert_allclose(rows @ step, np.zeros(3), atol=1e-4)
    # What lay in the span of the rows is gone.
    away = rows.T @ np.linalg.lstsq(np.asarray(rows.T), np.asarray(shift))[0]
    np.testing.assert_allclose(step, shift - away, atol=1e-4)


def test_equal_rows_leave_the_multipliers_finite():
    """Two views that are the same: the Gram matrix is singular."""
    row = jax.random.normal(jax.random.key(0), (3, 40))
    rows = jnp.concatenate([row, row])
    target = jnp.tile(jnp.array([0.4, 0.3, 0.2, 0.1]), (2, 1))
    objective = Objective((target,), (og.outputs.softmax(),), (None,))
    loss = RatioLoss(objective, (target,), 0.0, 1e-6)
    found = prox_linear.multipliers(loss, jnp.zeros(6), rows @ rows.T, jnp.float32(1e-10))
    reached = jax.nn.softmax(jnp.append(0, (rows @ rows.T @ found)[:3]))
    np.testing.assert_allclose(reached, target[0], atol=1e-3)


def test_a_quadratic_loss_is_solved_however_far_the_target_is():
    """No cap on the step: its unit is nats, and means nothing for numbers."""
    row, goal = jnp.ones((1, 40)), jnp.full((1, 1), 1e4)
    loss = RatioLoss(Objective((goal,), (og.outputs.values(),), (None,)), (goal,), 0.0, 0.0)
    options = {"damping": jnp.float32(1e-3), "newton_steps": 1}
    found = prox_linear.multipliers(loss, jnp.zeros(1), row @ row.T, **options)
    np.testing.assert_allclose(40 * found, 1e4, rtol=1e-2)
