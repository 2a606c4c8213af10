"""What is wired wrongly is refused at the door, and each remedy that a message names works."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.data import augmented_set, sources
from outgen_jax.data.differentiable_augment import differentiable_augment
from outgen_jax.models import attention, draw
from outgen_jax.training import gan, gan_fit, gan_game, gan_samples, updates
from outgen_jax.training.checkpoints import Checkpoints

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
ADAM = optax.adam(1e-3)
ROWS = np.arange(4)[None]  # of one batch


class Generator(nnx.Module):
    """A linear map and, unless another one is given, a sigmoid."""

    latent_shape = (3,)

    def __init__(self, shape=(8, 8, 1), end=jax.nn.sigmoid):
        self.shape, self.end = shape, end
        self.linear = nnx.Linear(3, int(np.prod(shape)), rngs=nnx.Rngs(0))

    def __call__(self, z):
        return self.end(self.linear(z)).reshape(-1, *self.shape)


class Discriminator(nnx.Module):
    """A linear map."""

    def __init__(self, shape=(8, 8, 1), units=1):
        self.linear = nnx.Linear(int(np.prod(shape)), units, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(x.reshape(len(x), -1))[:, 0]


def as_it_is(model: Any, x: Any, key: Any) -> Any:
    return model(x)


def column(model: Any, x: Any, key: Any) -> Any:
    return model.linear(x.reshape(len(x), -1))


def traced(
    generator: Any = None,
    discriminator: Any = None,
    *,
    images: Any = IMAGES,
    rows: Any = np.arange(4),  # noqa: B008 (never changed)
    generate: Any = as_it_is,
    judge: Any = as_it_is,
    create: Any = None,
    **options: Any,
) -> None:
    """Puts a game together step by step, and traces one update."""
    g, g_state = gan.from_nnx(generator or Generator(), generate, ADAM)
    d, d_state = gan.from_nnx(discriminator or Discriminator(), judge, ADAM)
    update = gan.make_update(g, d, **({"latent_shape": (3,), "key": KEY} | options))
    jax.eval_shape(update, gan.create(g_state, d_state, **(create or {})), images, rows)


def augmentation() -> gan.Augmentation:
    return gan.Augmentation(differentiable_augment)


def drawing(**options: Any) -> dict[str, Any]:
    sizes = {"steps": 2, "units": 4, "points": 3, "rngs": nnx.Rngs(0)}
    return {
        "generator": draw.Generator((8, 8, 1), latent=3, **sizes),
        "discriminator": draw.Discriminator((8, 8, 1), **sizes),
        "generate": lambda model, z, key: model(z).images,
        "judge": lambda model, images, key: model(images)[0],
        "latent_shape": (2, 3),
        **options,
    }


def thirds() -> np.ndarray:
    return np.repeat(IMAGES, 3, -1)


def grey() -> np.ndarray:
    return sources.ImageSource(thirds(), None, None, ()).with_channels(1).images


# What is wrong, what the message says, and the remedy that it names.
WIRING = {
    "a probability alone": (
        {"create": {"probability": 1.0}},
        "has a probability, and there is no augmentation; pass augmentation= to make_update, or leave",
        [{"create": {"probability": 1.0}, "augmentation": augmentation()}, {}],
    ),
    "an augmentation alone": (
        {"augmentation": augmentation()},
        "no probability for it; pass probability= to create, such as 1.0",
        [{"create": {"probability": 1.0}, "augmentation": augmentation()}],
    ),
    "a probability above 1": (
        {"create": {"probability": 2.0}, "augmentation": augmentation()},
        r"gan.create: probability must lie in \[0, 1\], got 2.0; 1.0 changes every image",
        [{"create": {"probability": p}, "augmentation": augmentation()} for p in (1.0, 0.0)],
    ),
    "a bare augmentation": (
        {"create": {"probability": 1.0}, "augmentation": differentiable_augment},
        r"must be a gan.Augmentation, got function; wrap the function, gan.Augmentation\(diff",
        [{"create": {"probability": 1.0}, "augmentation": augmentation()}],
    ),
    "an augmentation of two arguments": (
        {"create": {"probability": 1.0}, "augmentation": gan.Augmentation(lambda key, x: x)},
        "augmentation must take 3 arguments, key, images, probability, got one of .*; write lambda",
        [
            {
                "create": {"probability": 1.0},
                "augmentation": gan.Augmentation(lambda key, images, probability: images),
            }
        ],
    ),
    "an augmentation that crops": (
        {
            "create": {"probability": 1.0},
            "augmentation": gan.Augmentation(lambda key, x, p: x[:, 1:]),
        },
        r"must keep the shape \[4, 8, 8, 1\] of the images, got float32 \[4, 7, 8, 1\]; crop and res",
        [
            {
                "create": {"probability": 1.0},
                "augmentation": gan.Augmentation(
                    lambda key, x, p: jax.image.resize(x[:, 1:], x.shape, "bilinear")
                ),
            }
        ],
    ),
    "no key": (
        {"key": None},
        r"there is no key; pass key=jax.random.key\(0\) to make_update, or to create",
        [{"key": jax.random.key(0)}, {"key": None, "create": {"key": jax.random.key(0)}}],
    ),
    "two keys": (
        {"create": {"key": KEY}},
        "there are two keys, .*; leave key out of create, or pass key=None to make_update",
        [{}, {"key": None, "create": {"key": KEY}}],
    ),
    "a number as key": (
        {"key": 0},
        r"make_update: key must be a random key, got 0; pass jax.random.key\(0\)",
        [{"key": jax.random.key(0)}],
    ),
    "images of another size": (
        {"images": np.zeros((12, 6, 6, 1), np.uint8)},
        r"images are \[8, 8, 1\], those of the data \[6, 6, 1\]; build both networks for images \[6, "
        r"6, 1\], or read .* by outgen_jax.data.sources.load\(..., size=\(8, 8\)\)",
        [
            {
                "images": np.zeros((12, 6, 6, 1), np.uint8),
                "generator": Generator((6, 6, 1)),
                "discriminator": Discriminator((6, 6, 1)),
            }
        ],
    ),
    "images of other channels": (
        {"images": thirds()},
        r"images are \[8, 8, 1\], those of the data \[8, 8, 3\]; .* by source.with_channels\(1\)",
        [{"images": grey()}],
    ),
    "a discriminator for other images": (
        {"discriminator": Discriminator((6, 6, 1))},
        r"the discriminator fails on images \[4, 8, 8, 1\]: dot_general.* Build it for images \[8, 8",
        [{"discriminator": Discriminator((8, 8, 1))}],
    ),
    "floats": (
        {"images": IMAGES / np.float32(255)},
        r"must be uint8, got float32 \[4, 8, 8, 1\]; outgen_jax.data.to_uint8 makes such images",
        [{"images": sources.ImageSource(IMAGES, None, None, ()).images}],
    ),
    "latent vectors of another length": (
        {"latent_shape": (4,)},
        r"the generator fails on latent vectors \[4, 4\]: dot_general.* such as generator.latent_shape",
        [{"latent_shape": Generator.latent_shape}],
    ),
    "a length as latent_shape": (
        {"latent_shape": 3},
        r"latent_shape must be a tuple, .* got 3; vectors of length 100 have the shape \(100,\)",
        [{"latent_shape": (3,)}],
    ),
    "logits in a column": (
        {"judge": column},
        r"must return logits \[4\], one for each image, got float32 \[4, 1\]; take the only column, lo",
        [{"judge": lambda model, x, key: column(model, x, key)[:, 0]}],
    ),
    "two logits for each image": (
        {"discriminator": Discriminator(units=2), "judge": column},
        r"got float32 \[4, 2\]; end the discriminator in a layer of one unit, and take its column, lo",
        [{"judge": lambda model, x, key: column(model, x, key)[:, 0]}],
    ),
    "a mean of logits": (
        {"judge": lambda model, x, key: model(x).mean()},
        r"one for each image, got float32 \[\]; leave out the mean over the batch",
        [{"judge": lambda model, x, key: model(x)}],
    ),
    "logits among other things": (
        drawing(judge=as_it_is),
        r"got tuple of float32 \[4\], .*; take the logits out of it, such as model\(images\)\[0\]",
        [drawing()],
    ),
    "images among other things": (
        drawing(generate=as_it_is),
        r"one array of floats, got Drawing of .* for 4 latent vectors; take the images out of it, such",
        [drawing()],
    ),
    "a call of two arguments": (
        {"generate": lambda model, z: model(z)},
        r"from_nnx: call must take 3 arguments, model, x, key, got one of \(model, z\); write lambda m",
        [{"generate": lambda model, x, key: model(x)}],
    ),
    "a learning rate as optimiser": (
        {"rate": 1e-3},
        r"from_nnx: optimizer must be one of optax, got 0.001; pass optax.adam\(2e-4, b1=0.5\)",
        [{"rate": optax.adam(2e-4, b1=0.5)}],
    ),
    "rows of several batches": (
        {"rows": np.zeros((1, 4), int)},
        r"the rows \[B\] of one batch, got \[1, 4\]; updates.compile_updates\(update\) makes the function",
        [{"rows": np.zeros(4, int)}],
    ),
}


@pytest.mark.parametrize("name", WIRING)
def test_wrong_wiring_is_named_with_a_remedy_that_works(name):
    wrong, message, remedies = WIRING[name]

    def run(options: dict[str, Any]) -> None:
        rate = options.get("rate")
        if rate is not None:
            gan.from_nnx(Generator(), as_it_is, rate)
        traced(**{k: v for k, v in options.items() if k != "rate"})

    with pytest.raises(ValueError, match=message):
        run(wrong)
    for remedy in remedies:
        run(remedy)


def test_players_and_their_states_are_not_mistaken_for_one_another():
    generator, discriminator = (
        gan.from_nnx(model, as_it_is, ADAM) for model in (Generator(), Discriminator())
    )
    with pytest.raises(ValueError, match=r"must be a gan.PlayerState, got the pair; gan.from_nnx"):
        gan.create(generator, discriminator)
    options = {"latent_shape": (3,), "key": KEY}
    with pytest.raises(
        ValueError, match=r"generator must be a gan.Player, got Generator; gan.from"
    ):
        gan.make_update(Generator(), Discriminator(), **options)
    with pytest.raises(ValueError, match=r"model must be a flax.nnx module, got function"):
        gan.from_nnx(as_it_is, as_it_is, ADAM)
    swapped = gan.make_update(discriminator[0], generator[0], **options)
    with pytest.raises(
        ValueError, match=r"the generator fails on latent vectors .* of one and the"
    ):
        jax.eval_shape(swapped, gan.create(discriminator[1], generator[1]), IMAGES, np.arange(4))
    update = gan.make_update(generator[0], discriminator[0], **options)
    jax.eval_shape(update, gan.create(generator[1], discriminator[1]), IMAGES, np.arange(4))


# --- the epochs ---


@functools.cache
def games() -> dict[str, Any]:
    """A trained game, and what is left of it."""
    game = gan_game.create(Generator(), Discriminator(), ADAM, key=KEY, average_decay=0.5)
    yielded = [epoch.state for epoch in train(game)]
    return {"game": game, "yielded": yielded}


def train(game: gan_game.Game, **options: Any) -> Any:
    options = {"key": KEY, "epochs": 2, "batch_size": 4, "images": IMAGES} | options
    return list(gan_fit.train(options.pop("update", game.update), game.state, **options))


def fresh() -> gan_game.Game:
    """The same game before it is trained; its compiled update is shared."""
    state = gan_game.create(Generator(), Discriminator(), ADAM, key=KEY).state
    return games()["game"]._replace(state=state)


@pytest.mark.parametrize(
    ("wrong", "message", "remedy"),
    [
        (
            {"batch_size": 13},
            "gan_fit.train: batch_size 13 exceeds the 12 images; use one from 1",
            12,
        ),
        (
            {"epochs": 2.5},
            r"epochs must be an integer, got 2.5 of type float; round it with int\(",
            2,
        ),
        ({"key": None}, r"key must be a random key, got None; pass jax.random.key\(0\)", KEY),
        (
            {"key": 0},
            r"gan_fit.train: key must be a random key, got 0; pass jax.random.key\(0\)",
            KEY,
        ),
        (
            {"images": list(IMAGES)},
            r"got list; make one of a list by numpy.stack",
            np.stack(IMAGES),
        ),
        (
            {"images": sources.ImageSource(IMAGES, None, None, ())},
            "got ImageSource; pass source.images, the array of it",
            IMAGES,
        ),
    ],
)
def test_a_wrong_argument_of_the_epochs_is_named(wrong, message, remedy):
    with pytest.raises(ValueError, match=message):
        train(fresh(), **wrong)
    (name,) = wrong
    assert len(train(fresh(), **{name: remedy, "epochs": 1})) == 1


def test_an_update_must_be_compiled_for_batches():
    (g, g_state), (d, d_state) = (
        gan.from_nnx(model, as_it_is, ADAM) for model in (Generator(), Discriminator())
    )
    update = gan.make_update(g, d, latent_shape=(3,), key=KEY)
    with pytest.raises(
        ValueError, match=r"must be compiled; pass updates.compile_updates\(update\)"
    ):
        train(fresh(), update=update)
    with pytest.raises(ValueError, match=r"got \[1, 4\]; updates.compile_updates\(update\) makes"):
        train(fresh(), update=jax.jit(update))
    compiled = updates.compile_updates(update)
    rows = np.arange(4)
    with pytest.raises(
        ValueError, match=r"takes the rows \[n, B\] of n batches, got \[4\]; pass rows"
    ):
        jax.eval_shape(compiled, gan.create(g_state, d_state), IMAGES, rows)
    jax.eval_shape(compiled, gan.create(g_state, d_state), IMAGES, rows[None])


def test_a_folder_in_place_of_checkpoints_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"must be checkpoints.Checkpoints, got '(.*)'; pass Check"
    ):
        train(fresh(), checkpoints=str(tmp_path))
    train(fresh(), checkpoints=Checkpoints(str(tmp_path)))


def test_a_state_that_was_given_away_is_refused():
    game, (old, new) = games()["game"], games()["yielded"]
    with pytest.raises(
        ValueError, match=r"used before, .*; make another by gan.create, or go on from"
    ):
        train(game)
    assert len(train(fresh())) == 2
    newest = "its buffers were given away; use the newest state, the one that the last update"
    with pytest.raises(ValueError, match=f"to_nnx: .*{newest}"):
        gan.to_nnx(Generator(), old.generator)
    with pytest.raises(ValueError, match=f"settled: .*{newest}"):
        gan.settled(game.player, old, latent_shape=(3,))
    gan.to_nnx(Generator(), new.generator)
    gan.settled(game.player, new, latent_shape=(3,), passes=2)


def tanh_in_unit(x: jax.Array) -> jax.Array:
    return (jnp.tanh(x) + 1) / 2


def test_a_generator_of_another_range_is_refused_before_it_trains():
    def game(end: Any) -> gan_game.Game:
        return gan_game.create(Generator(end=end), Discriminator(), ADAM, key=KEY)

    with pytest.raises(
        ValueError, match=r"must lie in \[0, 1\], .* from -.*; end the generator in"
    ):
        train(game(jnp.tanh))
    for end in (jax.nn.sigmoid, tanh_in_unit):
        made = game(end)
        made.update.check(made.state)


# --- samples ---


def test_a_state_of_another_network_is_refused():
    state = games()["yielded"][-1]
    for wrong, message in (
        (state, "state must be a gan.PlayerState, got GameState; pass gan.settled"),
        (state.average, "state must be a gan.PlayerState, got State; pass gan.settled"),
        (
            state.discriminator,
            r"bias.* is \[1\] in the state and \[64\] in the network; pass the net",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            gan.to_nnx(Generator(), wrong)
    with pytest.raises(
        ValueError, match=r"of the Generator: .* is \[64\] in the state and \[36\] in"
    ):
        gan.to_nnx(Generator((6, 6, 1)), state.generator)
    settled = gan.settled(games()["game"].player, state, latent_shape=(3,), passes=2)
    for player in (settled, state.generator):
        assert gan.to_nnx(Generator(), player)(jnp.zeros((1, 3))).shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"latent_shape": (4,)},
            r"settled: the generator fails on latent vectors \[64, 4\]: .* Pass",
        ),
        ({"latent_shape": 3}, "settled: latent_shape must be a tuple"),
        (
            {"passes": 0},
            "settled: batch_size and passes must be at least 1, got 64 and 0; the defau",
        ),
    ],
)
def test_settled_refuses_what_does_not_fit(options, message):
    game, state = games()["game"], games()["yielded"][-1]
    with pytest.raises(ValueError, match=message):
        gan.settled(game.player, state, **({"latent_shape": (3,)} | options))
    discriminator, _ = gan.from_nnx(Discriminator(), as_it_is, ADAM)
    with pytest.raises(ValueError, match="settled: the generator"):
        gan.settled(discriminator, state, latent_shape=(3,))


def test_samples_are_the_same_whatever_their_number():
    generator = Generator()
    few, many = (gan_samples.latent_vectors(KEY, number, (3,)) for number in (3, 7))
    np.testing.assert_array_equal(few, many[:3])
    assert np.unique(many).size == many.size
    sample = functools.partial(gan_samples.sample, generator, batch_size=4)
    np.testing.assert_array_equal(sample(few), sample(many)[:3])
    expected = np.rint(255 * np.asarray(generator(many)))
    assert np.abs(sample(many) - expected).max() <= 1
    inverted = sample(many, generate=lambda model, z: 1 - model(z))
    assert np.abs(inverted - (255 - expected)).max() <= 1


def test_samples_refuse_what_does_not_fit():
    generator, z = Generator(), gan_samples.latent_vectors(KEY, 2, (3,))
    for wrong, message in (
        (
            {"z": jnp.zeros((2, 4))},
            r"sample: the generator fails on latent vectors \[100, 4\]: .* such",
        ),
        (
            {"z": z[:0]},
            "needs at least one latent vector and a batch_size of at least 1, got 0 and",
        ),
        ({"batch_size": 0}, "at least 1, got 2 and 0"),
        ({"generator": games()["yielded"][-1]}, r"got GameState; gan.to_nnx\(model, gan.settled"),
        ({"generator": Generator(end=jnp.tanh)}, r"to_uint8: images must lie in \[0, 1\]"),
        ({"generator": Discriminator((3, 1, 1))}, "one array of floats, got float32"),
    ):
        with pytest.raises(ValueError, match=message):
            gan_samples.sample(**({"generator": generator, "z": z} | wrong))
    with pytest.raises(ValueError, match="latent_vectors: number must be at least 1, got 0"):
        gan_samples.latent_vectors(KEY, 0, (3,))


# --- games ---


def test_a_game_is_what_its_parts_make():
    game = gan_game.create(
        Generator(), Discriminator(), ADAM, key=KEY, average_decay=0.5, penalty=0.3
    )
    g, g_state = gan.from_nnx(Generator(), as_it_is, ADAM)
    d, d_state = gan.from_nnx(Discriminator(), as_it_is, ADAM)
    update = gan.make_update(g, d, latent_shape=(3,), key=KEY, average_decay=0.5, penalty=0.3)
    expected = updates.compile_updates(update)(gan.create(g_state, d_state), IMAGES, ROWS)
    jax.tree.map(np.testing.assert_array_equal, game.update(game.state, IMAGES, ROWS), expected)


def test_a_game_trains_networks_in_training_mode_and_leaves_them_alone():
    model = Normalised()
    model.eval()
    game = gan_game.create(model, Discriminator(), ADAM, key=KEY)
    _, variables = game.player.apply(*game.state.generator[:2], jnp.ones((4, 3)), KEY)
    before = jax.tree.leaves(game.state.generator.variables)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(variables), before, strict=True))
    assert model.norm.use_running_average


class Normalised(Generator):
    """With batch normalisation."""

    def __init__(self):
        super().__init__()
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, z):
        return super().__call__(self.norm(z))


def test_a_generator_without_a_latent_shape_needs_one():
    class Bare(nnx.Module):
        def __init__(self):
            self.inner = Generator()

        def __call__(self, z):
            return self.inner(z)

    create = functools.partial(gan_game.create, Bare(), Discriminator(), ADAM, key=KEY)
    with pytest.raises(
        ValueError, match=r"Bare has no attribute latent_shape; pass latent_shape=, su"
    ):
        create()
    assert create(latent_shape=(3,)).latent_shape == (3,)


# --- help ---


def test_help_explains_every_field():
    kinds = (gan.Player, gan.PlayerState, gan.GameState, gan.Metrics, gan.Augmentation)
    kinds += (gan_fit.Progress, gan_game.Game, draw.Drawing, attention.Attention, attention.Glance)
    kinds += (augmented_set.Table, augmented_set.AugmentedSet, augmented_set.Origin)
    for kind in kinds:
        _, _, explained = kind.__doc__.partition("Attributes:\n")
        assert re.findall(r"^ {6}(\w+): \S", explained, re.MULTILINE) == list(kind._fields), kind
