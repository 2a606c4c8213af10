"""The attacks that the study compares with, on linear networks with known answers."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from steady_clock import steady_clock
from toy_synthesis import linear, linear_weights, sources

import outgen_jax as og
from experiments.any_output import peers

LABELS = 4
WEIGHTS = linear_weights(LABELS)
IMAGES = (0.4 + 0.2 * (sources(3) / np.float32(255))).astype(np.float32)  # far from 0 and 1
SIGNS = np.array([[1, 1, -1, -1], [-1, 1, -1, 1], [1, -1, -1, 1]], np.float32)


@pytest.fixture(autouse=True)
def time_that_attacks_have(monkeypatch):
    monkeypatch.setattr(peers, "time", steady_clock(looks_a_second=100))


def smallest_change(image: np.ndarray, signs: np.ndarray) -> float:
    """L2 of the smallest change that gives all labels their signs and the margin, pixels without limits."""
    rows = signs[:, None] * np.float64(WEIGHTS).T
    needed = peers.MARGIN - signs * ((np.float64(image).ravel() - 0.5) @ np.float64(WEIGHTS))
    multipliers, _ = scipy.optimize.nnls(
        np.linalg.cholesky(rows @ rows.T).T,
        np.linalg.solve(np.linalg.cholesky(rows @ rows.T), needed),
    )
    return float(np.linalg.norm(multipliers @ rows))


def test_non_negative_least_squares_equals_scipys():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.normal(size=(9, 6)), rng.normal(size=9)
        found = peers.nonnegative_least_squares(jnp.float32(a), jnp.float32(b))
        np.testing.assert_allclose(found, scipy.optimize.nnls(a, b)[0], atol=1e-4)


def test_the_step_of_jma_is_the_smallest_that_gives_all_labels_their_signs():
    for image, signs in zip(IMAGES, SIGNS, strict=True):
        logits = (image.ravel() - 0.5) @ WEIGHTS
        change = peers.jma_step(WEIGHTS.T, logits, jnp.asarray(signs))
        margins = signs * (logits + change @ WEIGHTS)
        assert margins.min() > 0
        assert np.linalg.norm(change) == pytest.approx(smallest_change(image, signs), rel=0.01)


@pytest.mark.parametrize("attack", [peers.jma, peers.carlini_wagner])
def test_attacks_on_labels_find_small_changes(attack):
    ended = attack(linear, WEIGHTS, IMAGES, SIGNS, seconds=12.0)
    assert ended.found.all()
    assert (SIGNS * linear(WEIGHTS, ended.images) > 0).all()
    assert ended.images.min() >= 0
    assert ended.images.max() <= 1
    changes = np.asarray(og.metrics.l2_change(ended.images, IMAGES))
    best = [smallest_change(image, signs) for image, signs in zip(IMAGES, SIGNS, strict=True)]
    assert (changes >= 0.5 * np.array(best)).all()
    np.testing.assert_allclose(changes, best, rtol=0.2)


@pytest.mark.parametrize("name", peers.DESCENTS)
def test_descents_approach_their_targets(name):
    targets = np.random.default_rng(2).uniform(-1, 1, (3, LABELS)).astype(np.float32)
    loss = og.outputs.values().divergence
    options = {"loss": loss, "descent": peers.DESCENTS[name], "seconds": 4.0}
    ended = peers.descend(linear, WEIGHTS, IMAGES, targets, **options)
    np.testing.assert_allclose(linear(WEIGHTS, ended.images), targets, atol=2e-3)
    assert ended.steps > 1


def test_a_sign_that_no_image_has_is_not_found():
    weights = jnp.zeros_like(WEIGHTS)
    for attack in (peers.jma, peers.carlini_wagner):
        ended = attack(linear, weights, IMAGES, SIGNS, seconds=0.3)
        assert not ended.found.any()
        np.testing.assert_allclose(ended.images, IMAGES, atol=0.01)
