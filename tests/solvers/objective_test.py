"""An objective of several parts and rows is the sum, or the largest, of its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outgen_jax as og
from outgen_jax.solvers.objective import Objective

RNG = np.random.default_rng(0)
KINDS = (og.outputs.softmax(), og.outputs.sigmoid(), og.outputs.values(scale=0.5))
# Two views of four classes, one row of three labels, three rows of two numbers.
TARGETS = (
    RNG.dirichlet(np.ones(4), 2),
    np.array([[0.2, np.nan, 1.0]]),
    RNG.normal(size=(3, 2)),
)
OUTPUTS = tuple(jnp.asarray(RNG.normal(size=t.shape), jnp.float32) for t in TARGETS)
OBJECTIVE = Objective(tuple(jnp.asarray(t, jnp.float32) for t in TARGETS), KINDS, (None,) * 3)


def of_rows(name: str) -> list[float]:
    """What the kinds say of every row by itself."""
    found = []
    for kind, outputs, targets in zip(KINDS, OUTPUTS, OBJECTIVE.targets, strict=True):
        found += [float(getattr(kind, name)(o, t)) for o, t in zip(outputs, targets, strict=True)]
    return found


def test_divergence_and_loss_are_sums_and_the_distance_is_the_largest():
    np.testing.assert_allclose(OBJECTIVE.divergence(OUTPUTS), sum(of_rows("divergence")), rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVE.loss(OUTPUTS), sum(of_rows("loss")), rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVE.distance(OUTPUTS), max(of_rows("distance")), rtol=1e-6)
    assert OBJECTIVE.num_rows == 6
    assert OBJECTIVE.num_coordinates == 2 * 3 + 3 + 3 * 2


def test_coordinates_hold_all_that_the_divergence_needs():
    @jax.jit
    def found(outputs):
        goals, r = OBJECTIVE.goals(outputs), OBJECTIVE.coordinates(outputs)
        at = OBJECTIVE.divergence_at(r, goals), OBJECTIVE.gradient_at(r, goals)
        return *at, OBJECTIVE.hessian_at(r, goals), OBJECTIVE.gradient(outputs)

    @jax.jit
    def expected(outputs):
        goals, r = OBJECTIVE.goals(outputs), OBJECTIVE.coordinates(outputs)
        gradient = jax.grad(OBJECTIVE.divergence_at)(r, goals)
        hessian = jax.jacobian(OBJECTIVE.gradient_at)(r, goals)
        through = jax.grad(lambda o: OBJECTIVE.divergence_at(OBJECTIVE.coordinates(o), goals))
        return OBJECTIVE.divergence(outputs), gradient, hessian, through(outputs)

    (divergence, gradient, hessian, through), wanted = found(OUTPUTS), expected(OUTPUTS)
    np.testing.assert_allclose(divergence, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted[1], atol=1e-6)
    np.testing.assert_allclose(hessian, wanted[2], atol=1e-6)
    for a, b in zip(through, wanted[3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_distance_is_in_what_is_compared():
    goals, r = OBJECTIVE.goals(OUTPUTS), OBJECTIVE.coordinates(OUTPUTS)
    compared, targets = OBJECTIVE.compared(r), OBJECTIVE.compared_targets(goals)
    assert compared.shape == targets.shape == (2 * 4 + 3 + 3 * 2,)
    assert np.isnan(targets).tolist() == [False] * 9 + [True] + [False] * 7
    np.testing.assert_allclose(compared[:8].reshape(2, 4).sum(1), 1, rtol=1e-6)
    assert (
        OBJECTIVE.errors(r, goals, 1e-6).shape == OBJECTIVE.one_sided(goals, 1e-6).shape == r.shape
    )
    # Only the label that is wanted with 1 may lie anywhere beyond.
    assert OBJECTIVE.one_sided(goals, 1e-6).sum() == 1


def test_curvature_products_are_those_of_the_rows():
    ones = jax.tree.map(jnp.ones_like, OUTPUTS)
    found = OBJECTIVE.curvature_product(OUTPUTS)(ones)
    for kind, outputs, targets, product in zip(
        KINDS, OUTPUTS, OBJECTIVE.targets, found, strict=True
    ):
        for o, t, row in zip(outputs, targets, product, strict=True):
            expected = kind.curvature_product(o, t)(jnp.ones(len(o)))
            np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "value"), [(0, jnp.nan), (0, jnp.inf), (1, jnp.nan), (2, jnp.inf)]
)
def test_one_row_that_is_not_finite_is_seen(part, value):
    assert OBJECTIVE.is_finite(OUTPUTS)
    broken = list(OUTPUTS)
    broken[part] = broken[part].at[0, 0].set(value)
    assert not OBJECTIVE.is_finite(tuple(broken))


def test_it_is_a_pytree_whose_kinds_choose_the_program():
    leaves, structure = jax.tree.flatten(OBJECTIVE)
    assert len(leaves) == 3
    other = Objective(OBJECTIVE.targets, (KINDS[0],) * 3, (None,) * 3)
    assert structure != jax.tree.structure(other)
