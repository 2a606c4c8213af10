"""The curvature of a softmax output, against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from outgen_jax.outputs import distribution


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0, 3))
def test_over_all_logits_the_models_minimum_is_the_losss(seed, spread):
    rng = np.random.default_rng(seed)
    probs, wanted = (jax.nn.softmax(jnp.float32(spread * rng.normal(size=7))) for _ in range(2))
    weights = np.asarray(distribution._logarithmic_mean(probs, wanted), np.float64)
    curvature = np.diag(weights) - np.outer(weights, weights) / weights.sum()
    step = np.log(wanted) - np.log(probs)
    np.testing.assert_allclose(curvature @ step, np.asarray(wanted - probs), atol=2e-5)
    assert (weights >= np.minimum(probs, wanted) * (1 - 1e-3)).all()
    assert (weights <= np.maximum(probs, wanted) * (1 + 1e-3)).all()


def test_classes_wanted_with_0_weigh_little_and_alike_ones_their_probability():
    probs, wanted = jnp.array([0.5, 0.2, 0.3]), jnp.array([0.8, 0.2, 0.0])
    weights = distribution._logarithmic_mean(probs, wanted)
    np.testing.assert_allclose(weights[:2], [0.3 / np.log(1.6), 0.2], rtol=1e-5)
    assert 0 < weights[2] < 0.02
