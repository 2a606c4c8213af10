"""The form of Muon whose kernels keep their norm, against its parts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from outgen_jax.training import classifier_recipe, optimizers

RATE, BATCH = 0.24, 10


def parameters() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"blocks": (3, 3, 4, 6), "bias": (5,), "head": (6, 3)}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


@pytest.fixture(scope="module")
def moved() -> tuple[dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
    """Parameters, gradients, and the parameters after one update."""
    params = parameters()
    rng = np.random.default_rng(1)
    gradients = {n: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for n, p in params.items()}
    muon = optimizers.normalized_muon(
        optax.constant_schedule(RATE), momentum=0.6, peak=RATE, batch_size=BATCH
    )
    updates, _ = muon.update(gradients, muon.init(params), params)
    return params, gradients, optax.apply_updates(params, updates)


def test_a_kernel_is_scaled_and_moved_by_an_orthogonal_matrix(moved):
    params, gradients, after = moved
    kernel = np.asarray(params["blocks"], np.float64).reshape(-1, 6)
    scaled = kernel * np.sqrt(6) / np.linalg.norm(kernel)
    assert np.isclose(np.mean(np.linalg.norm(scaled, axis=0) ** 2), 1)
    step = (scaled - np.asarray(after["blocks"], np.float64).reshape(-1, 6)) / RATE
    # Newton-Schulz steps bring the singular values near 1, in the gradient's own directions.
    assert np.all(np.abs(np.linalg.svd(step, compute_uv=False) - 1) < 0.5)
    u, _, v = np.linalg.svd(np.asarray(gradients["blocks"]).reshape(-1, 6), full_matrices=False)
    assert np.sum(step * (u @ v)) / np.linalg.norm(step) / np.sqrt(6) > 0.97


@pytest.mark.parametrize(("name", "rate"), [("bias", 0.053), ("head", 0.67)])
def test_the_rest_is_trained_by_sgd_on_the_sum_with_decay(moved, name, rate):
    params, gradients, after = moved
    direction = BATCH * rate * gradients[name] + BATCH * 2e-6 * params[name]
    # The first step of Nesterov's momentum 0.85.
    expected = params[name] - 1.85 * direction
    np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


def test_the_recipe_makes_it_and_its_rate_falls_to_zero():
    recipe = classifier_recipe.ClassifierRecipe(
        epochs=2,
        batch_size=BATCH,
        optimizer="normalized_muon",
        learning_rate=RATE,
        momentum=0.6,
        schedule="linear",
    )
    rate = classifier_recipe.learning_rate_schedule(recipe, 4)
    np.testing.assert_allclose([rate(u) for u in (0, 4, 8)], [RATE, RATE / 2, 0], atol=1e-7)
    muon = classifier_recipe.make_optimizer(recipe, 4)
    params = parameters()
    updates, _ = muon.update(params, muon.init(params), params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
