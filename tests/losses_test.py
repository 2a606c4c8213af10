"""Losses against scipy in float64, their limits and their gradients."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from outgen_jax import losses

logits_and_targets = hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, 5, elements=st.floats(-30, 30, width=32)),
    hypothesis.extra.numpy.arrays(np.float64, 5, elements=st.sampled_from([0, 0.25, 1, 3])).filter(
        np.any
    ),
)
few = hypothesis.settings(max_examples=40, deadline=None)


def normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


@few
@logits_and_targets
def test_cross_entropy_equals_scipy(logits, weights):
    target = normalised(weights)
    expected = -(target * scipy.special.log_softmax(logits.astype(np.float64))).sum()
    np.testing.assert_allclose(
        losses.cross_entropy(logits, jnp.float32(target)), expected, rtol=1e-5, atol=1e-5
    )


@few
@logits_and_targets
def test_kl_divergence_equals_scipy(logits, weights):
    target = normalised(weights)
    expected = scipy.stats.entropy(target, scipy.special.softmax(logits.astype(np.float64)))
    value = losses.kl_divergence(jnp.float32(target), logits)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@few
@logits_and_targets
def test_gradients_are_softmax_minus_target(logits, weights):
    target = normalised(weights).astype(np.float32)
    expected = scipy.special.softmax(logits.astype(np.float64)) - target
    for loss in (losses.cross_entropy, lambda x, q: losses.kl_divergence(q, x)):
        np.testing.assert_allclose(jax.grad(loss)(logits, target), expected, atol=1e-6)


def test_kl_divergence_vanishes_at_the_target_alone():
    target = jnp.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(losses.kl_divergence(target, jnp.log(target) + 3), 0, atol=1e-6)
    assert losses.kl_divergence(target, jnp.log(target[::-1])) > 0.5


def test_kl_divergence_is_from_target_to_output():
    target, logits = jnp.array([1.0, 0]), jnp.array([0.0, 0])
    np.testing.assert_allclose(losses.kl_divergence(target, logits), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("target", [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0]])
def test_extreme_logits_stay_finite(target):
    logits, q = jnp.array([1e4, 0, -1e4]), jnp.array(target, jnp.float32)
    expected = float(q[1] * 1e4 + q[2] * 2e4)  # log softmax is 0, −1e4, −2e4 here
    np.testing.assert_allclose(losses.cross_entropy(logits, q), expected, rtol=1e-6)
    entropy = scipy.stats.entropy(target)
    np.testing.assert_allclose(losses.kl_divergence(q, logits), expected - entropy, rtol=1e-4)
    for loss in (losses.cross_entropy, lambda x, q: losses.kl_divergence(q, x)):
        np.testing.assert_array_equal(jax.grad(loss)(logits, q), jnp.array([1, 0, 0]) - q)


def test_losses_under_jit_and_vmap_equal_the_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 4)).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    for loss, first, second in (
        (losses.cross_entropy, logits, targets),
        (losses.kl_divergence, targets, logits),
    ):
        mapped = jax.jit(jax.vmap(loss))(first, second)
        loop = [loss(a, b) for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(mapped, loop, rtol=1e-5, atol=1e-6)
