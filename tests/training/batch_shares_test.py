"""A share of the batch is changed, the rest is not, and all of it keeps its labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.training import adversarial_examples, batch_shares, objectives

LABELS = jnp.array([3, 1, 2, 0, 3, 1, 2, 0])
GIVEN = objectives.Supervision(LABELS)


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (8, 4, 4, 3)), jnp.float32)


def lengths(changes):
    return np.linalg.norm(np.asarray(changes).reshape(len(changes), -1), axis=1)


def test_noise_has_its_length_and_another_direction_for_each_image(images):
    moved, labels = batch_shares.noise(0.1).prepare(jax.random.key(0), None, images, GIVEN)
    changes = np.asarray(moved - images)
    np.testing.assert_allclose(lengths(changes), 0.1, rtol=1e-4)
    cosines = np.corrcoef(changes.reshape(8, -1)) - np.eye(8)
    assert np.abs(cosines).max() < 0.6
    np.testing.assert_array_equal(labels, LABELS)
    clipped, _ = batch_shares.noise(9.0).prepare(jax.random.key(0), None, images, GIVEN)
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_only_the_share_is_changed(images):
    half = batch_shares.on_share(batch_shares.noise(0.1), 0.5, apart=True)
    moved, labels = half.prepare(jax.random.key(0), None, images, GIVEN)
    np.testing.assert_allclose(lengths(moved - images), [0.1] * 4 + [0.0] * 4, rtol=1e-4)
    np.testing.assert_array_equal(labels, LABELS)
    assert half.apart == 0.5
    assert batch_shares.on_share(batch_shares.noise(0.1), 0.5).apart == 0
    logits = jax.random.normal(jax.random.key(1), (8, 4))
    assert half.loss(logits, labels) == objectives.plain().loss(logits, LABELS)


def test_adversarial_training_of_a_share_attacks_that_share(images):
    weights = jax.random.normal(jax.random.key(1), (48, 4))

    def apply(state, images):
        return images.reshape(len(images), -1) @ state

    robust = adversarial_examples.robust(apply, radius=0.1, steps=3)
    share = batch_shares.on_share(robust, 0.25)
    moved, labels = share.prepare(jax.random.key(0), weights, images, GIVEN)
    np.testing.assert_allclose(lengths(moved - images), [0.1] * 2 + [0.0] * 6, rtol=1e-3)
    losses = [objectives.plain().loss(apply(weights, x)[:2], labels[:2]) for x in (images, moved)]
    assert losses[1] > losses[0]


def test_impossible_shares(images):
    with pytest.raises(ValueError, match=r"on_share: fraction must lie in \[0, 1\], got 1.5"):
        batch_shares.on_share(batch_shares.noise(0.1), 1.5)
    nothing = batch_shares.on_share(batch_shares.noise(0.1), 0.01)
    with pytest.raises(ValueError, match="leaves no image of a batch of 8"):
        nothing.prepare(jax.random.key(0), None, images, GIVEN)
    with pytest.raises(ValueError, match="radius must be positive, got 0"):
        batch_shares.noise(0)
