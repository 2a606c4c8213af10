"""The Jacobian of an image's coordinates and what is learnt about it, against numpy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outgen_jax as og
from outgen_jax.solvers import jacobian
from outgen_jax.solvers.objective import Objective

TARGET = np.array([0.1, 0.2, 0.6, 0.1], np.float32)


def objective_of(targets, kinds, counts):
    return Objective(tuple(jnp.asarray(t, jnp.float32)[None] for t in targets), kinds, counts)


def jacobian_of(network, objective, image):
    """As one program: eagerly, every operation would be one."""
    return jax.jit(lambda x: jacobian.jacobian(network, objective, x))(image)


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_log_ratios_and_their_jacobian(count):
    """With every class by itself, and with the rest as one; against central differences in float64."""
    rng = np.random.default_rng(0)
    matrix, image = rng.normal(size=(6, 4)), rng.normal(size=6)
    order = [2, 1, 0, 3][:count]

    def ratios_of(x):
        probs = np.exp(np.sin(x) @ matrix)
        probs = np.append(probs[order], np.delete(probs, order).sum())
        return np.log(probs[1:4] / probs[0])

    objective = objective_of([TARGET], (og.outputs.softmax(),), (count,))
    (logits,), ratios, rows = jacobian_of(
        lambda x: ((jnp.sin(x) @ jnp.asarray(matrix, jnp.float32))[None],),
        objective,
        jnp.float32(image),
    )
    assert (
        len(ratios) == objective.num_coordinates == len(ratios_of(image)[: 4 if count < 4 else 3])
    )
    np.testing.assert_allclose(logits[0], np.sin(image) @ matrix, rtol=1e-5)
    np.testing.assert_allclose(ratios, ratios_of(image)[: len(ratios)], rtol=1e-5)
    for i, pixel in enumerate(1e-5 * np.eye(6)):
        gradient = (ratios_of(image + pixel) - ratios_of(image - pixel)) / 2e-5
        np.testing.assert_allclose(rows[:, i], gradient[: len(ratios)], rtol=1e-3, atol=1e-5)


def test_parts_of_all_kinds_have_their_rows_one_after_another():
    """More rows than go through at once; of values in units of their scale."""
    rng = np.random.default_rng(1)
    sizes = (3, jacobian.BLOCK, 5)
    matrices = [rng.normal(size=(6, k)).astype(np.float32) for k in sizes]
    kinds = (og.outputs.softmax(), og.outputs.sigmoid(), og.outputs.values(scale=0.5))
    targets = [np.full(3, 1 / 3), np.full(sizes[1], 0.5), np.zeros(5)]
    objective = objective_of(targets, kinds, (None,) * 3)
    _, r, rows = jacobian_of(
        lambda x: tuple((x @ m)[None] for m in matrices), objective, jnp.ones(6)
    )
    softmax = matrices[0][:, 1:] - matrices[0][:, :1]
    expected = np.concatenate([softmax, matrices[1], matrices[2] / 0.5], 1).T
    assert len(expected) == objective.num_coordinates > jacobian.BLOCK
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(r, expected.sum(1), rtol=1e-4, atol=1e-5)


def _squared(image):
    return image**2


def _reversed(image):
    return 2 * image[::-1]


def _in_a_scan(shown, matrix):
    return jax.lax.scan(lambda x, row: (x + jnp.sin(x @ row), None), shown, matrix)[0]


@jax.custom_vjp
def _cubed(x):
    return x**3


_cubed.defvjp(lambda x: (x**3, x), lambda x, cotangent: (3 * x**2 * cotangent,))


@pytest.mark.parametrize("views", [(_squared,), (_squared, _reversed, jnp.sin)])
@pytest.mark.parametrize("size", [3, jacobian.BLOCK + 5])
def test_views_have_the_rows_that_differentiating_every_output_gives(views, size):
    """Two parts, of one row a view and of two; few rows and more than run at once."""
    rng = np.random.default_rng(2)
    first = rng.normal(size=(6, size)).astype(np.float32)
    second = rng.normal(size=(6, 2, 4)).astype(np.float32)

    def outputs(shown):
        return jnp.tanh(shown @ first), jnp.einsum("vd,drk->vrk", jnp.cos(shown), second).reshape(
            -1, 4
        )

    network = jacobian.ViewedNetwork(views, outputs)
    count = len(views)
    targets = (jnp.zeros((count, size)), jnp.full((2 * count, 4), 0.25))
    objective = Objective(targets, (og.outputs.values(), og.outputs.softmax()), (None, None))
    image = jnp.asarray(rng.random(6), jnp.float32)

    @jax.jit
    def by_jax(image):
        def coordinates(x):
            return objective.coordinates(network(x))

        return network(image), coordinates(image), jax.jacfwd(coordinates)(image)

    found, r, rows = jacobian_of(network, objective, image)
    outputs_of_image, coordinates, expected = by_jax(image)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, outputs_of_image))
    np.testing.assert_allclose(r, coordinates, rtol=1e-5, atol=1e-6)
    assert rows.shape == (objective.num_coordinates, 6)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [jax.checkpoint(jnp.tanh), _cubed, lambda x: _in_a_scan(x, np.eye(6, dtype=np.float32))],
)
def test_networks_with_rules_of_their_own_have_a_jacobian(layer):
    matrix = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    objective = objective_of([TARGET], (og.outputs.softmax(),), (None,))
    image = jnp.linspace(0.1, 0.9, 6)

    def network(x):
        return ((layer(x) @ matrix)[None],)

    _, _, rows = jacobian_of(network, objective, image)
    expected = jax.jit(jax.jacrev(lambda x: objective.coordinates(network(x))))(image)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)


def _flops(network, objective):
    program = jax.jit(lambda x: jacobian.jacobian(network, objective, x)[2])
    return program.lower(jnp.ones(400)).compile().cost_analysis()["flops"]


def test_a_view_or_a_network_costs_its_own_backward_passes_only():
    """Counted by XLA: not those of all rows through all views, or through all networks."""
    large, small = (np.ones((400, n), np.float32) / 400 for n in (400, 4))

    def deep(shown):
        return jnp.tanh(shown @ large) @ small

    kind = og.outputs.softmax()
    one = _flops(lambda x: (deep(x)[None],), objective_of([TARGET], (kind,), (None,)))
    views = jacobian.ViewedNetwork((_squared,) * 8, lambda shown: (deep(shown),))
    targets = jnp.tile(jnp.asarray(TARGET), (8, 1))
    of_views = _flops(views, Objective((targets,), (kind,), (None,)))
    assert 6 * one < of_views < 12 * one
    several = objective_of([TARGET] * 4, (kind,) * 4, (None,) * 4)
    of_networks = _flops(lambda x: tuple(deep((n + 1) * x)[None] for n in range(4)), several)
    assert 3 * one < of_networks < 6 * one


def test_a_gradient_that_is_not_finite_is_0():
    objective = objective_of([[0.5, 0.5]], (og.outputs.softmax(),), (None,))
    _, _, rows = jacobian_of(
        lambda x: (jnp.stack([jnp.sqrt(x[0]), x[1]])[None],), objective, jnp.zeros(2)
    )
    np.testing.assert_array_equal(rows, [[0, 1]])


def test_broyden_predicts_what_it_was_taught_and_keeps_the_rest():
    rng = np.random.default_rng(3)
    rows, step = rng.normal(size=(3, 6)), rng.normal(size=6)
    true_change = rng.normal(size=3)
    updated = np.asarray(jacobian.broyden(rows, step, true_change - rows @ step))
    np.testing.assert_allclose(updated @ step, true_change, rtol=1e-5)
    across = np.linalg.qr(np.stack([step, rng.normal(size=6)], 1))[0][:, 1]
    np.testing.assert_allclose(updated @ across, rows @ across, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        jacobian.broyden(jnp.asarray(rows), jnp.zeros(6), jnp.ones(3)), jnp.asarray(rows)
    )


def test_null_space_part_is_what_a_linear_map_does_not_feel():
    rng = np.random.default_rng(4)
    rows, change = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 20), 20))
    unfelt = jacobian.null_space_part(rows, rows, change)
    np.testing.assert_allclose(rows @ unfelt, np.zeros(3), atol=1e-4)
    felt = np.linalg.pinv(rows) @ (rows @ change)
    np.testing.assert_allclose(unfelt, change - felt, atol=1e-5)
    twice = jnp.concatenate([rows, rows])
    doubled = jacobian.null_space_part(twice, twice, change)
    np.testing.assert_allclose(doubled, unfelt, atol=1e-4)
    nothing = jnp.zeros((3, 20))
    np.testing.assert_array_equal(jacobian.null_space_part(nothing, nothing, change), change)
    # In another norm it is the ways that are taken out.
    ways = rows * jnp.linspace(0.1, 1, 20)
    unfelt = jacobian.null_space_part(rows, ways, ways[0] + ways[2])
    np.testing.assert_allclose(unfelt, np.zeros(20), atol=1e-4)


def test_the_jacobian_is_the_same_under_jit_and_vmap():
    matrix = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)
    objective = objective_of([TARGET], (og.outputs.softmax(),), (None,))

    def rows(image):
        return jacobian.jacobian(lambda x: (jnp.sin(x @ matrix)[None],), objective, image)[2]

    images = np.random.default_rng(6).normal(size=(3, 6)).astype(np.float32)
    loop = [rows(image) for image in images]
    np.testing.assert_allclose(jax.jit(jax.vmap(rows))(images), loop, atol=1e-6)
