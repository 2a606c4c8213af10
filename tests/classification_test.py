"""Total variation: closed forms, limits, and the properties of a distance."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np

from outgen_jax import metrics

distributions = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(
    lambda weights: (np.array(weights) / sum(weights)).astype(np.float32)
)


def test_closed_forms_and_limits():
    p = np.array([[0.9, 0.1, 0], [1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], np.float32)
    q = np.array([[0.6, 0.2, 0.2], [0, 0, 1], [0.5, 0.5, 0], [0.3, 0.2, 0.5]], np.float32)
    np.testing.assert_allclose(metrics.total_variation(p, q), [0.3, 1, 0, 0.1], atol=1e-7)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(distributions, distributions, distributions)
def test_it_is_a_distance_and_bounds_every_event(p, q, r):
    distance = float(metrics.total_variation(p, q))
    assert 0 <= distance <= 1
    assert distance == metrics.total_variation(q, p)
    through = float(metrics.total_variation(p, r) + metrics.total_variation(r, q))
    assert distance <= through + 1e-6
    # The largest difference in probability of any event: here all 16 are tried.
    events = (np.arange(16)[:, None] >> np.arange(4)) & 1
    np.testing.assert_allclose(distance, (events @ (p - q)).max(), atol=1e-6)


def test_leading_axes_and_transforms():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), (2, 3)), rng.dirichlet(np.ones(5), 3)
    expected = np.abs(p - q).sum(-1) / 2
    assert expected.shape == (2, 3)
    np.testing.assert_allclose(metrics.total_variation(p, q), expected, rtol=1e-5)
    mapped = jax.jit(jax.vmap(metrics.total_variation, (0, None)))(p, q)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)
    slope = jax.grad(metrics.total_variation)(np.float32([0.7, 0.3]), np.float32([0.5, 0.5]))
    np.testing.assert_allclose(slope, [0.5, -0.5])
