"""Steps of momentum: their equation, their lengths, and the limits they keep."""

import jax
import jax.numpy as jnp
import numpy as np
from toy_synthesis import SHAPE, linear, linear_weights, problem

from outgen_jax.solvers import momentum
from outgen_jax.solvers.limits import restriction
from outgen_jax.solvers.momentum import Momentum, MomentumState

WEIGHTS = linear_weights(5)
SOURCE = np.full(SHAPE, 0.5, np.float32)
TARGET = [0.6, 0.1, 0.1, 0.1, 0.1]


def test_a_lasting_gradient_brings_steps_to_their_length():
    gradient = jnp.array([3e-6, 0.0, -4e-6])  # however small
    step = jnp.zeros(3)
    for count in range(1, 60):
        step = momentum.momentum_step(gradient, step, jnp.float32(0.5))
        expected = [-0.3 * (1 - 0.9**count), 0, 0.4 * (1 - 0.9**count)]
        np.testing.assert_allclose(step, expected, atol=1e-6)
    np.testing.assert_allclose(
        momentum.momentum_step(0 * gradient, step, jnp.float32(0.5)), 0.9 * step
    )


def test_steps_shrink_from_a_share_of_the_change_to_none():
    solver = Momentum(steps=20)
    image = SOURCE.copy()
    image[0, 0] += [0.1, 0.2, -0.2]  # L2 of 0.3
    one = problem(linear, WEIGHTS, TARGET, SOURCE)
    update = jax.jit(lambda state: solver.update(one, state)[0])
    state = solver.init(one, jnp.asarray(image))
    np.testing.assert_allclose(state.change, 0.3, rtol=1e-6)
    for count in range(21):
        at_rest = MomentumState(state.image, jnp.zeros(SHAPE), state.change, jnp.int32(count))
        moved = update(at_rest)
        expected = 0.1 * solver.share * (1 - count / 20) * 0.3  # a tenth: there is no last step
        np.testing.assert_allclose(jnp.linalg.norm(moved.step), expected, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(moved.image - state.image, moved.step, atol=1e-7)
        assert moved.taken == count + 1


def test_steps_go_down_the_loss_of_all_coordinates_and_say_the_outputs_before():
    solver = Momentum()
    one = problem(linear, WEIGHTS, TARGET, SOURCE)
    state = solver.init(one, jnp.asarray(SOURCE + np.float32(0.01)))
    after, (before,) = solver.update(one, state)
    np.testing.assert_allclose(before, linear(WEIGHTS, state.image[None]), rtol=1e-5)
    assert one.objective.divergence(one.network(after.image)) < one.objective.divergence((before,))


def test_steps_keep_to_their_restriction():
    mask = np.zeros(SHAPE[:2])
    mask[:3] = 1
    limits = restriction(mask, 0.02, None, caller="test")
    solver = Momentum(restriction=limits)
    one = problem(linear, WEIGHTS, TARGET, SOURCE)
    start = SOURCE.copy()
    start[:3] += 0.02
    state = solver.init(one, jnp.asarray(start))
    for _ in range(3):
        state, _ = solver.update(one, state)
    change = np.asarray(state.image) - SOURCE
    assert not change[3:].any()
    assert np.abs(change).max() <= 0.02 + 1e-6
    assert (np.asarray(state.image) != start).any()
