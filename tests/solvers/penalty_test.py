"""The penalty parameter and the trust: how they follow what a step has found."""

import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.solvers import trust
from outgen_jax.solvers.convex_loss import ExcessPenalty
from outgen_jax.solvers.penalty import PenaltySchedule
from outgen_jax.solvers.trust import TrustRule

TOLERANCE = jnp.float32(1e-3)


def test_the_penalty_of_an_image_that_is_stationary():
    """Where x − x₀ = −c Jᵀ∇D, it gives back c."""
    rng = np.random.default_rng(3)
    jac, gradient = rng.normal(size=(3, 20)), rng.normal(size=3)
    change = -7.0 * gradient @ jac
    found = PenaltySchedule().start(*map(jnp.float32, (gradient, jac, change)))
    assert found == pytest.approx(7, rel=1e-3)
    at_source = PenaltySchedule().start(*map(jnp.float32, (gradient, jac, 0 * change)))
    assert at_source == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("over", "has_met", "factor"),
    [
        (100, False, 1.5),
        (100, True, 1.1),
        (1.05, False, 1.05),
        (1, True, 1),
        (0.01, True, 1 / 1.15),
    ],
)
def test_the_penalty_follows_the_distance_over_the_tolerance(over, has_met, factor):
    distance = over * PenaltySchedule().aim * TOLERANCE
    found = PenaltySchedule().next(jnp.float32(2), distance, TOLERANCE, jnp.bool_(has_met))
    assert found == pytest.approx(2 * factor, rel=1e-5)


def test_the_penalty_has_an_end():
    found = PenaltySchedule(most=3.0).next(
        jnp.float32(2.5), jnp.float32(1), TOLERANCE, jnp.bool_(False)
    )
    assert found == 3


@pytest.mark.parametrize(
    ("ratio", "reduces", "factor"),
    [(0.9, True, 3), (0.5, True, 1), (0.1, True, 0.5), (-0.1, False, 0.25), (np.nan, False, 0.25)],
)
def test_trust_follows_the_ratio_of_the_reductions(ratio, reduces, factor):
    assert TrustRule().factor(jnp.float32(ratio), jnp.bool_(reduces)) == factor


def test_radius_follows_the_ratio_of_the_reductions():
    radius, length = jnp.float32(0.4), jnp.float32(0.2)
    answers = {0.9: 1.2, 0.5: 0.4, 0.1: 0.1, -0.1: 0.05, np.nan: 0.05}
    for ratio, expected in answers.items():
        found = trust.next_radius(radius, length, jnp.float32(ratio), TrustRule())
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    lost = trust.next_radius(radius, jnp.float32(np.nan), jnp.float32(np.nan), TrustRule())
    np.testing.assert_allclose(lost, 0.1)
    np.testing.assert_allclose(trust.first_radius(jnp.zeros((32, 32, 3))), 0.2, rtol=0.01)


def test_the_penalty_on_zeros_follows_the_distance_between_two_bounds():
    weights = [
        ExcessPenalty().loss(None, (), jnp.float32(d), TOLERANCE).weight for d in (1, 4e-3, 1e-9)
    ]
    np.testing.assert_allclose(weights, [0.1, 0.04, 0.01], rtol=1e-5)
    loose = ExcessPenalty().loss(None, (), jnp.float32(1), jnp.float32(0.1))
    np.testing.assert_allclose([loose.weight, loose.floor], [1, 0.07], rtol=1e-5)
