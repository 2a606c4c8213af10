"""Trains one preset of paper C's study from one seed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from experiments.draw_gan import presets
from experiments.draw_gan.presets import Preset
from outgen_jax import files
from outgen_jax.models import draw, mlp_gan
from outgen_jax.training import gan, gan_game
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.updates import Update, epoch_rows

Generator = draw.Generator | mlp_gan.Generator

_SOME = 100  # updates: any number makes optimisers of the same arrays


def first_image(preset: Preset, images: np.ndarray, key: jax.Array) -> np.ndarray | jax.Array:
    """What the generator begins with, [H, W, C] in [0, 1]: of training images [N, H, W, C] uint8."""
    if preset.first_canvas == "sample":
        return draw.marginal_sample(key, images)
    return np.mean(images, 0, dtype=np.float64) / 255


def networks(
    preset: Preset, first: ArrayLike, seed: int
) -> tuple[Generator, draw.Discriminator | mlp_gan.Discriminator]:
    """Both networks, for images of the shape of the `first` one."""
    rngs, image_shape = nnx.Rngs(seed), jnp.shape(first)
    if preset.network == "perceptrons":
        return (
            mlp_gan.Generator(image_shape, mean_image=first, hidden=preset.units, rngs=rngs),
            mlp_gan.Discriminator(image_shape, rngs=rngs),
        )
    options: dict[str, Any] = {
        "cell": preset.cell,
        "units": preset.units,
        "points": preset.points,
        "steps": preset.steps,
    }
    return (
        draw.Generator(
            image_shape, first_image=first, first=preset.first_write, **options, rngs=rngs
        ),
        draw.Discriminator(image_shape, first=preset.first_read, **options, rngs=rngs),
    )


def check(preset: Preset, images: np.ndarray) -> None:
    """Refuses, before anything is written, sizes with which the training on images [N, H, W, C] would fail.

    Raises:
      ValueError: as the networks; fewer images than a batch.
    """
    nnx.eval_shape(lambda: networks(preset, np.zeros(images.shape[1:], np.float32), seed=0))
    epoch_rows(jax.random.key(0), 0, len(images), preset.batch_size)


def optimizer(preset: Preset, updates: int) -> optax.GradientTransformation:
    """Adam for so many `updates`, with a smaller rate for the layers that place the filters."""
    rate = optax.cosine_decay_schedule(
        preset.learning_rate, _before_end(preset, updates), alpha=preset.last_rate
    )
    adam = optax.adam(rate, b1=preset.beta1, b2=0.999)
    return optax.chain(adam, optax.masked(optax.scale(preset.attention_rate), _of_attention))


def penalty(preset: Preset, updates: int) -> float | optax.Schedule:
    """γ of R₁ for so many `updates`."""
    if preset.grown_penalty is None:
        return preset.penalty
    growing = _before_end(preset, updates)
    growth = optax.linear_schedule(preset.penalty, preset.grown_penalty, growing)
    return optax.join_schedules([growth, optax.constant_schedule(preset.end_penalty)], [growing])


def _before_end(preset: Preset, updates: int) -> int:
    return updates - round(preset.end * updates)


def _of_attention(params: Any) -> Any:
    """True at the weights of the layer that places the filters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "attention", params)


def to_images(output: jax.Array | draw.Drawing) -> jax.Array:
    """The images [B, H, W, C] in [0, 1] of a generator's output."""
    return output.images if isinstance(output, draw.Drawing) else output


def judge(
    model: draw.Discriminator | mlp_gan.Discriminator, images: jax.Array, key: jax.Array
) -> jax.Array:
    """Logits [B] of images [B, H, W, C]; `key` of the dropout of the perceptrons."""
    if isinstance(model, mlp_gan.Discriminator):
        return model(images, key=key)
    return model(images)[0]


class Game(NamedTuple):
    """A generator and a discriminator ready to be trained."""

    update: Update
    state: gan.GameState
    generate: Callable[[Any, jax.Array], Any]  # parameters, z -> the generator's output
    latent_shape: tuple[int, ...]


def game(
    preset: Preset,
    first: ArrayLike,
    *,
    updates: int,
    seed: int,
    key: jax.Array,
) -> Game:
    """A game of so many `updates`: `first` image [H, W, C], `seed` of the initial weights, `key` of the training."""
    generator, discriminator = networks(preset, first, seed)
    made = gan_game.create(
        generator,
        discriminator,
        optimizer(preset, updates),
        key=key,
        generate=lambda model, z, _: to_images(model(z)),
        judge=judge,
        average_decay=preset.average_decay,
        penalty=penalty(preset, updates),
    )
    graphdef, *states = nnx.split(generator, nnx.Param, ...)
    rest = states[1]

    @jax.jit
    def generate(params: Any, z: jax.Array) -> Any:
        return nnx.merge(graphdef, params, rest, copy=True)(z)

    return Game(made.update, made.state, generate, made.latent_shape)


def trained(directory: Path, settings: Mapping[str, Any]) -> Generator:
    """The generator of a finished run with its averaged weights; `settings` as `scores.json` notes them."""
    preset = presets.noted(settings)
    first = np.full(files.load_arrays(directory / "samples.npz")["images"].shape[1:], 0.5)
    made = game(preset, first, updates=_SOME, seed=0, key=jax.random.key(0))
    state, _ = Checkpoints(directory / "checkpoints").restore(made.state)
    generator, _ = networks(preset, first, 0)
    return gan.to_nnx(generator, state.generator._replace(params=state.average))
