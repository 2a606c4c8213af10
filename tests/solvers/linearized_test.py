"""What a network near an image is reduced to: against plain numpy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.solvers import linearized


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_log_ratios_and_their_jacobian(count):
    """With every class by itself, and with the rest as one; against central differences in float64."""
    rng = np.random.default_rng(0)
    matrix, image = rng.normal(size=(6, 4)), rng.normal(size=6)
    target = np.array([0.1, 0.2, 0.6, 0.1], np.float32)
    order = [2, 1, 0, 3][:count]

    def ratios_of(x):
        probs = np.exp(np.sin(x) @ matrix)
        probs = np.append(probs[order], np.delete(probs, order).sum())
        return np.log(probs[1:4] / probs[0])

    classes = linearized.leading_classes(target, count)
    assert classes.tolist() == order
    wanted = linearized.group(jnp.asarray(target), classes)
    np.testing.assert_allclose(wanted[:count], target[order])
    np.testing.assert_allclose(wanted.sum(), 1, rtol=1e-6)
    logits, ratios, rows = linearized.jacobian(
        lambda x: jnp.sin(x) @ jnp.asarray(matrix, jnp.float32), jnp.float32(image), classes
    )
    np.testing.assert_allclose(logits, np.sin(image) @ matrix, rtol=1e-5)
    np.testing.assert_allclose(ratios, ratios_of(image), rtol=1e-5)
    for i, pixel in enumerate(1e-5 * np.eye(6)):
        slope = (ratios_of(image + pixel) - ratios_of(image - pixel)) / 2e-5
        np.testing.assert_allclose(rows[:, i], slope, rtol=1e-3, atol=1e-5)


def test_broyden_predicts_what_it_was_taught_and_keeps_the_rest():
    rng = np.random.default_rng(3)
    rows, step = rng.normal(size=(3, 6)), rng.normal(size=6)
    true_change = rng.normal(size=3)
    updated = np.asarray(linearized.broyden(rows, step, true_change - rows @ step))
    np.testing.assert_allclose(updated @ step, true_change, rtol=1e-5)
    across = np.linalg.qr(np.stack([step, rng.normal(size=6)], 1))[0][:, 1]
    np.testing.assert_allclose(updated @ across, rows @ across, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        linearized.broyden(jnp.asarray(rows), jnp.zeros(6), jnp.ones(3)), jnp.asarray(rows)
    )


def test_probabilities_and_their_jacobian():
    rng = np.random.default_rng(7)
    rows, ratios = rng.normal(size=(3, 5)), rng.normal(size=3)

    def probs_of(x):
        return linearized.probabilities(jnp.asarray(ratios + rows @ x, jnp.float32))

    probs = probs_of(np.zeros(5))
    np.testing.assert_allclose(probs[1:] / probs[0], np.exp(ratios), rtol=1e-5)
    exact = jax.jacobian(
        lambda x: linearized.probabilities(jnp.float32(ratios) + jnp.float32(rows) @ x)
    )
    np.testing.assert_allclose(
        linearized.probability_rows(probs, jnp.float32(rows)),
        exact(jnp.zeros(5)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_null_part_is_what_a_linear_map_does_not_feel():
    rng = np.random.default_rng(4)
    rows, change = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 20), 20))
    unfelt = linearized.null_part(rows, rows, change)
    np.testing.assert_allclose(rows @ unfelt, np.zeros(3), atol=1e-4)
    felt = np.linalg.pinv(rows) @ (rows @ change)
    np.testing.assert_allclose(unfelt, change - felt, atol=1e-5)
    twice = jnp.concatenate([rows, rows])
    doubled = linearized.null_part(twice, twice, change)
    np.testing.assert_allclose(doubled, unfelt, atol=1e-4)
    nothing = jnp.zeros((3, 20))
    np.testing.assert_array_equal(linearized.null_part(nothing, nothing, change), change)
    # In another norm it is the ways that are taken out.
    ways = rows * jnp.linspace(0.1, 1, 20)
    unfelt = linearized.null_part(rows, ways, ways[0] + ways[2])
    np.testing.assert_allclose(unfelt, np.zeros(20), atol=1e-4)
