"""The alternating update against optax by hand, exact resume, and what stops a training."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax import chunking, losses
from outgen_jax.data import augmented_set
from outgen_jax.training import gan, gan_fit, updates
from outgen_jax.training.checkpoints import Checkpoints

LATENT, SHAPE = (3,), (2, 2, 1)
DECAY = 0.25  # of the average, in most tests
KEY = jax.random.key(5, impl="unsafe_rbg")  # compiles in less time than the usual kind


def images(number: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, *SHAPE)).astype(np.uint8)


def generate(params: Any, variables: Any, z: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
    """A linear map and a sigmoid; `variables` count the calls."""
    return jax.nn.sigmoid(z @ params["w"]).reshape(-1, *SHAPE), variables + 1


def discriminate(
    params: Any, variables: Any, x: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    flat = x.reshape(len(x), -1)
    return jnp.tanh(flat @ params["w"]) @ params["v"] + params["b"], variables + 1


@functools.cache
def players() -> tuple[gan.Player, gan.Player]:
    return (
        gan.Player(generate, optax.sgd(0.3)),
        gan.Player(discriminate, optax.adam(0.1)),
    )


def start() -> gan.GameState:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    g, d = {"w": normal(3, 4)}, {"w": normal(4, 5), "v": normal(5), "b": normal()}
    states = (
        gan.PlayerState(params, jnp.zeros(()), player.optimizer.init(params))
        for player, params in zip(players(), (g, d), strict=True)
    )
    return gan.create(*states)


def make(**options: Any) -> gan.Update:
    return gan.make_update(*players(), latent_shape=LATENT, key=KEY, **options)


@functools.cache
def compiled(penalty: float = 0.0) -> gan.Update:
    """For batches of three: other sizes compile it anew."""
    return jax.jit(make(penalty=penalty, average_decay=DECAY))


# --- the update ---


def test_losses_are_the_papers():
    real, fake = np.array([2.0, -1.0]), np.array([0.5, -3.0])
    sigmoid = 1 / (1 + np.exp(-np.stack([real, fake])))
    expected = -np.log(sigmoid[0]).mean() - np.log(1 - sigmoid[1]).mean()
    np.testing.assert_allclose(
        losses.discriminator(jnp.asarray(real), jnp.asarray(fake)), expected, rtol=1e-6
    )
    got = losses.generator(jnp.asarray(fake))
    np.testing.assert_allclose(got, -np.log(sigmoid[1]).mean(), rtol=1e-6)
    undecided = losses.discriminator(jnp.zeros(3), jnp.zeros(2))
    np.testing.assert_allclose(undecided, 2 * np.log(2), rtol=1e-6)
    sure = jnp.array([1e4])
    assert losses.discriminator(-sure, sure) == 2e4  # finite, with its slope


def test_the_penalty_is_the_squared_slope():
    w, x = np.array([3.0, -4.0]), jnp.asarray(np.random.default_rng(0).random((5, 2)))
    np.testing.assert_allclose(gan.gradient_penalty(lambda x: x @ w, x), 25, rtol=1e-6)
    squares = gan.gradient_penalty(lambda x: (x**2).sum(-1) / 2, x)
    np.testing.assert_allclose(squares, (np.asarray(x) ** 2).sum(1).mean(), rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_an_update_is_both_players_steps_one_after_the_other(penalty):
    before, data, rows = start(), images(), np.array([3, 1, 7])
    after, metrics = compiled(penalty=penalty)(before, jnp.asarray(data), rows)
    real = jnp.asarray(data[rows] / 255, jnp.float32)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 7)
    z_d, z_g = (jax.random.normal(keys[i], (3, *LATENT)) for i in (0, 4))

    def d_loss(params: Any) -> jax.Array:
        def logits(x: jax.Array) -> jax.Array:
            return discriminate(params, 0, x, KEY)[0]

        fake = generate(before.generator.params, 0, z_d, KEY)[0]
        loss = -jnp.log(jax.nn.sigmoid(logits(real))).mean()
        loss -= jnp.log(1 - jax.nn.sigmoid(logits(fake))).mean()
        slopes = jax.vmap(jax.grad(lambda x: logits(x[None])[0]))(real)
        return loss + penalty / 2 * (slopes**2).sum((1, 2, 3)).mean()

    loss, gradient = jax.jit(jax.value_and_grad(d_loss))(before.discriminator.params)
    adam = optax.adam(0.1)
    changes, _ = adam.update(gradient, adam.init(gradient))
    d_params = optax.apply_updates(before.discriminator.params, changes)

    def g_loss(params: Any) -> jax.Array:
        fake = generate(params, 0, z_g, KEY)[0]
        return -jnp.log(jax.nn.sigmoid(discriminate(d_params, 0, fake, KEY)[0])).mean()

    other_loss, gradient = jax.jit(jax.value_and_grad(g_loss))(before.generator.params)
    g_params = jax.tree.map(lambda p, slope: p - 0.3 * slope, before.generator.params, gradient)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(metrics.discriminator_loss, loss)
    close(metrics.generator_loss, other_loss)
    jax.tree.map(close, after.discriminator.params, d_params)
    jax.tree.map(close, after.generator.params, g_params)
    assert np.abs(g_params["w"] - before.generator.params["w"]).max() > 1e-3
    real_logits = discriminate(before.discriminator.params, 0, real, KEY)[0]
    close(metrics.real, jax.nn.sigmoid(real_logits).mean())
    # Both networks' statistics follow their own batches: two of the generator, a real and a fake one of the other.
    assert (after.generator.variables, after.discriminator.variables, after.step) == (2, 2, 1)


def test_a_scheduled_penalty_is_that_of_the_updates_done():
    data, rows = jnp.asarray(images()), np.arange(3)
    scheduled = jax.jit(make(penalty=lambda done: 0.7 * done, average_decay=DECAY))
    for step, penalty in ((0, 0.0), (1, 0.7)):
        state = start()._replace(step=jnp.asarray(step))
        got = jax.tree.leaves(scheduled(state, data, rows))
        expected = jax.tree.leaves(compiled(penalty=penalty)(state, data, rows))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_average_follows_the_generator():
    state, data, rows = start(), jnp.asarray(images()), np.arange(3)
    expected = np.asarray(state.generator.params["w"])
    for step in range(4):
        state, _ = compiled()(state, data, rows)
        decay = min(DECAY, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.asarray(state.generator.params["w"])
        np.testing.assert_allclose(state.average["w"], expected, rtol=1e-5)


def test_a_module_becomes_a_player():
    """With batch statistics that move, and dropout from the key."""

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.linear = nnx.Linear(2, 2, rngs=rngs)
            self.norm = nnx.BatchNorm(2, rngs=rngs)

        def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
            return nnx.Dropout(0.5)(self.norm(self.linear(x)), rngs=key)

    model = Net(nnx.Rngs(0))
    player, state = gan.from_nnx(model, lambda m, x, key: m(x, key), optax.adam(1e-3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    outputs = [player.apply(state.params, state.variables, x, jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    assert (outputs[0][0] != outputs[2][0]).any()
    moved = jax.tree.leaves(outputs[0][1])
    assert any((a != b).any() for a, b in zip(moved, jax.tree.leaves(state.variables), strict=True))
    np.testing.assert_array_equal(model.norm.mean[...], 0)  # the module itself is left alone
    assert jax.tree.structure(state.params) == jax.tree.structure(state.opt_state[0].mu)


@pytest.mark.parametrize(
    "options", [{"average_decay": 1.0}, {"average_decay": -0.1}, {"penalty": -1.0}]
)
def test_refuses_options(options):
    with pytest.raises(ValueError, match=r"average_decay must lie in \[0, 1\) and penalty be at"):
        make(**options)


# --- training ---


@functools.cache
def averaged() -> updates.Update:
    return updates.compile_updates(make(average_decay=0.5))


def run(
    epochs: int, directory=None, update: Any = None, data: np.ndarray | None = None, **options: Any
):
    checkpoints = None if directory is None else Checkpoints(directory)
    return list(
        gan_fit.train(
            averaged() if update is None else updates.compile_updates(update),
            start(),
            images() if data is None else data,
            epochs=epochs,
            checkpoints=checkpoints,
            **({"key": KEY, "batch_size": 5} | options),
        )
    )


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_resuming_changes_no_bit(tmp_path):
    straight = run(4)[-1]
    run(2, tmp_path / "run")
    resumed = run(4, tmp_path / "run")
    assert [len(epoch.history) for epoch in resumed] == [3, 4]
    assert_same(resumed[-1].state, straight.state)
    assert resumed[-1].state.step == 4 * 2  # 12 images in batches of 5
    for ours, theirs in zip(resumed[-1].history, straight.history, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    # Nothing is left to do: the same once more.
    (done,) = run(4, tmp_path / "run")
    assert_same(done.state, straight.state)
    assert len(done.history) == 4


def test_checkpoints_at_intervals_and_at_the_end(tmp_path):
    saved = []

    class Kept(Checkpoints):
        def save(self, step: int, state: Any, notes: Any) -> None:
            saved.append(step)

    list(
        gan_fit.train(
            averaged(),
            start(),
            images(),
            key=KEY,
            epochs=5,
            batch_size=5,
            checkpoints=Kept(tmp_path / "run"),
            save_every=2,
        )
    )
    assert saved == [2, 4, 5]


def test_every_image_is_drawn_once_an_epoch():
    seen = []

    def update(state: Any, data: jax.Array, rows: jax.Array) -> Any:
        jax.debug.callback(lambda r: seen.extend(r.tolist()), rows)
        zeros = jnp.zeros(())
        return state._replace(step=state.step + 1), gan.Metrics(zeros, zeros, zeros, zeros)

    epochs = run(2, update=update, data=images(10))
    jax.effects_barrier()
    assert epochs[-1].state.step == 4
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_divergence_is_dated_and_keeps_the_checkpoint(tmp_path):
    def update(state: Any, data: jax.Array, rows: jax.Array) -> Any:
        loss = jnp.where(state.step == 3, jnp.nan, 1.0)
        state = state._replace(step=state.step + 1)
        return state, gan.Metrics(jnp.ones(()), loss, loss, loss)

    message = (
        r"not finite from update 2 of epoch 2 on; the checkpoint of epoch 1 is kept. Use a lower"
    )
    with pytest.raises(FloatingPointError, match=message):
        run(3, tmp_path / "run", update=update)
    assert Checkpoints(tmp_path / "run").latest == 1
    with pytest.raises(FloatingPointError, match="there is no checkpoint"):
        run(3, update=update)


def test_with_64_bit_types_on_everything_stays_float32():
    rows = np.array([3, 1, 7])
    with jax.enable_x64(True):
        after, metrics = make(penalty=0.1, average_decay=DECAY)(
            start(), jnp.asarray(images()), rows
        )
    leaves = jax.tree.leaves((after.generator.params, after.discriminator.params, after.average))
    assert {leaf.dtype for leaf in [*leaves, *metrics]} == {jnp.dtype(jnp.float32)}


def test_weights_that_the_last_update_breaks_are_not_kept(tmp_path):
    def update(state: Any, data: jax.Array, rows: jax.Array) -> Any:
        broken = jnp.where(state.step == 3, jnp.nan, 1.0)
        weights = jax.tree.map(lambda p: p * broken, state.discriminator.params)
        discriminator = state.discriminator._replace(params=weights)
        state = state._replace(step=state.step + 1, discriminator=discriminator)
        return state, gan.Metrics(*[jnp.ones(())] * 4)

    message = "weights are not finite after update 2 of epoch 2; the checkpoint of epoch 1 is kept"
    with pytest.raises(FloatingPointError, match=message):
        run(2, tmp_path / "run", update=update)
    assert Checkpoints(tmp_path / "run").latest == 1


def test_refuses_data_that_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="batch_size 5 exceeds the 4 images"):
        run(1, data=images(4))
    with pytest.raises(
        ValueError, match=r"images must be uint8 \[N, H, W, C\], at least one, got float64 \[12, 2"
    ):
        run(1, data=images() / 255)
    run(1, tmp_path / "run")
    rest = {"w": jnp.zeros((3, 9))}
    other = start()._replace(average=rest)
    with pytest.raises(
        ValueError, match=r"not one of these networks for images \[2, 2, 1\].*other"
    ):
        next(
            gan_fit.train(
                averaged(),
                other,
                images(),
                key=KEY,
                epochs=2,
                batch_size=5,
                checkpoints=Checkpoints(tmp_path / "run"),
            )
        )


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    run(1, tmp_path / "run", settings={"rate": 0.3})
    for name, options in {
        "keys": {"key": jax.random.fold_in(KEY, 1)},
        "checksum of the data": {"data": 255 - images()},
        "rate": {"settings": {"rate": 0.1}},
        "batch_size": {"batch_size": 6},
        "steps_per_epoch": {"steps_per_epoch": 3},
    }.items():
        message = f"gan_fit.train: checkpoint 1 is of another run: {name} is"
        with pytest.raises(ValueError, match=message):
            run(2, tmp_path / "run", **({"settings": {"rate": 0.3}} | options))
    with pytest.raises(ValueError, match="was trained up to 1 before, and this call ends with 0"):
        run(0, tmp_path / "run", settings={"rate": 0.3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_epoch": 0}, "steps_per_epoch and save_every must be at least 1, got 0 and 1"),
        ({"steps_per_epoch": -1}, "must be at least 1, got -1 and 1; without steps_per_epoch"),
        ({"save_every": 0}, "must be at least 1, got None and 0"),
        ({"batch_size": 0}, "batch_size 0 is not positive"),
    ],
)
def test_refuses_numbers_below_one(options, message):
    with pytest.raises(ValueError, match=message):
        run(1, **options)


# --- augmentation, sets as other pytrees, keys in the state ---


def brighter(key: jax.Array, x: jax.Array, probability: jax.Array) -> jax.Array:
    return x + probability * jax.random.uniform(key, (len(x), 1, 1, 1))


def test_what_is_off_changes_no_bit():
    """Nothing, an augmentation that does nothing, and the key in the state instead of the update."""
    data, rows = jnp.asarray(images()), np.array([3, 1, 7])
    plain, metrics = compiled(penalty=0.7)(start(), data, rows)
    idle = gan.Augmentation(lambda key, x, probability: x)
    other = gan.make_update(
        *players(),
        latent_shape=LATENT,
        key=None,
        penalty=0.7,
        augmentation=idle,
        average_decay=DECAY,
    )
    before = start()._replace(probability=jnp.zeros(()), key=KEY)
    after, other_metrics = jax.jit(other)(before, data, rows)
    assert_same(after[:4], plain[:4])
    assert_same(other_metrics, metrics)
    assert after.probability == 0
    assert after.key == KEY
    assert (
        len(jax.tree.leaves(plain))
        == len(jax.tree.leaves(start()))
        == len(jax.tree.leaves(before)) - 2
    )


def test_real_and_generated_images_are_augmented_in_both_steps():
    before = start()._replace(probability=jnp.array(0.5))
    data, rows = images(), np.array([3, 1, 7])
    update = jax.jit(make(augmentation=gan.Augmentation(brighter), penalty=0.4))
    after, metrics = update(before, jnp.asarray(data), rows)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 7)
    real = jnp.asarray(data[rows] / 255, jnp.float32)
    z_d, z_g = (jax.random.normal(keys[i], (3, *LATENT)) for i in (0, 4))

    def seen(x: jax.Array, key: jax.Array) -> jax.Array:
        return brighter(jax.random.fold_in(key, 1), x, 0.5)

    def d_loss(params: Any) -> jax.Array:
        def on_real(x: jax.Array) -> jax.Array:
            return discriminate(params, 0, seen(x, keys[2]), KEY)[0]

        fake = generate(before.generator.params, 0, z_d, KEY)[0]
        on_fake = discriminate(params, 0, seen(fake, keys[3]), KEY)[0]
        slope = gan.gradient_penalty(on_real, real)
        return losses.discriminator(on_real(real), on_fake) + 0.2 * slope

    loss, gradient = jax.jit(jax.value_and_grad(d_loss))(before.discriminator.params)
    adam = optax.adam(0.1)
    changes, _ = adam.update(gradient, adam.init(gradient))
    d_params = optax.apply_updates(before.discriminator.params, changes)

    def g_loss(params: Any) -> jax.Array:
        fake = generate(params, 0, z_g, KEY)[0]
        return losses.generator(discriminate(d_params, 0, seen(fake, keys[6]), KEY)[0])

    other_loss, gradient = jax.jit(jax.value_and_grad(g_loss))(before.generator.params)
    g_params = jax.tree.map(lambda p, slope: p - 0.3 * slope, before.generator.params, gradient)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(metrics.discriminator_loss, loss)
    close(metrics.generator_loss, other_loss)
    jax.tree.map(close, after.generator.params, g_params)
    assert after.probability == 0.5  # nothing adapts it


def test_the_probability_is_told_the_logits_of_the_real_images():
    def adapt(probability: jax.Array, logits: jax.Array) -> jax.Array:
        return probability + logits.sum()

    augmentation = gan.Augmentation(lambda key, x, probability: x, adapt)
    update = jax.jit(make(augmentation=augmentation))
    before = start()._replace(probability=jnp.array(0.25))
    data, rows = images(), np.array([3, 1, 7])
    after, _ = update(before, jnp.asarray(data), rows)
    real = jnp.asarray(data[rows] / 255, jnp.float32)
    logits = discriminate(before.discriminator.params, 0, real, KEY)[0]
    np.testing.assert_allclose(after.probability, 0.25 + logits.sum(), rtol=1e-5)
    # Without a decay the average is the generator itself.
    np.testing.assert_array_equal(after.average["w"], after.generator.params["w"])


def test_a_state_is_created_with_what_the_update_lacks():
    generator, discriminator = start()[:2]
    state = gan.create(generator, discriminator, probability=0.5, key=KEY)
    assert (state.probability, state.key, state.step) == (0.5, KEY, 0)
    assert state.probability.dtype == jnp.float32
    jax.jit(lambda state: state, donate_argnums=0)(state)
    assert state.average["w"].is_deleted()
    assert not KEY.is_deleted()  # training donates the state, not what the caller gave
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((generator, discriminator)))
    state = gan.create(generator, discriminator, probability=0.5, key=KEY)
    bare = gan.create(generator, discriminator)
    assert bare.probability is None
    assert bare.key is None
    data, rows = jnp.asarray(images()), np.arange(3)
    idle = gan.Augmentation(lambda key, x, probability: x)
    for options, wrong, message in (
        ({}, state, "the state has a probability, and there is no augmentation"),
        ({}, state._replace(probability=None), "there are two keys, make_update's and the state's"),
        ({"augmentation": idle}, bare, "the state has no probability for it"),
        (
            {"augmentation": idle, "key": None},
            bare._replace(probability=jnp.zeros(())),
            "make_update: there is no key",
        ),
    ):
        update = gan.make_update(*players(), **({"latent_shape": LATENT, "key": KEY} | options))
        with pytest.raises(ValueError, match=message):
            update(wrong, data, rows)


def test_batches_may_be_taken_from_anything():
    data = {"bank": images(), "order": np.arange(12)[::-1].copy()}

    def take(data: Any, rows: jax.Array) -> jax.Array:
        return data["bank"][data["order"][rows]]

    kwargs = {"key": KEY, "epochs": 2, "batch_size": 5}
    plain = run(2, data=data["bank"][::-1].copy())[-1]
    *_, other = gan_fit.train(
        updates.compile_updates(make(average_decay=0.5, take=take)),
        *(start(), data),
        num_images=12,
        **kwargs,
    )
    assert_same(other.state, plain.state)
    with pytest.raises(ValueError, match="num_images is needed where images is not one array, got"):
        next(gan_fit.train(averaged(), start(), data, **kwargs))


def test_the_length_of_an_epoch_is_free(tmp_path, monkeypatch):
    """Three epochs of four updates are six passes of two; a resumed run is the same."""
    monkeypatch.setattr(
        chunking, "updates_per_call", lambda *_: 1
    )  # one program for all, so to the bit
    passes = run(6)[-1]
    long = run(3, steps_per_epoch=4)
    assert [len(epoch.history) for epoch in long] == [1, 2, 3]
    assert_same(long[-1].state, passes.state)
    run(1, tmp_path / "run", steps_per_epoch=4)
    resumed = run(3, tmp_path / "run", steps_per_epoch=4)
    assert_same(resumed[-1].state, passes.state)


def test_probability_and_key_survive_a_checkpoint(tmp_path):
    augmentation = gan.Augmentation(brighter, lambda p, logits: p + 0.125)
    update = updates.compile_updates(
        gan.make_update(*players(), latent_shape=LATENT, key=None, augmentation=augmentation)
    )

    def epochs(number: int, directory: Any) -> list[gan_fit.Progress]:
        state = start()._replace(probability=jnp.zeros(()), key=jax.random.fold_in(KEY, 11))
        return list(
            gan_fit.train(
                update,
                state,
                images(),
                key=KEY,
                epochs=number,
                batch_size=5,
                checkpoints=Checkpoints(directory),
            )
        )

    straight = epochs(2, tmp_path / "straight")[-1].state
    epochs(1, tmp_path / "run")
    resumed = epochs(2, tmp_path / "run")[-1].state
    assert resumed.probability == straight.probability == 0.5
    assert resumed.key == jax.random.fold_in(KEY, 11)
    assert_same(resumed[:4], straight[:4])


def test_more_rows_than_an_augmented_set_has_are_refused():
    table = augmented_set.build(jax.random.key(0), originals=4, available=12)
    rows = augmented_set.AugmentedSet(images(), table)
    with pytest.raises(ValueError, match="num_images must be at most the 4 rows of the set, got 5"):
        run(1, data=rows, num_images=5)
    with pytest.raises(ValueError, match="at most the 12 rows of the images, got 13; leave it out"):
        run(1, data=images(), num_images=13)


def test_float_images_are_refused_whatever_the_number_of_rows():
    """They would be divided by 255 once more."""
    for options in ({}, {"num_images": 6}):
        with pytest.raises(
            ValueError, match=r"must be uint8 .*to_uint8\(images\) makes such images of floats"
        ):
            run(1, data=images() / np.float32(255), **options)


class Normalised(nnx.Module):
    """A generator whose batch normalisation sees z."""

    latent_shape = (3,)

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.scale = nnx.Param(jnp.ones(3))
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)

    def __call__(self, z):
        return self.norm(5 + 2 * self.scale * z)


def test_the_settled_generator_has_the_average_and_its_statistics():
    model = Normalised()
    player, generator = gan.from_nnx(model, lambda model, z, key: model(z), optax.sgd(0.1))
    state = gan.create(generator, generator)
    average = jax.tree.map(lambda x: 3 * x, state.average)
    settled = gan.settled(
        player, state._replace(average=average), latent_shape=(3,), batch_size=500, passes=100
    )
    trained = gan.to_nnx(model, settled)
    np.testing.assert_allclose(trained.scale[...], 3 * model.scale[...])
    np.testing.assert_allclose(trained.norm.mean[...], 5, atol=0.3)
    np.testing.assert_allclose(trained.norm.var[...], 36, rtol=0.1)
    before = np.asarray(trained.norm.mean[...])
    trained(jnp.zeros((4, 3)))  # in inference mode nothing changes
    np.testing.assert_array_equal(trained.norm.mean[...], before)
    np.testing.assert_array_equal(model.norm.mean[...], 0)  # left as it was
