"""GAN training: one alternating update of a generator and a discriminator.

The data set stays on the device as uint8 [N, H, W, C]; networks see images [B, H, W, C] float32 in [0, 1]. Everything
random is a function of (key, step), so that a resumed run is the uninterrupted one, bit for bit.

Source: the game of Goodfellow et al., "Generative Adversarial Nets", 2014, as papers B and C play it: one step of the
discriminator on a batch of real and one of generated images, then one of the generator on another.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from outgen_jax import losses

M = TypeVar("M", bound=nnx.Module)

# (params, variables, x [B, ...], key) -> output, variables. The variables change without a gradient, as the statistics
# of batch normalisation do; the key is for dropout and the like.
PlayerApply = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Player(NamedTuple):
    """A network in training mode and its optimiser: two functions, which stay the same."""

    apply: PlayerApply  # generator: latent vectors -> images; discriminator: images -> logits [B]
    optimizer: optax.GradientTransformation


class PlayerState(NamedTuple):
    """All arrays of a player that change during training."""

    params: Any
    variables: Any
    opt_state: optax.OptState


class GameState(NamedTuple):
    """All arrays that change during training."""

    generator: PlayerState
    discriminator: PlayerState
    average: Any  # moving average of the generator's parameters
    step: jax.Array  # [] int32, updates done
    probability: Any = None  # [] float32 of the augmentation's changes; None: there is none
    key: jax.Array | None = None  # of everything random, where `make_update` has none


class Metrics(NamedTuple):
    """Means over the batches of an update."""

    # Nats, with γ/2 R₁ where there is a penalty; without, 2 log 2 = 1.39 if it cannot tell real from generated.
    discriminator_loss: jax.Array
    generator_loss: jax.Array  # nats
    real: jax.Array  # D(x), [0, 1]
    fake: jax.Array  # D(G(z)) before the discriminator's step, [0, 1]


Update = Callable[[GameState, Any, jax.Array], tuple[GameState, Metrics]]


class Augmentation(NamedTuple):
    """A change of all images, real and generated, before the discriminator sees them (Zhao et al. 2020)."""

    apply: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # key, images, probability
    # (probability, logits of the real images) -> the next probability (Karras et al. 2020); None: it stays the same.
    adapt: Callable[[jax.Array, jax.Array], jax.Array] | None = None


def take_rows(images: jax.Array, rows: jax.Array) -> jax.Array:
    """The batch images[rows]: [N, H, W, C], [B] -> [B, H, W, C].

    Example:
      >>> import jax.numpy as jnp
      >>> from outgen_jax.training import gan
      >>> gan.take_rows(jnp.zeros((5, 8, 8, 1)), jnp.array([3, 1])).shape
      (2, 8, 8, 1)
    """
    return images[rows]


def gradient_penalty(logits_of: Callable[[jax.Array], jax.Array], real: jax.Array) -> jax.Array:
    """R₁: the mean over real images of |∂ logit / ∂ image|² (Mescheder et al. 2018, who multiply it by γ/2).

    Example:
      >>> import jax.numpy as jnp
      >>> from outgen_jax.training import gan
      >>> images, weights = jnp.zeros((4, 2, 1, 1)), jnp.array([3.0, 4.0])
      >>> print(gan.gradient_penalty(lambda x: x[:, :, 0, 0] @ weights, images))
      25.0

    Args:
      logits_of: images [B, H, W, C] -> logits [B], each of its own image alone.
      real: images [B, H, W, C].
    """
    slope = jax.grad(lambda x: logits_of(x).sum())(real)
    return jnp.mean(jnp.sum(slope**2, axis=tuple(range(1, slope.ndim))))


def from_nnx(
    model: nnx.Module,
    call: Callable[[Any, jax.Array, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
) -> tuple[Player, PlayerState]:
    """A player and its first state from a Flax NNX module, in the mode that the module is in.

    Example:
      >>> import optax
      >>> from flax import nnx
      >>> from outgen_jax.training import gan
      >>> model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
      >>> player, state = gan.from_nnx(model, lambda model, x, key: model(x)[:, 0], optax.adam(1e-3))

    Args:
      model: the network; it is left as it is.
      call: `call(model, x, key) -> output`, the call of the network in training.
      optimizer: of its parameters.
    """
    graphdef, *states = nnx.split(model, nnx.Param, ...)
    params, variables = states

    def apply(params: Any, variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        network = nnx.merge(graphdef, params, variables, copy=True)
        output = call(network, x, key)
        return output, nnx.state(network, nnx.Not(nnx.Param))

    return Player(apply, optimizer), PlayerState(params, variables, optimizer.init(params))


def to_nnx(model: M, state: PlayerState) -> M:
    """A copy of `model` in inference mode with the arrays of a player that `from_nnx` made of it.

    Example:
      >>> from flax import nnx
      >>> import optax
      >>> generator = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> _, first = from_nnx(generator, lambda network, z, key: network(z), optax.sgd(0.1))
      >>> to_nnx(generator, first).kernel.shape
      (2, 3)

    Args:
      model: the network; it is left as it is.
      state: such as the `generator` of a `GameState`, or what `settled` returns.
    """
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
    """

    def one(variables: Any, key: jax.Array) -> tuple[Any, None]:
        z = jax.random.normal(key, (batch_size, *latent_shape), jnp.float32)
        return generator.apply(state.average, variables, z, key)[1], None

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
    """
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
      ValueError: a decay outside [0, 1) or a negative penalty. The update raises it if the key or the probability is
        missing, or given twice.
    """
    if not 0 <= average_decay < 1 or (not callable(penalty) and penalty < 0):
        raise ValueError(
            f"make_update: average_decay must lie in [0, 1) and penalty be at least 0, got {average_decay} and "
            f"{penalty}; 0.999 is usual, and 0 leaves both out"
        )
    game = _Game(generator, discriminator, latent_shape, average_decay, penalty, augmentation)

    def update(state: GameState, images: Any, rows: jax.Array) -> tuple[GameState, Metrics]:
        used_key = _the_key(key, state, augmentation)
        keys = jax.random.split(jax.random.fold_in(used_key, state.step), 7)
        real = take(images, rows).astype(jnp.float32) / 255
        state, metrics = _step_discriminator(game, state, real, keys[:4])
        state, loss = _step_generator(game, state, keys[4:], len(rows))
        return state._replace(step=state.step + 1), metrics._replace(generator_loss=loss)

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
    images, variables = game.generator.apply(*state.generator[:2], z, keys[1])
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
        images, variables = game.generator.apply(params, state.generator.variables, z, keys[1])
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


def _judge(
    game: _Game, state: GameState, params: Any, variables: Any, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    """The discriminator's logits on images as it sees them, and its variables afterwards."""
    if game.augmentation is not None:
        images = game.augmentation.apply(jax.random.fold_in(key, 1), images, state.probability)
    return game.discriminator.apply(params, variables, images, key)


def _step(player: Player, state: PlayerState, gradient: Any, variables: Any) -> PlayerState:
    updates, opt_state = player.optimizer.update(gradient, state.opt_state, state.params)
    return PlayerState(optax.apply_updates(state.params, updates), variables, opt_state)


def _the_key(
    key: jax.Array | None, state: GameState, augmentation: Augmentation | None
) -> jax.Array:
    """`make_update`'s or the state's, whichever there is."""
    keys = [k for k in (key, state.key) if k is not None]
    if len(keys) != 1 or (state.probability is None) != (augmentation is None):
        raise ValueError(
            "make_update: the key must be make_update's or the state's, and the state have a probability where "
            f"there is an augmentation; got key={key}, augmentation={augmentation}, and a state with "
            f"key={state.key}, probability={state.probability}. Give `create` what is missing"
        )
    return keys[0]
