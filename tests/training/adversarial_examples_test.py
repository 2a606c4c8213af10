"""Adversarial examples: closed forms of linear classifiers, the limits of ball and range, and training on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.training import adversarial_examples, classifier, objectives
from outgen_jax.training.objectives import Supervision

RNG = np.random.default_rng(0)
SHAPE, CLASSES, RADIUS = (4, 5, 3), 2, 0.3
GREY = RNG.uniform(0.45, 0.55, (6, *SHAPE)).astype(np.float32)  # the ball does not touch the range
COLOURFUL = RNG.uniform(0, 1, (6, *SHAPE)).astype(np.float32)
WEIGHTS = RNG.normal(size=(60, CLASSES)).astype(np.float32)
LABELS = np.arange(6) % CLASSES
KEY = jax.random.key(0)


def apply(weights, images):
    return images.reshape(len(images), -1) @ weights


def loss(images):
    logits = apply(WEIGHTS, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS))


def lengths(changes):
    return np.linalg.norm(np.asarray(changes).reshape(len(changes), -1), axis=1)


def attack(images=GREY, key=KEY, **options):
    images = jnp.asarray(images)
    options = {"radius": RADIUS, "steps": 5} | options
    return adversarial_examples.projected_gradient(loss, images, key, **options)


# --- the attack ---


def worst_of_two_classes(radius):
    """The worst images for the linear classifier of two classes: straight against the label's weights."""
    difference = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    ways = np.where(LABELS, -1, 1)[:, None] * difference / np.linalg.norm(difference)
    return GREY + radius * ways.reshape(-1, *SHAPE)


def test_from_the_images_one_step_finds_the_worst_of_a_linear_classifier():
    found = attack(key=None, steps=1, step_size=RADIUS)
    np.testing.assert_allclose(found, worst_of_two_classes(RADIUS), atol=1e-6)


def test_from_a_random_start_the_attack_converges_to_the_worst():
    found = attack(steps=12, step_size=RADIUS)
    np.testing.assert_allclose(found, worst_of_two_classes(RADIUS), atol=1e-3)


def test_a_short_step_is_as_long_as_asked():
    found = attack(key=None, steps=1, step_size=0.01)
    np.testing.assert_allclose(found, worst_of_two_classes(0.01), atol=1e-6)


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (2, 1), (5, 0.5)])
def test_default_steps_are_of_madrys_length_and_at_most_the_radius(steps, expected):
    explicit = attack(steps=steps, step_size=expected * RADIUS)
    np.testing.assert_allclose(attack(steps=steps), explicit, atol=1e-6)


@pytest.mark.parametrize("radius", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("key", [None, KEY], ids=["from the image", "random start"])
def test_ball_and_range_are_respected(radius, key):
    found = np.asarray(attack(COLOURFUL, key, radius=radius))
    assert found.min() >= 0
    assert found.max() <= 1
    assert lengths(found - COLOURFUL).max() <= radius * (1 + 1e-5)
    assert (loss(found) > loss(COLOURFUL)).all()


def test_an_image_does_not_depend_on_its_neighbours():
    def first(count):
        labels = jnp.asarray(LABELS[:count])
        return adversarial_examples.projected_gradient(
            lambda images: optax.softmax_cross_entropy_with_integer_labels(
                apply(WEIGHTS, images), labels
            ),
            jnp.asarray(COLOURFUL[:count]),
            KEY,
            radius=RADIUS,
            steps=2,
        )[:2]

    np.testing.assert_allclose(first(2), first(6), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e-20, 1e-26])
def test_a_step_has_its_length_also_where_the_gradient_is_tiny(scale):
    image = jnp.full((1, 2, 2, 1), 0.5)
    found = adversarial_examples.projected_gradient(
        lambda x: scale * x.sum((1, 2, 3)), image, None, radius=0.4, steps=1, step_size=0.01
    )
    np.testing.assert_allclose(jnp.linalg.norm(found - image), 0.01, rtol=1e-3)


def test_a_loss_without_gradient_leaves_the_images():
    def flat(images):
        return jnp.zeros(len(images))

    found = adversarial_examples.projected_gradient(
        flat, jnp.asarray(GREY), None, radius=RADIUS, steps=2
    )
    np.testing.assert_array_equal(found, GREY)


def test_random_starts_are_uniform_in_length_and_differ():
    images = jnp.full((2000, *SHAPE), 0.5)
    start = adversarial_examples.random_start(KEY, images, RADIUS)
    found = lengths(start - images) / RADIUS
    assert found.max() <= 1 + 1e-5
    # The mean and deviation of a uniform number, within four standard errors.
    assert abs(found.mean() - 0.5) < 4 * 0.289 / np.sqrt(2000)
    assert abs(found.std() - 0.289) < 0.02
    assert np.abs(np.asarray(start - images).mean(0)).max() < 0.01
    other = adversarial_examples.random_start(jax.random.key(1), images, RADIUS)
    assert lengths(start - other).min() > 0


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"radius": 0}, "got 0, 5"),
        ({"radius": -0.5}, "got -0.5"),
        ({"radius": float("nan")}, "got nan"),
        ({"radius": float("inf")}, "got inf"),
        ({"steps": 0}, "got 0.3, 0"),
        ({"step_size": 0.0}, "and 0.0"),
        ({"images": GREY[0]}, r"got \[4, 5, 3\]"),
    ],
)
def test_bad_options_are_named(changes, wrong):
    with pytest.raises(ValueError, match=f"projected_gradient: .*{wrong}"):
        attack(**changes)


def test_the_remedy_for_one_image_works():
    found = adversarial_examples.projected_gradient(
        lambda images: images.sum((1, 2, 3)),
        jnp.asarray(GREY[0])[None],
        KEY,
        radius=RADIUS,
        steps=2,
    )
    assert found.shape == (1, *SHAPE)


# --- many images ---


def test_attacked_images_are_those_of_the_attack(monkeypatch):
    monkeypatch.setattr(adversarial_examples, "_BATCH", 4)  # the second batch is filled up
    images = RNG.integers(0, 256, (6, *SHAPE), np.uint8)
    found = adversarial_examples.attacked(
        apply, jnp.asarray(WEIGHTS), images, LABELS, radius=RADIUS, steps=5
    )
    np.testing.assert_allclose(found, attack(images / np.float32(255), None), atol=1e-6)


def test_robust_accuracy_is_the_share_whose_margin_exceeds_the_radius():
    images = RNG.integers(100, 156, (120, *SHAPE), np.uint8)
    labels = RNG.integers(0, CLASSES, 120)
    logits = np.asarray(apply(WEIGHTS, images / np.float32(255)))
    difference = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    ahead = np.where(labels, 1, -1) * (logits[:, 1] - logits[:, 0])
    margins = ahead / np.linalg.norm(difference)
    radius = float(np.quantile(margins[margins > 0], 0.5))
    expected = (margins > radius).mean()
    for key in (None, KEY):
        found = adversarial_examples.robust_accuracy(
            apply, jnp.asarray(WEIGHTS), images, labels, radius=radius, steps=40, key=key
        )
        # The image at the quantile itself may fall either way.
        assert abs(found - expected) < 1.5 / 120
    assert 0.05 < expected < (margins > 0).mean()


# --- training ---


class Normalised(nnx.Module):
    """A linear classifier with batch normalisation, whose modes differ."""

    def __init__(self) -> None:
        self.norm = nnx.BatchNorm(60, rngs=nnx.Rngs(0))
        self.kernel = nnx.Param(jnp.asarray(WEIGHTS))

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.norm(images.reshape(len(images), -1)) @ self.kernel[...]


@pytest.mark.parametrize("of_batch", [True, False])
def test_the_objective_attacks_the_given_network_and_learns_the_labels(of_batch):
    graphdef, state = classifier.create(Normalised(), optax.sgd(0.1))
    objective = adversarial_examples.robust(
        classifier.make_apply(graphdef, batch_statistics=of_batch),
        radius=RADIUS,
        steps=2,
        step_size=0.1,
    )
    given = Supervision(jnp.asarray(LABELS))
    images, wanted = objective.prepare(KEY, state, jnp.asarray(COLOURFUL), given)

    def normalised(images):
        x = images.reshape(len(images), -1)
        # The running statistics are those of a fresh network: mean 0, variance 1.
        mean, variance = (x.mean(0), x.var(0)) if of_batch else (0, 1)
        logits = (x - mean) / jnp.sqrt(variance + 1e-5) @ WEIGHTS
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS))

    expected = adversarial_examples.projected_gradient(
        normalised, jnp.asarray(COLOURFUL), KEY, radius=RADIUS, steps=2, step_size=0.1
    )
    np.testing.assert_allclose(images, expected, atol=1e-4)
    logits = jnp.asarray(RNG.normal(size=(6, CLASSES)))
    np.testing.assert_allclose(
        objective.loss(logits, wanted), objectives.plain().loss(logits, jnp.asarray(LABELS))
    )


def test_label_smoothing_is_of_the_outer_loss():
    objective = adversarial_examples.robust(apply, radius=RADIUS, label_smoothing=0.2)
    given = Supervision(jnp.asarray(LABELS))
    images, wanted = objective.prepare(KEY, WEIGHTS, jnp.asarray(GREY), given)
    logits = apply(WEIGHTS, images)
    np.testing.assert_allclose(
        objective.loss(logits, wanted), objectives.plain(0.2).loss(logits, jnp.asarray(LABELS))
    )


class Linear(nnx.Module):
    """A linear classifier."""

    def __init__(self) -> None:
        self.kernel = nnx.Param(jnp.asarray(WEIGHTS))

    def __call__(self, images: jax.Array) -> jax.Array:
        return images.reshape(len(images), -1) @ self.kernel[...]


def test_an_update_descends_the_worst_loss_of_a_linear_classifier():
    # The worst image of the ball lowers the label's margin by r‖w₁ − w₀‖, so that Eq. 2.1 is a function of w.
    radius = 0.2
    images = RNG.integers(120, 136, (6, *SHAPE), np.uint8)

    def worst(weights):
        difference = weights[:, 1] - weights[:, 0]
        sides = jnp.where(jnp.asarray(LABELS), 1, -1)
        margins = sides * ((images / np.float32(255)).reshape(6, -1) @ difference)
        return jax.nn.softplus(radius * jnp.linalg.norm(difference) - margins).mean()

    optimizer = optax.sgd(1.0)
    graphdef, state = classifier.create(Linear(), optimizer)
    update = classifier.make_update(
        graphdef,
        optimizer,
        key=KEY,
        objective=adversarial_examples.robust(
            classifier.make_apply(graphdef), radius=radius, steps=12, step_size=radius
        ),
        crop_padding=0,
        flip=False,
    )
    after, metrics = jax.jit(update)(state, jnp.asarray(images), jnp.asarray(LABELS), jnp.arange(6))
    expected, gradient = jax.value_and_grad(worst)(jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-4)
    np.testing.assert_allclose(after.params["kernel"][...] - WEIGHTS, -gradient, atol=1e-4)


@pytest.mark.parametrize("changes", [{"radius": -1.0}, {"steps": 0}, {"step_size": -1.0}])
def test_bad_options_of_the_objective_are_named(changes):
    options = {"radius": 0.5, **changes}
    with pytest.raises(ValueError, match=r"adversarial_examples\.robust: .*must be positive"):
        adversarial_examples.robust(apply, **options)
