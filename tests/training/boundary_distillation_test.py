"""Images near the teacher's boundaries, and the loss of distillation on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax import losses
from outgen_jax.training import boundary_distillation, objectives

LABELS = jnp.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (6, 4, 4, 3)), jnp.float32)


@pytest.fixture
def teacher(images):
    """A linear network that gives every image its label, by one logit."""
    weights = np.linalg.pinv(np.asarray(images).reshape(6, -1)) @ np.eye(3)[LABELS]
    return jnp.asarray(weights, jnp.float32)


def apply(weights, images):
    return images.reshape(len(images), -1) @ weights


def test_a_linear_network_is_crossed_in_one_full_step(images, teacher):
    generate = boundary_distillation.nearby_images(apply, steps=5, rate=1.0)
    moved, logits = generate(jax.random.key(0), None, teacher, images, LABELS)
    np.testing.assert_allclose(logits, apply(teacher, moved), rtol=1e-5)
    top = np.sort(logits, 1)
    assert (np.asarray(logits).argmax(1) != LABELS).all()
    own = np.asarray(logits)[np.arange(6), LABELS]
    np.testing.assert_allclose(
        top[:, 2] - own, 1e-4, rtol=0.3
    )  # the margin; further steps do nothing
    change = np.asarray(moved - images).reshape(6, -1)
    other = np.asarray(logits).argmax(1)
    normal = np.asarray(teacher).T[LABELS] - np.asarray(teacher).T[other]
    cosine = (change * normal).sum(1) / np.linalg.norm(change, axis=1)
    np.testing.assert_allclose(cosine / np.linalg.norm(normal, axis=1), -1, rtol=1e-4)


def test_the_rate_is_a_share_of_the_way(images, teacher):
    generate = boundary_distillation.nearby_images(apply, steps=1, rate=0.3, margin=0.0)
    _, logits = generate(jax.random.key(0), None, teacher, images, LABELS)
    own = np.asarray(logits)[np.arange(6), LABELS]
    gaps = (own[:, None] - np.asarray(logits)).round(4)
    assert ((gaps == 0.7).sum(1) >= 1).all()  # to the class that was drawn; the gap was 1


def test_what_the_teacher_gets_wrong_stays(images, teacher):
    generate = boundary_distillation.nearby_images(apply)
    moved, _ = generate(jax.random.key(0), None, teacher, images, (LABELS + 1) % 3)
    np.testing.assert_array_equal(moved, images)


def test_moved_images_have_no_label(images, teacher):
    given = objectives.Supervision(LABELS, frozen=teacher)
    generate = boundary_distillation.nearby_images(apply)
    objective = boundary_distillation.objective(apply, generate, 0.5)
    shown, wanted = objective.prepare(jax.random.key(0), None, images, given)
    changes = np.abs(np.asarray(shown - images)).max((1, 2, 3))
    assert changes[:3].min() > 0
    assert changes[3:].max() == 0
    logits = jax.random.normal(jax.random.key(1), (6, 3))
    expected = []
    for row in range(6):
        q = jax.nn.softmax(apply(teacher, shown)[row])
        divergence = losses.kl_divergence(logits[row], q)
        labelled = losses.cross_entropy(logits[row], jnp.eye(3)[LABELS[row]])
        expected.append(divergence if row < 3 else (divergence + labelled) / 2)
    np.testing.assert_allclose(objective.loss(logits, wanted), np.mean(expected), rtol=1e-5)


def test_impossible_options(images, teacher):
    with pytest.raises(ValueError, match=r"must be positive, got 0 and 0\.3"):
        boundary_distillation.nearby_images(apply, steps=0)
    generate = boundary_distillation.nearby_images(apply)
    nothing = boundary_distillation.objective(apply, generate, 0.01)
    given = objectives.Supervision(LABELS, frozen=teacher)
    with pytest.raises(ValueError, match="leaves nothing to generate in a batch of 6"):
        nothing.prepare(jax.random.key(0), None, images, given)
