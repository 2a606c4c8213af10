"""The loop around the updates: the same bits through any interruption, and no bad checkpoints."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.training import classifier, classifier_fit, objectives, updates
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier_recipe import ClassifierRecipe, make_optimizer
from outgen_jax.training.objectives import Supervision

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, BATCH, COUNT = 4, 8, 24
KEY = jax.random.key(5)


class Network(nnx.Module):
    """A hidden layer with running statistics."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.kernel = nnx.Param(jnp.asarray(rng.normal(0, 0.1, (8 * 8 * 3, 6)), jnp.float32))
        self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=nnx.Rngs(0))
        self.head = nnx.Param(jnp.asarray(rng.normal(0, 0.3, (6, 2)), jnp.float32))

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.norm(images.reshape(len(images), -1) @ self.kernel[...])
        return jax.nn.relu(x) @ self.head[...]


def generate(
    key: jax.Array, state: Any, frozen: Any, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Images moved by noise, and along the network in training: whatever a generator may depend on."""
    towards = state.params["kernel"][...].sum(-1).reshape(images.shape[1:])
    new = jnp.clip(images + 0.1 * jax.random.normal(key, images.shape) + 0.01 * towards, 0, 1)
    return new, frozen * jax.nn.one_hot(labels, 2)


@functools.cache
def program() -> tuple[classifier.Update, Any]:
    """An update that generates, compiled once for all seeds, and what makes its first state."""
    recipe = ClassifierRecipe(epochs=EPOCHS, batch_size=BATCH, learning_rate=0.05)
    optimizer = make_optimizer(recipe, COUNT // BATCH)
    graphdef, _ = classifier.create(Network(), optimizer)
    update = classifier.make_update(graphdef, optimizer, objective=objectives.during(generate, 0.5))
    return updates.compile_updates(update), lambda: classifier.create(Network(), optimizer)[1]


def data(seed: int = 0) -> tuple[jax.Array, Supervision]:
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.integers(0, 256, (COUNT, 8, 8, 3)), jnp.uint8)
    labels = jnp.asarray(rng.integers(0, 2, COUNT), jnp.int32)
    return images, Supervision(labels, frozen=jnp.float32(3), key=jax.random.key(seed))


def fit(directory: Path | None = None, seed: int = 0, epochs: int = EPOCHS, **changes: Any) -> Any:
    update, start = program()
    images, given = data(seed)
    options: dict[str, Any] = {"key": KEY, "epochs": epochs, "batch_size": BATCH} | changes
    if directory is not None:
        options["checkpoints"] = Checkpoints(directory)
    return classifier_fit.fit(options.pop("update", update), start(), images, given, **options)


def weights(state: classifier.TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same_bits(a: classifier.TrainState, b: classifier.TrainState) -> None:
    for ours, theirs in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def without_seconds(history: list[classifier_fit.Epoch]) -> list[classifier_fit.Epoch]:
    return [row._replace(seconds=0) for row in history]


def test_an_interrupted_training_that_generates_is_the_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier_fit, "CHECKPOINT_SECONDS", 0)
    straight, history = fit()
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    start = weights(program()[1]())
    assert any(not np.array_equal(a, b) for a, b in zip(weights(straight), start, strict=True))

    def interrupted(self, step, state, notes, save=Checkpoints.save):
        save(self, step, state, notes)
        if step in (1, 3):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                fit(tmp_path)
    resumed, resumed_history = fit(tmp_path)
    assert_same_bits(resumed, straight)
    assert without_seconds(resumed_history) == without_seconds(history)
    # Nothing is left to do for a finished one.
    again, again_history = fit(tmp_path)
    assert_same_bits(again, straight)
    assert again_history == resumed_history


def test_what_is_measured_after_an_epoch_stays_in_the_history(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier_fit, "CHECKPOINT_SECONDS", 0)

    def updates(row: classifier_fit.Epoch, state: classifier.TrainState) -> dict[str, float]:
        return {"updates": float(state.step), "of_epoch": row.epoch}

    _, first = fit(tmp_path, epochs=2, on_epoch=updates)
    per_epoch = COUNT // BATCH
    expected = [{"updates": n * per_epoch, "of_epoch": n} for n in (1, 2)]
    assert [row.measured for row in first] == expected
    _, resumed = fit(tmp_path, epochs=3)
    assert [row.measured for row in resumed] == [*expected, None]


# --- in one call ---

TWO_EPOCHS = ClassifierRecipe(
    epochs=2, batch_size=BATCH, learning_rate=0.05, label_smoothing=0.1, crop_padding=1, flip=False
)


def stripes() -> tuple[np.ndarray, np.ndarray]:
    """Images whose bright channel is their class."""
    labels = np.arange(COUNT) % 2
    images = np.random.default_rng(3).integers(0, 100, (COUNT, 8, 8, 3), np.uint8)
    images[np.arange(COUNT), :, :, 2 * labels] += 100
    return images, labels


def test_train_is_fit_with_what_the_recipe_says(tmp_path):
    images, labels = stripes()
    model = Network()
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
    seen = []
    trained = classifier_fit.train(
        model,
        images,
        labels,
        TWO_EPOCHS,
        key=KEY,
        test=(images[:7], labels[:7]),
        checkpoints=Checkpoints(tmp_path),
        on_epoch=seen.append,
    )
    for leaf, old in zip(jax.tree.leaves(nnx.state(model)), before, strict=True):
        np.testing.assert_array_equal(leaf, old)

    optimizer = make_optimizer(TWO_EPOCHS, COUNT // BATCH)
    graphdef, state = classifier.create(Network(), optimizer)
    update = classifier.make_update(
        graphdef,
        optimizer,
        key=KEY,
        objective=objectives.plain(0.1),
        crop_padding=1,
        flip=False,
    )
    state, history = classifier_fit.fit(
        updates.compile_updates(update), state, images, labels, key=KEY, epochs=2, batch_size=BATCH
    )
    logits = classifier.make_apply(graphdef)(state, jnp.float32(images) / 255)
    np.testing.assert_allclose(trained.model(jnp.float32(images) / 255), logits, atol=1e-6)
    without = [row._replace(measured=None) for row in trained.history]
    assert without_seconds(without) == without_seconds(history)
    right = (np.asarray(logits).argmax(-1) == labels)[:7].mean()
    assert trained.history[-1].measured == {"test_accuracy": pytest.approx(right)}
    assert seen == trained.history
    # A checkpoint of another recipe is refused.
    other = dataclasses.replace(TWO_EPOCHS, learning_rate=0.1)
    with pytest.raises(ValueError, match="another"):
        classifier_fit.train(
            model, images, labels, other, key=KEY, checkpoints=Checkpoints(tmp_path)
        )


class Noisy(Network):
    """With dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, images: jax.Array) -> jax.Array:
        return super().__call__(self.dropout(images))


def test_the_key_decides_what_dropout_leaves_out():
    images, labels = stripes()
    recipe = dataclasses.replace(TWO_EPOCHS, epochs=1, batch_size=COUNT, crop_padding=0)
    losses = [
        classifier_fit.train(Noisy(), images, labels, recipe, key=jax.random.key(seed))
        .history[0]
        .loss
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_checkpoint_of_another_teacher_is_refused(tmp_path):
    images, given = data()
    teacher, marks = jnp.zeros((COUNT, 2)), jnp.arange(COUNT) % 2 == 0
    given = given._replace(teacher_logits=teacher, generated=marks)
    update, start = program()

    def fit_with(given):
        return classifier_fit.fit(
            update,
            start(),
            images,
            given,
            key=KEY,
            epochs=1,
            batch_size=BATCH,
            checkpoints=Checkpoints(tmp_path),
        )

    fit_with(given)
    fit_with(given)
    for other in ({"teacher_logits": teacher + 1}, {"generated": ~marks}):
        with pytest.raises(ValueError, match="another"):
            fit_with(given._replace(**other))


def test_the_data_set_goes_to_the_device_once(monkeypatch):
    """An array of numpy would be sent again with every call of the update."""
    kinds = set()

    def run(compiled, state, images, labels, *, rows, run=updates.run):
        kinds.update(map(type, jax.tree.leaves((images, labels))))
        return run(compiled, state, images, labels, rows=rows)

    monkeypatch.setattr(updates, "run", run)
    classifier_fit.train(Network(), *stripes(), TWO_EPOCHS, key=KEY)
    assert kinds
    assert all(issubclass(kind, jax.Array) for kind in kinds)


@pytest.mark.parametrize("number", [np.float32, jnp.float32])
def test_numbers_of_numpy_and_jax_may_be_measured(tmp_path, number):
    _, history = fit(tmp_path, epochs=1, on_epoch=lambda row, state: {"half": number(0.5)})
    assert history[0].measured == {"half": 0.5}
    assert fit(tmp_path, epochs=1)[1] == history


def test_the_key_of_the_supervision_is_the_seed_and_compiles_nothing_anew():
    update, _ = program()
    (first, _), programs = fit(epochs=1), update._cache_size()
    (other, _), (same, _) = (fit(seed=seed, epochs=1) for seed in (1, 0))
    assert_same_bits(first, same)
    assert any((a != b).any() for a, b in zip(weights(first), weights(other), strict=True))
    assert update._cache_size() == programs


def test_checkpoints_wait_their_seconds_and_end_with_the_last_epoch(tmp_path):
    fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [str(EPOCHS)]


# Dies without a word while the checkpoint of the third epoch gets its name.
_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import classifier_fit_test as test
from outgen_jax.training import classifier_fit
from outgen_jax.training.checkpoints import Checkpoints

classifier_fit.CHECKPOINT_SECONDS = 0
save = Checkpoints.save
def dying(self, step, state, notes):
    if step == 3:
        os.rename = os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
    save(self, step, state, notes)
Checkpoints.save = dying
test.fit(Path(sys.argv[1]))
"""


def test_a_kill_in_the_middle_of_a_checkpoint_costs_one_epoch(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(Path(__file__).parent)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Checkpoints(tmp_path).latest == 2
    resumed, history = fit(tmp_path)
    straight, expected = fit()
    assert_same_bits(resumed, straight)
    assert without_seconds(history) == without_seconds(expected)


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_divergence_is_named_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch, what):
    monkeypatch.setattr(classifier_fit, "CHECKPOINT_SECONDS", 0)
    update, _ = program()
    at = 7 if what == "loss" else 8  # of the updates counted from 0; three an epoch

    def diverging(state, images, labels, rows):
        steps = int(state.step) + np.arange(len(rows))
        state, metrics = update(state, images, labels, rows)
        if at in steps and what == "weights":
            state = state._replace(params=jax.tree.map(lambda p: p * jnp.nan, state.params))
        if what == "loss":
            metrics = metrics._replace(loss=metrics.loss + np.where(steps >= at, np.inf, 0))
        return state, metrics

    diverging.trace = update.trace

    message = (
        f"the {what} diverged at update {at + 1}, in epoch 3; the checkpoint of epoch 2 is kept"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(tmp_path, update=diverging)
    assert Checkpoints(tmp_path).latest == 2
    resumed, _ = fit(tmp_path)  # with the update that does not diverge
    assert_same_bits(resumed, fit()[0])
    with pytest.raises(FloatingPointError, match=r"there is no checkpoint\. Use a lower learning"):
        fit(update=diverging)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    Checkpoints(tmp_path).save(1, {"kernel": jnp.zeros(3)}, {"history": []})
    with pytest.raises(ValueError, match="written with other settings"):
        fit(tmp_path)


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    fit(tmp_path, epochs=1, settings={"rate": 0.05})
    for name, options in {
        "keys": {"key": jax.random.fold_in(KEY, 1)},
        "batch_size": {"batch_size": 6},
        "rate": {"settings": {"rate": 0.1}},
    }.items():
        message = f"fit: checkpoint 1 is of another run: {name} is"
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, **({"settings": {"rate": 0.05}} | options))
    with pytest.raises(ValueError, match="of another run: keys is"):
        fit(tmp_path, seed=1)
    with pytest.raises(ValueError, match="trained up to 1 before, and this call ends with 0"):
        fit(tmp_path, epochs=0, settings={"rate": 0.05})
    images, given = data()
    with pytest.raises(ValueError, match="of another run: checksum of the data is"):
        check(255 - images, given.labels, checkpoints=Checkpoints(tmp_path))
    with pytest.raises(ValueError, match="of another run: checksum of the data is"):
        check(images, 1 - given.labels, checkpoints=Checkpoints(tmp_path))


# --- what goes in ---


def check(images: Any, labels: Any, update: Any = None, **options: Any) -> None:
    """What `fit` does before its first update."""
    own, start = program()
    given = data()[1]._replace(labels=labels) if not isinstance(labels, Supervision) else labels
    update = own if update is None else update
    classifier_fit.fit(
        update, start(), images, given, key=KEY, epochs=0, batch_size=BATCH, **options
    )


def test_refuses_other_data():
    images, given = data()
    labels = given.labels
    check(images, labels)
    check(np.asarray(images), np.asarray(labels, np.int64))
    logits = jnp.zeros((COUNT - 1, 2))
    for wrong, message in (
        ((images / 255, labels), r"uint8 .*got float32 \[24, 8, 8, 3\]; .*to_uint8"),
        (
            (jnp.float32(images), labels),
            r"uint8 .*got float32 .*; .*numpy\.asarray\(images, numpy\.uint8\)",
        ),
        (
            (images[..., 0], labels),
            r"got uint8 \[24, 8, 8\]; grey images are images\[\.\.\., None\]",
        ),
        (
            (images[:, :-1], labels),
            r"fails on an image of shape \[7, 8, 3\]: .*Check the image size",
        ),
        ((images, labels[:-1]), r"labels must have a row for each of the 24 images, .*\[23\]"),
        ((images, given._replace(teacher_logits=logits)), r"teacher_logits must have .*\[23, 2\]"),
        ((images, labels[:, None]), r"labels must be 24 integers, .*int32 \[24, 1\]"),
        ((images, jax.nn.one_hot(labels, 2)), r"24 integers, .*float32 \[24, 2\]"),
        ((images, labels + 1), r"labels must be in 0\.\.1, .*; they span 1\.\.2\. Match"),
        ((images, labels - 1), r"labels must be in 0\.\.1, .*; they span -1\.\.0\. Match"),
    ):
        with pytest.raises(ValueError, match=f"fit: .*{message}"):
            check(*wrong)


def test_refuses_other_arguments():
    own, start = program()
    images, given = data()
    options = {"key": KEY, "epochs": 1, "batch_size": BATCH}
    raw = classifier.make_update(classifier.create(Network(), optax.sgd(0.1))[0], optax.sgd(0.1))
    used = start()
    jax.tree.map(lambda x: x.delete(), used)
    for update, state, changed, message in (
        (raw, start(), {}, "update must be compiled; pass updates.compile_updates"),
        (own, start(), {"key": 0}, r"key must be a random key, got 0; pass jax\.random\.key"),
        (own, start(), {"epochs": -1}, "epochs must not be negative, got -1"),
        (own, used, {}, "the state was used before"),
    ):
        with pytest.raises(ValueError, match=f"fit: {message}"):
            classifier_fit.fit(update, state, images, given, **(options | changed))
    with pytest.raises(ValueError, match=r"create: model must be a flax\.nnx module, got function"):
        classifier.create(lambda images: images, optax.sgd(0.1))


def test_labels_may_be_a_list():
    images, given = data()
    own, start = program()
    labels = np.asarray(given.labels).tolist()
    supervised = given._replace(labels=labels)
    with pytest.raises(ValueError, match="labels must have a row"):
        check(images, supervised)
    options = {"key": KEY, "epochs": 0, "batch_size": BATCH}
    classifier_fit.fit(own, start(), images, labels, **options)


def test_labels_of_another_kind_are_left_to_their_objective():
    optimizer = make_optimizer(ClassifierRecipe(epochs=1), 1)
    graphdef, _ = classifier.create(Network(), optimizer)
    images, given = data()
    for correct, refused in (
        (lambda logits, wanted: jnp.zeros(()), False),
        (objectives.top_1, True),
    ):
        objective = objectives.plain()._replace(correct=correct)
        update = classifier.make_update(graphdef, optimizer, objective=objective)
        compiled = updates.compile_updates(updates.with_precision(update, "bfloat16"))
        wanted = jax.nn.one_hot(given.labels, 2)
        with pytest.raises(ValueError, match="24 integers") if refused else nullcontext():
            check(images, wanted, compiled)


def test_progress_is_shown_under_the_title(capsys):
    fit(epochs=1, title="plain/0")
    assert "plain/0, epoch 1/1" in capsys.readouterr().err


def test_the_order_of_an_epoch_shares_no_key_with_the_updates():
    seen = []

    def recorded(state, images, labels, rows):
        seen.append(np.asarray(rows).ravel())
        metrics = classifier.Metrics(jnp.zeros(len(rows)), jnp.zeros(len(rows)))
        return state, metrics

    recorded.trace = program()[0].trace
    fit(update=recorded, epochs=1, seed=5)  # of the updates the key is the same, KEY
    order = np.concatenate(seen)
    np.testing.assert_array_equal(np.sort(order), np.arange(COUNT))
    # What the first update draws its crops and flips from would give this order.
    first = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, 0), COUNT))
    assert not np.array_equal(order, first)
