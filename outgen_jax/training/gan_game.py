"""A GAN from two networks: what `gan_fit.train` takes, in one call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

from outgen_jax.training import gan, gan_checks, updates

Call = Callable[[Any, jax.Array, jax.Array], jax.Array]  # network, input, key -> output


class Game(NamedTuple):
    """Two networks that are ready to be trained against each other.

    Attributes:
      update: compiled by `updates.compile_updates`, as `gan_fit.train` takes it.
      state: before the first update. The training donates it.
      player: the generator's, as `gan.settled` takes it.
      latent_shape: of one image's z.
    """

    update: updates.Update
    state: gan.GameState
    player: gan.Player
    latent_shape: tuple[int, ...]


def create(
    generator: nnx.Module,
    discriminator: nnx.Module,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array | None,
    generate: Call = lambda model, z, key: model(z),
    judge: Call = lambda model, images, key: model(images),
    latent_shape: tuple[int, ...] | None = None,
    average_decay: float = 0.0,
    penalty: float | optax.Schedule = 0.0,
    augmentation: gan.Augmentation | None = None,
    probability: float | None = None,
    take: Callable[[Any, jax.Array], jax.Array] = gan.take_rows,
) -> Game:
    """Makes a game of two `flax.nnx` networks, which stay as they are.

    Args:
      generator: maps latent vectors [B, *latent_shape] to images [B, H, W, C] in [0, 1].
      discriminator: maps images to logits [B].
      optimizer: of both networks, such as `optax.adam(2e-4, b1=0.5)`.
      key: of everything random in the updates. None: there is none yet, and `state._replace(key=...)` adds it, so that
        runs with different seeds share one compiled update.
      generate: `generate(model, z, key) -> images`, the call of the generator in training, where it needs a key or
        returns more than images.
      judge: `judge(model, images, key) -> logits`, the same of the discriminator.
      latent_shape: of one image's z. None: the attribute `latent_shape` of the generator.
      average_decay: as `gan.make_update`.
      penalty: as `gan.make_update`.
      augmentation: as `gan.make_update`.
      probability: as `gan.create`; needed where there is an augmentation.
      take: as `gan.make_update`.

    Raises:
      ValueError: a generator without `latent_shape`, and none given; and as `gan.from_nnx`, `gan.make_update` and
        `gan.create`.

    >>> import jax, numpy as np, optax
    >>> from flax import nnx
    >>> from outgen_jax.models import mlp_gan
    >>> from outgen_jax.training import gan_fit, gan_game
    >>> generator = mlp_gan.Generator((4, 4, 1), latent=2, hidden=8, rngs=nnx.Rngs(0))
    >>> discriminator = mlp_gan.Discriminator((4, 4, 1), units=4, pieces=2, rngs=nnx.Rngs(1))
    >>> game = gan_game.create(generator, discriminator, optax.adam(1e-3), key=jax.random.key(0))
    >>> images = np.zeros((20, 4, 4, 1), np.uint8)
    >>> epochs = gan_fit.train(game.update, game.state, images, key=jax.random.key(1), epochs=2, batch_size=10)
    >>> [len(epoch.history) for epoch in epochs]
    [1, 2]
    """
    if latent_shape is None:
        latent_shape = getattr(generator, "latent_shape", None)
    if latent_shape is None:
        raise ValueError(
            f"gan_game.create: {type(generator).__name__} has no attribute latent_shape; pass latent_shape=, such as "
            "(100,) for vectors of length 100"
        )
    gan_checks.check_augmentation(augmentation is not None, probability)
    g, g_state = gan.from_nnx(_training(generator), generate, optimizer)
    d, d_state = gan.from_nnx(_training(discriminator), judge, optimizer)
    update = gan.make_update(
        g,
        d,
        latent_shape=latent_shape,
        key=key,
        average_decay=average_decay,
        penalty=penalty,
        augmentation=augmentation,
        take=take,
    )
    state = gan.create(g_state, d_state, probability=probability)
    return Game(updates.compile_updates(update), state, g, latent_shape)


def _training(model: nnx.Module) -> nnx.Module:
    """A copy in training mode; what is no module is refused by `gan.from_nnx`."""
    if not isinstance(model, nnx.Module):
        return model
    copy = nnx.clone(model)
    copy.train()
    return copy
