"""GAN training: one alternating update of a generator and a discriminator.

The data set stays on the device as uint8 [N, H, W, C]; networks see images [B, H, W, C] float32 in [0, 1]. Everything
random is a function of (key, step), so that a resumed run is the uninterrupted one, bit for bit.

Source: the game of Goodfellow et al., "Generative Adversarial Nets", 2014, as papers B and C play it: one step of the
discriminator on a batch of real and one of generated images, then one of the generator on another.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from outgen_jax import losses
from outgen_jax.training import gan_checks, updates
from outgen_jax.whole_numbers import check_integers

M = TypeVar("M", bound=nnx.Module)

_LOOKED_AT = 16  # generated images whose range is checked before a training
_PLAYER = "gan.from_nnx returns the pair of it and its first state"
_STATE = "gan.from_nnx returns the pair of a player and this state"
_NEWEST = "use the newest state, the one that the last update returned"

# (params, variables, x [B, ...], key) -> output, variables. The variables change without a gradient, as the statistics
# of batch normalisation do; the key is for dropout and the like.
PlayerApply = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Player(NamedTuple):
    """A network in training mode and its optimiser: two functions, which stay the same.

    Attributes:
      apply: `apply(params, variables, x, key) -> output, variables`. Of a generator: latent vectors [B, *latent_shape]
        to images [B, H, W, C] in [0, 1]; of a discriminator: images to logits [B].
      optimizer: of its parameters.
    """

    apply: PlayerApply
    optimizer: optax.GradientTransformation


class PlayerState(NamedTuple):
    """All arrays of a player that change during training.

    Attributes:
      params: pytree of what the optimiser changes.
      variables: pytree of what changes without a gradient, such as the statistics of batch normalisation.
      opt_state: of the optimiser.
    """

    params: Any
    variables: Any
    opt_state: optax.OptState


class GameState(NamedTuple):
    """All arrays that change during training.

    Attributes:
      generator: its parameters, variables and optimiser.
      discriminator: the same of the discriminator.
      average: moving average of the generator's parameters, a pytree like them.
      step: updates done, [] int32.
      probability: with which the augmentation changes an image, [] float32 in [0, 1]. None: there is no augmentation.
      key: of everything random, where `make_update` has none.
    """

    generator: PlayerState
    discriminator: PlayerState
    average: Any
    step: jax.Array
    probability: Any = None
    key: jax.Array | None = None


class Metrics(NamedTuple):
    """Means over the batches of an update, [] each; [updates] each where several were made.

    Attributes:
      discriminator_loss: in nats, with γ/2 R₁ where there is a penalty. Without, it is 2 log 2 = 1.39 if the
        discriminator cannot tell real images from generated ones.
      generator_loss: in nats; log 2 = 0.69 in that case.
      real: D(x), the probability of being real that real images are given, in [0, 1].
      fake: D(G(z)), that of generated images before the discriminator's step, in [0, 1].
    """

    discriminator_loss: jax.Array
    generator_loss: jax.Array
    real: jax.Array
    fake: jax.Array


Update = Callable[[GameState, Any, jax.Array], tuple[GameState, Metrics]]


class Augmentation(NamedTuple):
    """A change of all images, real and generated, before the discriminator sees them (Zhao et al. 2020).

    Attributes:
      apply: `apply(key, images, probability) -> images`, float [B, H, W, C] in [0, 1], such as
        `og.data.differentiable_augment.differentiable_augment`. The probability, [] in [0, 1], is that of the state.
      adapt: `adapt(probability, real_logits) -> probability`, the next one, from the logits [B] of the real images
        (Karras et al. 2020), such as `og.data.differentiable_augment.adapt`. None: it stays the same.
    """

    apply: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    adapt: Callable[[jax.Array, jax.Array], jax.Array] | None = None


def take_rows(images: jax.Array, rows: jax.Array) -> jax.Array:
    """The batch images[rows]: [N, H, W, C], [B] -> [B, H, W, C].

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import gan
    >>> gan.take_rows(jnp.zeros((5, 8, 8, 1)), jnp.array([3, 1])).shape
    (2, 8, 8, 1)
    """
    return images[rows]


def gradient_penalty(logits_of: Callable[[jax.Array], jax.Array], real: jax.Array) -> jax.Array:
    """R₁: the mean over real images of |∂ logit / ∂ image|² (Mescheder et al. 2018, who multiply it by γ/2).

    Args:
      logits_of: images [B, H, W, C] -> logits [B], each of its own image alone.
      real: images [B, H, W, C].

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import gan
    >>> images, weights = jnp.zeros((4, 2, 1, 1)), jnp.array([3.0, 4.0])
    >>> print(gan.gradient_penalty(lambda x: x[:, :, 0, 0] @ weights, images))
    25.0
    """
    slope = jax.grad(lambda x: logits_of(x).sum())(real)
    return jnp.mean(jnp.sum(slope**2, axis=tuple(range(1, slope.ndim))))


def from_nnx(
    model: nnx.Module,
    call: Callable[[Any, jax.Array, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
) -> tuple[Player, PlayerState]:
    """A player and its first state from a Flax NNX module, in the mode that the module is in.

    Args:
      model: the network; it is left as it is.
      call: `call(model, x, key) -> output`, the call of the network in training.
      optimizer: of its parameters.

    Raises:
      ValueError: what is no `flax.nnx` module or no optimiser of optax, or a `call` of other arguments.

    >>> import optax
    >>> from flax import nnx
    >>> from outgen_jax.training import gan
    >>> model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    >>> player, state = gan.from_nnx(model, lambda model, x, key: model(x)[:, 0], optax.adam(1e-3))
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"from_nnx: model must be a flax.nnx module, got {type(model).__name__}; of another network, make the "
            "gan.Player and gan.PlayerState yourself"
        )
    if not hasattr(optimizer, "init"):
        raise ValueError(
            f"from_nnx: optimizer must be one of optax, got {optimizer!r}; pass optax.adam(2e-4, b1=0.5), with a rate "
            "of your choice"
        )
    gan_checks.check_arguments(call, ("model", "x", "key"), "from_nnx: call")
    graphdef, *states = nnx.split(model, nnx.Param, ...)
    params, variables = states

    def apply(params: Any, variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        network = nnx.merge(graphdef, params, variables, copy=True)
        output = call(network, x, key)
        return output, nnx.state(network, nnx.Not(nnx.Param))

    return Player(apply, optimizer), PlayerState(params, variables, optimizer.init(params))


def to_nnx(model: M, state: PlayerState) -> M:
    """A copy of `model` in inference mode with the arrays of a player that `from_nnx` made of it.

    Args:
      model: the network; it is left as it is.
      state: such as the `generator` of a `GameState`, or what `settled` returns.

    Raises:
      ValueError: the state of another network, or one whose buffers were given to a later update.

    >>> from flax import nnx
    >>> import optax
    >>> generator = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> _, first = from_nnx(generator, lambda network, z, key: network(z), optax.sgd(0.1))
    >>> to_nnx(generator, first).kernel.shape
    (2, 3)
    """
    remedy = "pass gan.settled(...) of the state, its averaged generator, or state.generator"
    gan_checks.check_kind(state, PlayerState, "to_nnx: state", remedy)
    updates.check_kept(state, caller="to_nnx", remedy=_NEWEST)
    gan_checks.check_fits(model, state.params, state.variables)
    trained = nnx.clone(model)
    nnx.update(trained, state.params, state.variables)
    trained.eval()
    return trained


def settled(
    generator: Player,
    state: GameState,
    *,
    latent_shape: tuple[int, ...],
    batch_size: int = 64,
    passes: int = 40,
) -> PlayerState:
    """The generator with its averaged parameters, for samples after training.

    The statistics of batch normalisation in the state are those of the parameters themselves. Those of the average are
    taken from `passes` batches of latent vectors.

    Args:
      generator: as `make_update` takes it.
      state: after any number of updates.
      latent_shape: as there.
      batch_size: of each pass; the one of the training.
      passes: so many that the old statistics are forgotten. With a momentum of 0.9, 40 leave 1.5% of them; with
        Flax's default, 0.99, that takes 400.

    Raises:
      ValueError: what is no state of a game with this generator, or was given to a later update; another
        `latent_shape` than the generator takes; numbers below 1.
    """
    gan_checks.check_kind(generator, Player, "settled: generator", _PLAYER)
    gan_checks.check_kind(
        state, GameState, "settled: state", "pass the state of the game, as update returns it"
    )
    gan_checks.check_latent_shape(latent_shape, caller="settled")
    check_integers(caller="settled", batch_size=batch_size, passes=passes)
    if batch_size < 1 or passes < 1:
        raise ValueError(
            f"settled: batch_size and passes must be at least 1, got {batch_size} and {passes}; the defaults are 64 "
            "and 40"
        )
    updates.check_kept(state, caller="settled", remedy=_NEWEST)

    def one(variables: Any, key: jax.Array) -> tuple[Any, None]:
        z = jax.random.normal(key, (batch_size, *latent_shape), jnp.float32)
        return gan_checks.generated(
            lambda: generator.apply(state.average, variables, z, key), z, caller="settled"
        )[1], None

    keys = jax.random.split(jax.random.key(0), passes)
    variables, _ = jax.lax.scan(one, state.generator.variables, keys)
    return state.generator._replace(params=state.average, variables=variables)


def create(
    generator: PlayerState,
    discriminator: PlayerState,
    *,
    probability: float | None = None,
    key: jax.Array | None = None,
) -> GameState:
    """The state before the first update, which shares no buffer with its arguments.

    Args:
      generator: its first state.
      discriminator: its first state.
      probability: with which the augmentation changes an image, at first. None: there is no augmentation.
      key: of everything random in the updates. None: `make_update` has it.

    Raises:
      ValueError: what is no state of a player, a probability outside [0, 1], or what is no key.
    """
    gan_checks.check_kind(generator, PlayerState, "gan.create: generator", _STATE)
    gan_checks.check_kind(discriminator, PlayerState, "gan.create: discriminator", _STATE)
    gan_checks.check_probability(probability)
    gan_checks.check_key(key, caller="gan.create")
    # Copies: the state is donated, so no buffer may be in two places or be the caller's.
    generator, discriminator = jax.tree.map(jnp.copy, (generator, discriminator))
    average = jax.tree.map(jnp.copy, generator.params)
    key = None if key is None else jax.random.clone(key)
    first = None if probability is None else jnp.asarray(probability, jnp.float32)
    return GameState(generator, discriminator, average, jnp.zeros((), jnp.int32), first, key)


def make_update(
    generator: Player,
    discriminator: Player,
    *,
    latent_shape: tuple[int, ...],
    key: jax.Array | None,
    average_decay: float = 0.0,
    penalty: float | optax.Schedule = 0.0,
    augmentation: Augmentation | None = None,
    take: Callable[[Any, jax.Array], jax.Array] = take_rows,
) -> Update:
    """Makes the pure function `update(state, images, rows) -> (state, metrics)`.

    `images` [N, H, W, C] uint8 is the whole data set, `rows` [B] the indices of the batch. `updates.compile_updates`
    compiles it.

    Args:
      generator: maps latent vectors z ~ N(0, 1) [B, *latent_shape] to images [B, H, W, C] in [0, 1].
      discriminator: maps images to logits [B].
      latent_shape: of one image's z.
      key: of latent vectors, augmentation and the randomness of the networks. None: the key of the state is used, so
        that runs with different seeds share one compiled update.
      average_decay: of the moving average of the generator's parameters, in [0, 1). At first it is smaller,
        min(decay, (1 + step) / (10 + step)). 0: the average is the generator itself.
      penalty: γ of R₁, which is added to the discriminator's loss times γ/2. A number, or a function of the updates
        done.
      augmentation: of all images that the discriminator sees, in both steps. R₁ is the slope through it.
      take: `take(images, rows)` returns the batch of real images, uint8 [B, H, W, C]. Give it where `images` is
        another pytree than one array.

    Raises:
      ValueError: what is no `Player`, `Augmentation` or key, a decay outside [0, 1) or a negative penalty. The update
        raises it if the key or the probability is missing or superfluous, if a network fails or returns something else
        than the images or logits above, if the images are of another shape than the data's, and for data that is not
        uint8. `gan_fit.train` also raises it for generated images outside [0, 1].
    """
    gan_checks.check_kind(generator, Player, "make_update: generator", _PLAYER)
    gan_checks.check_kind(discriminator, Player, "make_update: discriminator", _PLAYER)
    if augmentation is not None:
        remedy = "wrap the function, gan.Augmentation(differentiable_augment)"
        gan_checks.check_kind(augmentation, Augmentation, "make_update: augmentation", remedy)
    changes = None if augmentation is None else augmentation.apply
    gan_checks.check_options(latent_shape, key, average_decay, penalty, changes)
    game = _Game(generator, discriminator, latent_shape, average_decay, penalty, augmentation)

    def update(state: GameState, images: Any, rows: jax.Array) -> tuple[GameState, Metrics]:
        gan_checks.check_rows(rows)
        gan_checks.check_augmentation(augmentation is not None, state.probability)
        used_key = gan_checks.the_key(key, state.key)
        keys = jax.random.split(jax.random.fold_in(used_key, state.step), 7)
        batch = take(images, rows)
        gan_checks.check_batch(batch)
        real = batch.astype(jnp.float32) / 255
        state, metrics = _step_discriminator(game, state, real, keys[:4])
        state, loss = _step_generator(game, state, keys[4:], len(rows))
        return state._replace(step=state.step + 1), metrics._replace(generator_loss=loss)

    # `updates.compile_updates` hands it on: values of images are not seen inside of an update.
    update.__dict__["check"] = functools.partial(_check_range, game)
    return update


class _Game(NamedTuple):
    """The arguments of `make_update`."""

    generator: Player
    discriminator: Player
    latent_shape: tuple[int, ...]
    average_decay: float
    penalty: float | optax.Schedule
    augmentation: Augmentation | None


def _step_discriminator(
    game: _Game, state: GameState, real: jax.Array, keys: jax.Array
) -> tuple[GameState, Metrics]:
    """The discriminator's step, on a batch of real images and as many generated ones; `keys` [4]."""
    z = jax.random.normal(keys[0], (len(real), *game.latent_shape), jnp.float32)
    images, variables = _generate(game, *state.generator[:2], z, keys[1])
    gan_checks.check_same_shape(images, real)
    state = state._replace(generator=state.generator._replace(variables=variables))

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array]]:
        variables = state.discriminator.variables
        on_real, after_real = _judge(game, state, params, variables, real, keys[2])
        on_fake, after_fake = _judge(game, state, params, after_real, images, keys[3])
        loss = losses.discriminator(on_real, on_fake)
        if game.penalty:
            gamma = game.penalty(state.step) if callable(game.penalty) else game.penalty
            slope = gradient_penalty(
                lambda x: _judge(game, state, params, variables, x, keys[2])[0], real
            )
            loss += gamma / 2 * slope
        return loss, (after_fake, on_real, on_fake)

    (loss, (variables, on_real, on_fake)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        state.discriminator.params
    )
    after = _step(game.discriminator, state.discriminator, gradient, variables)
    means = jax.nn.sigmoid(on_real).mean(), jax.nn.sigmoid(on_fake).mean()
    if game.augmentation is not None and game.augmentation.adapt is not None:
        state = state._replace(probability=game.augmentation.adapt(state.probability, on_real))
    return state._replace(discriminator=after), Metrics(loss, jnp.zeros((), jnp.float32), *means)


def _step_generator(
    game: _Game, state: GameState, keys: jax.Array, batch: int
) -> tuple[GameState, jax.Array]:
    """The generator's step on `batch` generated images, and its loss; `keys` [3]."""
    z = jax.random.normal(keys[0], (batch, *game.latent_shape), jnp.float32)

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        images, variables = _generate(game, params, state.generator.variables, z, keys[1])
        # What the discriminator's statistics would learn of this batch is dropped.
        logits = _judge(game, state, *state.discriminator[:2], images, keys[2])[0]
        return losses.generator(logits), variables

    (loss, variables), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.generator.params)
    after = _step(game.generator, state.generator, gradient, variables)
    decay = jnp.minimum(game.average_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state.average, after.params
    )
    return state._replace(generator=after, average=average), loss


def _generate(
    game: _Game, params: Any, variables: Any, z: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    """The generator's images of latent vectors, and its variables afterwards."""
    return gan_checks.generated(lambda: game.generator.apply(params, variables, z, key), z)


def _judge(
    game: _Game, state: GameState, params: Any, variables: Any, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    """The discriminator's logits on images as it sees them, and its variables afterwards."""
    seen = images
    if game.augmentation is not None:
        seen = game.augmentation.apply(jax.random.fold_in(key, 1), images, state.probability)
        gan_checks.check_augmented(seen, images)
    return gan_checks.judged(lambda: game.discriminator.apply(params, variables, seen, key), seen)


def _step(player: Player, state: PlayerState, gradient: Any, variables: Any) -> PlayerState:
    updates, opt_state = player.optimizer.update(gradient, state.opt_state, state.params)
    return PlayerState(optax.apply_updates(state.params, updates), variables, opt_state)


def _check_range(game: _Game, state: GameState) -> None:
    """Refuses a generator whose first images leave [0, 1]."""
    z = jax.random.normal(jax.random.key(0), (_LOOKED_AT, *game.latent_shape), jnp.float32)

    @jax.jit
    def look(state: PlayerState, z: jax.Array) -> jax.Array:
        return _generate(game, state.params, state.variables, z, jax.random.key(0))[0]

    gan_checks.check_in_unit(np.asarray(look(state.generator, z), np.float32))
