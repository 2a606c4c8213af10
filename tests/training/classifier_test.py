"""Training of classifiers: the recipe's formulas, and the same bits however the steps are cut."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.data import augment
from outgen_jax.training import classifier, objectives, updates
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier_recipe import (
    SCHEDULES,
    ClassifierRecipe,
    learning_rate_schedule,
    make_objective,
    make_optimizer,
)

RECIPE = ClassifierRecipe(epochs=3, batch_size=8, learning_rate=0.05, weight_decay=0.01)


class Linear(nnx.Module):
    """Logistic regression on the pixels of 2x2 images."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.kernel = nnx.Param(jnp.asarray(rng.normal(size=(12, 3)), jnp.float32))
        self.bias = nnx.Param(jnp.asarray(rng.normal(size=3), jnp.float32))

    def __call__(self, images: jax.Array) -> jax.Array:
        return images.reshape(len(images), -1) @ self.kernel[...] + self.bias[...]


class Network(nnx.Module):
    """Everything that has a state: weights, running statistics, random numbers of dropout."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.kernel = nnx.Param(jnp.asarray(rng.normal(0, 0.1, (8 * 8 * 3, 6)), jnp.float32))
        self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.25, rngs=nnx.Rngs(0))
        self.head = nnx.Param(jnp.asarray(rng.normal(0, 0.3, (6, 2)), jnp.float32))

    def __call__(self, images: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.norm(images.reshape(len(images), -1) @ self.kernel[...]))
        return self.dropout(x) @ self.head[...]


class Training(NamedTuple):
    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    update: classifier.Update
    images: jax.Array
    labels: jax.Array
    rows: np.ndarray

    def start(self) -> classifier.TrainState:
        return classifier.create(Network(), self.optimizer)[1]


@pytest.fixture(scope="module")
def training() -> Training:
    """Red images against blue ones, two dozen updates in all."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 64)
    images = rng.integers(0, 100, (64, 8, 8, 3))
    images[np.arange(64), :, :, 2 * labels] += 100
    optimizer = make_optimizer(RECIPE, 8)
    graphdef, _ = classifier.create(Network(), optimizer)
    update = classifier.make_update(
        graphdef,
        optimizer,
        key=jax.random.key(1),
        objective=objectives.plain(RECIPE.label_smoothing),
    )
    rows = [updates.epoch_rows(jax.random.key(0), epoch, 64, 8) for epoch in range(3)]
    return Training(
        graphdef,
        optimizer,
        updates.compile_updates(update),
        jnp.asarray(images, jnp.uint8),
        jnp.asarray(labels, jnp.int32),
        np.concatenate(rows),
    )


def run(
    training: Training, state: classifier.TrainState, rows: np.ndarray, chunk: int = 1
) -> tuple[classifier.TrainState, np.ndarray]:
    losses = []
    for start in range(0, len(rows), chunk):
        batches = jnp.asarray(rows[start : start + chunk])
        state, metrics = training.update(state, training.images, training.labels, batches)
        losses.append(np.asarray(metrics.loss))
    return state, np.concatenate(losses)


def leaves(state: classifier.TrainState) -> list[np.ndarray]:
    return [
        np.asarray(jax.random.key_data(leaf))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else np.asarray(leaf)
        for leaf in jax.tree.leaves(state)
    ]


# --- The recipe ---


def test_cosine_schedule_at_its_corners():
    rate = learning_rate_schedule(ClassifierRecipe(epochs=10, learning_rate=0.4), 10)
    steps = [0, 5, 10, 55, 100]  # start, half of the warm-up, its end, half of the cosine, end
    np.testing.assert_allclose([rate(s) for s in steps], [0, 0.2, 0.4, 0.2, 0], atol=1e-7)
    np.testing.assert_allclose(rate(32.5), 0.2 * (1 + np.cos(np.pi / 4)), rtol=1e-6)


def test_step_schedule_falls_at_half_and_at_three_quarters():
    recipe = ClassifierRecipe(epochs=2, learning_rate=0.4, schedule="step")
    rate = learning_rate_schedule(recipe, 4)
    expected = [0.4] * 4 + [0.04] * 2 + [0.004] * 2
    np.testing.assert_allclose([rate(step) for step in range(8)], expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_trainings_have_a_schedule(schedule, steps):
    rate = learning_rate_schedule(ClassifierRecipe(epochs=1, schedule=schedule), steps)
    assert 0 < max(float(rate(step)) for step in range(steps)) <= 0.1 + 1e-7


def test_schedule_says_what_is_wrong():
    with pytest.raises(ValueError, match="unknown schedule 'constant'; use one of cosine, step"):
        learning_rate_schedule(ClassifierRecipe(epochs=1, schedule="constant"), 5)
    with pytest.raises(ValueError, match=r"2 epochs of 0 updates .* no larger than the data set"):
        learning_rate_schedule(ClassifierRecipe(epochs=2), 0)


def test_sgd_is_nesterov_with_decay_of_kernels_alone():
    recipe = ClassifierRecipe(epochs=1, learning_rate=0.4, weight_decay=0.1, schedule="step")
    optimizer = make_optimizer(recipe, 4)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)}
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    ours = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    opt_state = optimizer.init(ours)
    for rate in (0.4, 0.4, 0.04, 0.004):
        gradients = {name: rng.normal(size=value.shape) for name, value in params.items()}
        for name, gradient in gradients.items():
            total = gradient + (0.1 * params[name] if name == "kernel" else 0)
            velocity[name] = 0.9 * velocity[name] + total
            params[name] = params[name] - rate * (total + 0.9 * velocity[name])
        as_float = {name: jnp.asarray(g, jnp.float32) for name, g in gradients.items()}
        changes, opt_state = optimizer.update(as_float, opt_state, ours)
        ours = optax.apply_updates(ours, changes)
        for name, value in params.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6)


# --- One update ---


def test_update_is_a_step_of_sgd_on_the_smoothed_cross_entropy(monkeypatch):
    monkeypatch.setattr(augment, "random_crop", lambda key, images, *, padding: images)
    monkeypatch.setattr(augment, "random_flip_left_right", lambda key, images: images)
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (6, 2, 2, 3), np.uint8), np.array([0, 2, 1, 1, 0, 2])
    rows = np.array([4, 1, 2])
    recipe = ClassifierRecipe(epochs=1, weight_decay=0.02, schedule="step")
    optimizer = make_optimizer(recipe, 100)
    model = Linear()
    kernel, bias = np.float64(model.kernel[...]), np.float64(model.bias[...])
    graphdef, state = classifier.create(model, optimizer)
    update = classifier.make_update(
        graphdef, optimizer, key=jax.random.key(0), objective=objectives.plain(0.3)
    )
    state, metrics = jax.jit(update)(state, images, jnp.asarray(labels), rows)

    x, targets = images[rows].reshape(3, -1) / 255, 0.7 * np.eye(3)[labels[rows]] + 0.1
    logits = x @ kernel + bias
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(metrics.loss, -(targets * log_probs).sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.accuracy, (logits.argmax(1) == labels[rows]).mean())
    residual = (np.exp(log_probs) - targets) / 3
    # The first step of Nesterov's momentum goes 1 + momentum as far as plain SGD.
    new_kernel = kernel - 0.1 * 1.9 * (x.T @ residual + 0.02 * kernel)
    new_bias = bias - 0.1 * 1.9 * residual.sum(0)
    np.testing.assert_allclose(state.params["kernel"][...], new_kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.params["bias"][...], new_bias, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 1


def test_the_network_given_is_left_as_it_is():
    model = Network()
    model.eval()
    _, state = classifier.create(model, optax.sgd(0.1))
    jax.jit(lambda state: state, donate_argnums=0)(state)  # as training does
    assert state.params["kernel"][...].is_deleted()
    assert model.dropout.deterministic
    assert model(jnp.zeros((1, 8, 8, 3))).shape == (1, 2)


def test_every_step_and_key_augments_anew(monkeypatch):
    def crop(key, images, *, padding):
        keys.append(key)
        return images

    def flip(key, images):
        keys.append(key)
        raise StopIteration  # what follows is slow outside of jit

    keys: list[jax.Array] = []
    monkeypatch.setattr(augment, "random_crop", crop)
    monkeypatch.setattr(augment, "random_flip_left_right", flip)
    optimizer = make_optimizer(RECIPE, 8)
    graphdef, state = classifier.create(Linear(), optimizer)
    images, labels = jnp.zeros((2, 2, 2, 3), jnp.uint8), jnp.zeros(2, jnp.int32)
    for seed in (0, 1):
        update = classifier.make_update(graphdef, optimizer, key=jax.random.key(seed))
        for step in (0, 1):
            with pytest.raises(StopIteration):
                update(state._replace(step=jnp.asarray(step)), images, labels, jnp.arange(2))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys) == 8


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_are_as_asked(flip):
    """Without padding an image is seen as it is, or mirrored; with it, some show their border."""
    image = np.broadcast_to(np.arange(1, 9)[:, None], (8, 8, 3)).astype(np.uint8)
    images, seen = jnp.asarray(np.stack([image] * 16)), []

    def prepare(key, state, batch, given):
        seen.append(np.asarray(255 * batch).round())
        raise StopIteration  # what follows is slow outside of jit

    optimizer = make_optimizer(RECIPE, 8)
    graphdef, state = classifier.create(Linear(), optimizer)
    objective = objectives.Objective(prepare, objectives.plain().loss)
    for padding in (0, 2):
        update = classifier.make_update(
            *(graphdef, optimizer),
            key=jax.random.key(0),
            objective=objective,
            crop_padding=padding,
            flip=flip,
        )
        with pytest.raises(StopIteration):
            update(state, images, jnp.zeros(16, jnp.int32), jnp.arange(16))
    whole, cropped = seen
    mirrored = [(batch == image[:, ::-1]).all() for batch in whole]
    assert all((batch == image).all() or m for batch, m in zip(whole, mirrored, strict=True))
    assert any(mirrored) == flip
    assert not all(mirrored)
    assert (cropped == 0).any()


def test_accuracy_counts_the_last_batch_too():
    def apply(state, images):
        return jax.nn.one_hot((255 * images[:, 0, 0, 0]).round().astype(int), 7)

    labels = np.arange(7)
    images = np.broadcast_to(labels[:, None, None, None], (7, 2, 2, 1)).astype(np.uint8)
    assert classifier.accuracy(apply, None, images, labels, batch_size=3) == 1
    assert classifier.accuracy(apply, None, images, np.roll(labels, 1)) == 0
    labels[6] = 0
    assert classifier.accuracy(apply, None, images, labels, batch_size=3) == pytest.approx(6 / 7)


class Normalised(nnx.Module):
    """Each channel's mean over the image, batch-normalised; the running statistics are the last batch's."""

    def __init__(self):
        self.norm = nnx.BatchNorm(3, momentum=0, use_bias=False, use_scale=False, rngs=nnx.Rngs(0))
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, images):
        return self.weight * self.norm(images.mean((1, 2)))


@pytest.mark.parametrize(("share", "count"), [(0.4, 2), (0, 0), (1, 0)])
def test_what_an_objective_sets_apart_is_normalised_by_itself(share, count):
    """The rest alone makes the running statistics; a share of nothing or all sets nothing apart."""
    weights = np.random.default_rng(1).normal(size=(5, 3))

    def prepare(key, state, batch, given):
        return images, given.labels

    def loss(logits, labels):
        return (weights * logits).sum()

    optimizer = make_optimizer(RECIPE, 100)
    graphdef, state = classifier.create(Normalised(), optimizer)
    objective = objectives.Objective(prepare, loss, share)
    update = classifier.make_update(graphdef, optimizer, key=jax.random.key(0), objective=objective)
    images = np.random.default_rng(0).uniform(size=(5, 4, 4, 3)).astype(np.float32)
    data = jnp.zeros((5, 4, 4, 3), jnp.uint8)
    after, metrics = jax.jit(update)(state, data, jnp.zeros(5, jnp.int32), jnp.arange(5))
    means = images.mean((1, 2), dtype=np.float64)
    groups = [part for part in (means[:count], means[count:]) if len(part)]
    logits = np.concatenate([(g - g.mean(0)) / np.sqrt(g.var(0) + 1e-5) for g in groups])
    np.testing.assert_allclose(metrics.loss, (weights * logits).sum(), rtol=1e-4)
    np.testing.assert_allclose(after.variables["norm"]["mean"][...], groups[-1].mean(0), rtol=1e-5)


def test_an_objective_sees_its_rows_and_says_what_is_learnt(monkeypatch):
    """The augmented batch, its own key and its rows' supervision go in; its images and loss are trained on."""
    monkeypatch.setattr(augment, "random_crop", lambda key, images, *, padding: images)
    monkeypatch.setattr(augment, "random_flip_left_right", lambda key, images: images)
    seen = {}

    def prepare(key, state, images, given):
        seen.update(key=key, step=state.step, images=images, given=given)
        return 1 - images, 2 * given.labels

    objective = objectives.Objective(prepare, lambda logits, wanted: logits.mean() + wanted.sum())
    optimizer = make_optimizer(RECIPE, 100)
    graphdef, state = classifier.create(Linear(), optimizer)
    update = classifier.make_update(graphdef, optimizer, objective=objective)
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)
    rows, key = np.array([4, 1]), jax.random.key(7)
    given = objectives.Supervision(jnp.arange(6) % 3, frozen="frozen", key=key)
    before = np.float64(state.params["kernel"][...]), np.float64(state.params["bias"][...])
    _, metrics = update(state, jnp.asarray(images), given, jnp.asarray(rows))
    x = images[rows] / 255
    np.testing.assert_allclose(seen["images"], x, rtol=1e-6)
    np.testing.assert_array_equal(seen["given"].labels, [1, 1])
    assert seen["given"].frozen == "frozen"
    logits = (1 - x).reshape(2, -1) @ before[0] + before[1]
    np.testing.assert_allclose(metrics.loss, logits.mean() + 4, rtol=1e-5)
    np.testing.assert_allclose(metrics.accuracy, (logits.argmax(1) == 1).mean())
    # Neither the key of the step nor those of crop and flip.
    step_key = jax.random.fold_in(key, 0)
    others = [step_key, *jax.random.split(step_key)]
    drawn = [tuple(jax.random.key_data(k).tolist()) for k in (seen["key"], *others)]
    assert len(set(drawn)) == 4


def test_images_without_an_answer_are_not_right():
    """The first class would be: argmax takes NaN for the largest."""
    images, labels = np.zeros((5, 2, 2, 3), np.uint8), np.zeros(5, int)

    def apply(share, x):
        return jnp.where(jnp.arange(len(x))[:, None] < share, jnp.nan, jnp.eye(3)[:1])

    assert classifier.accuracy(apply, 5, images, labels) == 0
    assert classifier.accuracy(apply, 1, images, labels, batch_size=2) == pytest.approx(2 / 5)


def test_update_says_that_there_is_no_key():
    optimizer = make_optimizer(RECIPE, 8)
    graphdef, state = classifier.create(Linear(), optimizer)
    update = classifier.make_update(graphdef, optimizer)
    images, labels = jnp.zeros((2, 2, 2, 3), jnp.uint8), jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="no key; give one to make_update or to the Supervision"):
        update(state, images, labels, jnp.arange(2))


def test_training_learns_and_inference_uses_running_statistics(training):
    state, losses = run(training, training.start(), training.rows)
    assert losses[-3:].mean() < 0.6 * losses[0]
    images = training.images.astype(jnp.float32) / 255
    logits = np.asarray(jax.jit(classifier.make_apply(training.graphdef))(state, images))
    assert (logits.argmax(1) == np.asarray(training.labels)).mean() == 1
    norm = {name: np.asarray(v[...]) for name, v in state.variables["norm"].items()}
    norm |= {name: np.asarray(v[...]) for name, v in state.params["norm"].items()}
    x = np.asarray(images).reshape(64, -1) @ np.asarray(state.params["kernel"][...])
    x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    expected = np.maximum(x, 0) @ np.asarray(state.params["head"][...])  # nothing dropped
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_batch_statistics_are_those_of_the_images_and_nothing_is_dropped(training):
    state = training.start()
    images = training.images.astype(jnp.float32) / 255
    apply = classifier.make_apply(training.graphdef, batch_statistics=True)
    x = np.asarray(images).reshape(64, -1) @ np.asarray(state.params["kernel"][...])
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)  # a fresh network has scale 1 and bias 0
    expected = np.maximum(x, 0) @ np.asarray(state.params["head"][...])
    np.testing.assert_allclose(apply(state, images), expected, rtol=1e-3, atol=1e-3)
    # A network without batch normalisation has no such statistics.
    graphdef, linear = classifier.create(Linear(), optax.sgd(0.1))
    small = images[:2, :2, :2]
    found = classifier.make_apply(graphdef, batch_statistics=True)(linear, small)
    np.testing.assert_array_equal(found, classifier.make_apply(graphdef)(linear, small))


# --- The same training, however it is cut ---


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(training, tmp_path):
    straight, losses = run(training, training.start(), training.rows[:6])
    half, first = run(training, training.start(), training.rows[:3])
    Checkpoints(tmp_path).save(3, half, {"losses": first.tolist()})
    restored, notes = Checkpoints(tmp_path).restore(training.start())
    resumed, second = run(training, restored, training.rows[3:6])
    np.testing.assert_array_equal(losses, np.float32([*notes["losses"], *second]))
    assert int(resumed.step) == 6
    assert jax.tree.structure(resumed) == jax.tree.structure(straight)
    for a, b in zip(leaves(resumed), leaves(straight), strict=True):
        np.testing.assert_array_equal(a, b)
    # Had dropout's count of draws not come back, it would have drawn the first masks again.
    counts = [int(leaf) for leaf in leaves(resumed) if leaf.dtype == np.uint32 and not leaf.ndim]
    assert 6 in counts


def test_a_scanned_chunk_is_the_single_steps(training):
    one_by_one, losses = run(training, training.start(), training.rows[:4])
    at_once, scanned = run(training, training.start(), training.rows[:4], chunk=4)
    np.testing.assert_allclose(scanned, losses, rtol=1e-5)
    for a, b in zip(leaves(at_once), leaves(one_by_one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_objective_may_have_labels_of_its_own_kind_and_say_what_is_correct():
    wanted = jnp.asarray([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    objective = objectives.Objective(
        lambda key, state, images, given: (images, given.labels),
        lambda logits, wanted: optax.sigmoid_binary_cross_entropy(logits, wanted).mean(),
        correct=lambda logits, wanted: ((logits > 0) == (wanted > 0.5)).mean(),
    )
    optimizer = optax.sgd(0.0)
    graphdef, state = classifier.create(Linear(), optimizer)
    options = {"objective": objective, "crop_padding": 0, "flip": False}
    update = classifier.make_update(graphdef, optimizer, key=jax.random.key(0), **options)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 2, 2, 3)), jnp.uint8)
    _, metrics = update(state, images, wanted, jnp.arange(2))
    logits, right = np.asarray(Linear()(images / 255)), np.asarray(wanted)
    assert float(metrics.accuracy) == pytest.approx(((logits > 0) == (right > 0.5)).mean())
    expected = float(np.mean(np.logaddexp(0, logits) - right * logits))
    assert float(metrics.loss) == pytest.approx(expected, rel=1e-4)


def test_the_objective_of_a_recipe_is_plain_or_robust():
    images = jnp.full((2, 2, 2, 3), 0.5)
    supervision = objectives.Supervision(jnp.array([0, 2]))

    def apply(state, images):
        return images.reshape(2, -1) @ state

    def prepared(**options):
        recipe = ClassifierRecipe(epochs=1, label_smoothing=0.1, **options)
        objective = make_objective(recipe, apply)
        state = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
        logits = jnp.array([[1.0, 0, 0], [0, 2, 1]])
        found, wanted = objective.prepare(jax.random.key(0), state, images, supervision)
        expected = objectives.plain(0.1).loss(logits, supervision.labels)
        np.testing.assert_allclose(objective.loss(logits, wanted), expected)
        return jnp.linalg.norm((found - images).reshape(2, -1), axis=1)

    np.testing.assert_array_equal(prepared(), 0)
    np.testing.assert_allclose(prepared(robust_radius=0.1, robust_steps=3), 0.1, rtol=1e-4)
    for wrong in ({"robust_radius": 0.1}, {"robust_steps": 3}):
        with pytest.raises(ValueError, match="belong together"):
            prepared(**wrong)
