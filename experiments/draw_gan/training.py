"""Presets of paper C's study, and the training of one of them from one seed."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from outgen_jax.models import draw, mlp_gan
from outgen_jax.training import adversarial
from outgen_jax.training.updates import Update, compile_updates

Generator = draw.Generator | mlp_gan.Generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Networks and their training."""

    network: Literal["attention", "perceptrons"]
    epochs: int
    learning_rate: float  # of Adam, both networks
    beta1: float
    cell: draw.Cell = "sigmoid"
    points: int = 5  # N
    steps: int = 6  # T
    units: int = 256  # recurrent, or hidden ones of the perceptrons' generator
    batch_size: int = 100
    average_decay: float = 0.0
    penalty: float = 0.0  # γ of R₁ at first
    grown_penalty: float | None = None  # to which γ grows steadily; None: it stays
    first_read: draw.Glance = draw.DRAW_GLANCE
    first_write: draw.Glance = draw.DRAW_GLANCE
    attention_rate: float = 1.0  # of the learning rate, for the layers that say where to look
    last_rate: float = 1.0  # of the learning rate, to which it falls as a cosine
    end: float = 0.0  # share of the updates, the last, in which the rate stays
    end_penalty: float = 0.0  # γ in that end, where it had grown
    save_every: int = 5  # epochs


# What differs from the paper's settings, and why:
# - R₁ keeps the discriminator from winning. It grows, and the rate does not fall to 0, so that the digits stay equally
#   frequent; 18 last epochs with less of it improve their shapes.
# - The first filters are in the middle of the image, overlap, and write strongly enough that every step counts.
# - The layers that place the filters learn more slowly, since Adam moves all weights of h at once.
# - The weights are averaged, and there are more epochs than for the baseline.
_PLUS = Preset(
    network="attention",
    epochs=117,
    learning_rate=1e-3,
    beta1=0.5,
    cell="tanh",
    average_decay=0.999,
    penalty=0.5,
    grown_penalty=3.0,
    first_read=draw.Glance(stride=4.0, sigma=2.0),
    first_write=draw.Glance(stride=4.0, sigma=2.0, intensity=30.0),
    attention_rate=0.1,
    last_rate=0.2,
    end=18 / 117,
    end_penalty=1.0,
)

PRESETS = {
    # Paper C, Section 3.2.
    "attention": Preset(network="attention", epochs=49, learning_rate=3.75e-4, beta1=0.75),
    "attention_n4": Preset(network="attention", epochs=71, learning_rate=5e-4, beta1=0.9, points=4),
    "baseline": Preset(network="perceptrons", epochs=99, learning_rate=1e-3, beta1=0.5, units=1200),
    "attention_plus": _PLUS,
    "attention_plus_n4": dataclasses.replace(_PLUS, points=4),
    # Photographs in colour: with a stronger R₁ the discriminator learns nothing; fainter first strokes.
    "attention_colour": dataclasses.replace(
        _PLUS,
        epochs=100,
        penalty=0.01,
        grown_penalty=None,
        end=0.0,
        first_write=draw.Glance(stride=4.0, sigma=2.0, intensity=3.0),
    ),
    # For continuous integration.
    "smoke": Preset(
        network="attention",
        epochs=2,
        learning_rate=1e-3,
        beta1=0.5,
        cell="tanh",
        points=3,
        steps=2,
        units=8,
        batch_size=16,
        average_decay=0.5,
    ),
}


def networks(
    preset: Preset, image_shape: tuple[int, int, int], mean_image: np.ndarray, seed: int
) -> tuple[Generator, draw.Discriminator | mlp_gan.Discriminator]:
    rngs = nnx.Rngs(seed)
    if preset.network == "perceptrons":
        return (
            mlp_gan.Generator(image_shape, mean_image=mean_image, hidden=preset.units, rngs=rngs),
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
            image_shape, mean_image=mean_image, first=preset.first_write, **options, rngs=rngs
        ),
        draw.Discriminator(image_shape, first=preset.first_read, **options, rngs=rngs),
    )


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
    return output.images if isinstance(output, draw.Drawing) else output


def judge(
    model: draw.Discriminator | mlp_gan.Discriminator, images: jax.Array, key: jax.Array
) -> jax.Array:
    if isinstance(model, mlp_gan.Discriminator):
        return model(images, key=key)
    return model(images)[0]


class Game(NamedTuple):
    """A generator and a discriminator ready to be trained."""

    update: Update
    state: adversarial.GameState
    generate: Callable[[Any, jax.Array], Any]  # parameters, z -> the generator's output
    latent_shape: tuple[int, ...]


def game(
    preset: Preset,
    image_shape: tuple[int, int, int],
    mean_image: np.ndarray,
    *,
    updates: int,
    seed: int,
    key: jax.Array,
) -> Game:
    """A game of so many `updates`; `seed` of the initial weights, `key` of the training."""
    generator, discriminator = networks(preset, image_shape, mean_image, seed)
    adam = optimizer(preset, updates)
    g, g_state = adversarial.from_nnx(generator, lambda model, z, _: to_images(model(z)), adam)
    d, d_state = adversarial.from_nnx(discriminator, judge, adam)
    update = adversarial.make_update(
        g,
        d,
        latent_shape=generator.latent_shape,
        key=key,
        average_decay=preset.average_decay,
        penalty=penalty(preset, updates),
    )
    graphdef, *states = nnx.split(generator, nnx.Param, ...)
    rest = states[1]

    @jax.jit
    def generate(params: Any, z: jax.Array) -> Any:
        return nnx.merge(graphdef, params, rest, copy=True)(z)

    return Game(
        compile_updates(update),
        adversarial.create(g_state, d_state),
        generate,
        generator.latent_shape,
    )
