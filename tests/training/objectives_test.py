"""What a classifier learns from a batch: every arm's images and loss against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.training import (
    adversarial_examples,
    batch_shares,
    boundary_distillation,
    objectives,
)
from outgen_jax.training.objectives import Supervision

BATCH, SIZE, CLASSES = 7, 6, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, BATCH)
LOGITS = RNG.normal(0, 2, (BATCH, CLASSES)).astype(np.float32)
TEACHER = RNG.normal(0, 2, (BATCH, CLASSES)).astype(np.float32)
ONE_HOT = np.eye(CLASSES)[LABELS]
KEY = jax.random.key(0)


def log_softmax(logits):
    x = np.float64(logits)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropy(targets):
    """Of `LOGITS`, one per image."""
    return -(targets * log_softmax(LOGITS)).sum(-1)


def divergence(targets_log):
    """KL(target ‖ p) of `LOGITS`, one per image."""
    return (np.exp(targets_log) * (targets_log - log_softmax(LOGITS))).sum(-1)


def prepared(objective, key=KEY, images=IMAGES, **given):
    supervision = Supervision(jnp.asarray(LABELS), **given)
    return objective.prepare(key, "state", jnp.asarray(images), supervision)


def apply(variables, images):
    """A frozen network of two means."""
    return jnp.tanh(images.mean((1, 2)) @ variables)


FROZEN = jnp.asarray(RNG.normal(size=(3, CLASSES)), jnp.float32)


# --- rows ---


def test_take_gathers_rows_and_keeps_what_belongs_to_none():
    whole = Supervision(jnp.arange(5), None, jnp.arange(5) > 2, {"kernel": jnp.ones(3)}, KEY)
    taken = whole.take(jnp.array([4, 0]))
    np.testing.assert_array_equal(taken.labels, [4, 0])
    np.testing.assert_array_equal(taken.generated, [True, False])
    assert taken.teacher_logits is None
    assert taken.frozen is whole.frozen
    assert taken.key is KEY


# --- losses by hand ---


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_plain_is_the_cross_entropy_of_smoothed_labels(smoothing):
    objective = objectives.plain(smoothing)
    images, wanted = prepared(objective)
    np.testing.assert_array_equal(images, IMAGES)
    expected = cross_entropy((1 - smoothing) * ONE_HOT + smoothing / CLASSES).mean()
    np.testing.assert_allclose(objective.loss(LOGITS, wanted), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan")])
def test_a_share_of_the_label_outside_0_to_1_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"plain: label_smoothing must lie in \[0, 1\], got"):
        objectives.plain(smoothing)


def test_replaced_takes_the_teacher_where_it_is_marked():
    objective = objectives.replaced()
    marks = np.arange(BATCH) % 3 == 0
    given = {"teacher_logits": jnp.asarray(TEACHER), "generated": jnp.asarray(marks)}
    images, wanted = prepared(objective, **given)
    np.testing.assert_array_equal(images, IMAGES)
    plain = cross_entropy(ONE_HOT)
    expected = np.where(marks, 0.5 * divergence(log_softmax(TEACHER)) + 0.5 * plain, plain).mean()
    np.testing.assert_allclose(objective.loss(LOGITS, wanted), expected, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"teacher_logits and generated; training.replaced.replace"
    ):
        prepared(objective)


def test_distillation_is_that_loss_with_clean_images_throughout():
    objective = objectives.distillation(apply)
    images, wanted = prepared(objective, frozen=FROZEN)
    np.testing.assert_array_equal(images, IMAGES)
    teacher = np.tanh(np.float64(IMAGES).mean((1, 2)) @ np.float64(FROZEN))
    expected = 0.5 * divergence(log_softmax(teacher)) + 0.5 * cross_entropy(ONE_HOT)
    np.testing.assert_allclose(objective.loss(LOGITS, wanted), expected.mean(), rtol=1e-5)


def test_mixup_blends_images_and_labels_alike():
    objective = objectives.mixup()
    images, (labels, others, shares) = prepared(objective)
    np.testing.assert_array_equal(labels, LABELS)
    sums = IMAGES.sum((1, 2, 3))
    partners = [  # whose image explains the blend, by the share that it says
        np.argmin(np.abs(share * mine + (1 - share) * sums - np.asarray(image).sum()))
        for share, mine, image in zip(np.asarray(shares), sums, images, strict=True)
    ]
    assert sorted(partners) == list(range(BATCH))
    np.testing.assert_array_equal(others, LABELS[partners])
    s = np.float64(shares)[:, None, None, None]
    np.testing.assert_allclose(images, s * IMAGES + (1 - s) * IMAGES[partners], atol=1e-6)
    s = np.float64(shares)[:, None]
    expected = cross_entropy(s * ONE_HOT + (1 - s) * np.eye(CLASSES)[np.asarray(others)]).mean()
    loss = objective.loss(LOGITS, (labels, others, shares))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_cutmix_counts_labels_by_area():
    objective = objectives.cutmix()
    # Images of one colour each, so that every pixel tells whose it is.
    colours = np.arange(BATCH, dtype=np.float32) / BATCH
    flat = np.broadcast_to(colours[:, None, None, None], (BATCH, 16, 16, 3))
    images, (labels, others, shares) = prepared(objective, images=flat)
    found = np.asarray(images)
    mixed = 0
    for i in range(BATCH):
        new = found[i, :, :, 0] != colours[i]
        if not new.any():  # its own partner, or a box without a pixel
            assert others[i] == LABELS[i] or shares[i] == 1
            continue
        mixed += 1
        np.testing.assert_allclose(1 - new.mean(), shares[i], atol=1e-6)
        (colour,) = np.unique(found[i][new])
        assert others[i] == LABELS[np.argmin(np.abs(colours - colour))]
        rows, columns = np.flatnonzero(new.any(1)), np.flatnonzero(new.any(0))
        assert new.sum() == np.ptp([*rows, rows[-1] + 1]) * np.ptp([*columns, columns[-1] + 1])
    assert mixed > 2
    s = np.float64(shares)[:, None]
    expected = cross_entropy(s * ONE_HOT + (1 - s) * np.eye(CLASSES)[np.asarray(others)]).mean()
    np.testing.assert_allclose(
        objective.loss(LOGITS, (labels, others, shares)), expected, rtol=1e-5
    )


def test_boxes_lie_anywhere_and_cover_any_share():
    keys = jax.random.split(KEY, 4000)
    boxes = np.asarray(jax.jit(jax.vmap(lambda key: objectives.random_box(key, 12, 16)))(keys))
    covered = boxes.mean((1, 2))
    assert covered.min() < 0.02
    assert covered.max() > 0.9
    # Centred uniformly, a box of share u loses part of itself at the edges: E[u·(1 − √u/4)²].
    np.testing.assert_allclose(covered.mean(), 1 / 2 - 1 / 5 + 1 / 48, atol=0.015)
    edge = boxes.mean(0)
    np.testing.assert_allclose(edge, edge[::-1, ::-1], atol=0.06)  # no side is preferred


# --- generation in the step ---


def brighten(key, state, frozen, images, labels):
    """Adds what the key says to every image, and answers with the state, the frozen network and the labels."""
    assert state == "state"
    new = images + jax.random.uniform(key, images.shape)
    return new, apply(frozen, images) + labels[:, None]


def test_generation_changes_the_chosen_fraction_only_and_by_its_own_key():
    objective = objectives.during(brighten, 0.45)  # 3 of 7
    images, (labels, teacher, generated) = prepared(objective, frozen=FROZEN)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(generated, np.arange(BATCH) < 3)
    np.testing.assert_array_equal(images[3:], IMAGES[3:])
    expected = IMAGES[:3] + np.asarray(jax.random.uniform(KEY, (3, *IMAGES.shape[1:])))
    np.testing.assert_allclose(images[:3], expected, rtol=1e-6)
    said = np.asarray(apply(FROZEN, IMAGES[:3])) + LABELS[:3, None]
    np.testing.assert_allclose(teacher[:3], said, rtol=1e-5)
    np.testing.assert_array_equal(teacher[3:], 0)
    again, _ = prepared(objective, frozen=FROZEN)
    np.testing.assert_array_equal(again, images)
    other, _ = prepared(objective, jax.random.key(1), frozen=FROZEN)
    assert np.abs(other[:3] - images[:3]).max() > 0.1
    np.testing.assert_array_equal(other[3:], images[3:])

    loss = objective.loss(LOGITS, (labels, teacher, generated))
    targets = log_softmax(np.asarray(teacher))
    plain = cross_entropy(ONE_HOT)
    by_hand = np.where(generated, 0.5 * divergence(targets) + 0.5 * plain, plain).mean()
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)


def test_all_of_a_batch_may_be_generated():
    images, (_, _, generated) = prepared(objectives.during(brighten, 1), frozen=FROZEN)
    assert np.asarray(generated).all()
    assert (np.abs(images - IMAGES).max((1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize("apart", [False, True])
def test_generated_images_are_set_apart_where_asked(apart):
    assert objectives.during(brighten, 0.45, apart=apart).apart == (0.45 if apart else 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), 30])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match=r"during: fraction must lie in \[0, 1\], got"):
        objectives.during(brighten, fraction)


def test_a_fraction_that_leaves_no_image_is_refused():
    with pytest.raises(ValueError, match=r"0.05 leaves nothing to generate in a batch of 7"):
        prepared(objectives.during(brighten, 0.05), frozen=FROZEN)


# --- types ---


def nearby(key, state, frozen, images, labels):
    """Images as `objectives.during` generates them, without any change."""
    return images, apply(frozen, images)


OBJECTIVES = {
    "plain": objectives.plain(0.1),
    "during": objectives.during(nearby, 0.5),
    "distillation": objectives.distillation(apply),
    "mixup": objectives.mixup(),
    "cutmix": objectives.cutmix(),
    "robust": adversarial_examples.robust(lambda state, images: apply(FROZEN, images), radius=0.5),
    "noise": batch_shares.on_share(batch_shares.noise(0.5), 0.5),
    "boundary": boundary_distillation.objective(
        apply, boundary_distillation.nearby_images(apply, steps=1), 0.5
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_64_bit_types_on_images_and_losses_stay_float32(name):
    objective, key = OBJECTIVES[name], jax.random.key(3)
    prepare = jax.jit(lambda key: prepared(objective, key, frozen=FROZEN))
    value_and_slope = jax.jit(jax.value_and_grad(objective.loss))
    expected = prepare(key)
    with jax.enable_x64(True):
        images, wanted = prepare(key)
        loss, gradient = value_and_slope(jnp.asarray(LOGITS), wanted)
    assert (images.dtype, loss.dtype, gradient.dtype) == (jnp.float32,) * 3
    np.testing.assert_allclose(images, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, value_and_slope(LOGITS, expected[1])[0], rtol=1e-5)


def test_losses_of_16_bit_logits_are_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    _, wanted = prepared(objectives.plain())
    loss = objectives.plain().loss(logits, wanted)
    assert loss.dtype == jnp.float32
    exact = objectives.plain().loss(logits.astype(jnp.float32), wanted)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
