"""Presets of paper C's study, and the training of one of them from one seed."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from outgen_jax.models import draw, mlp_gan
from outgen_jax.training import adversarial

Generator = draw.Generator | mlp_gan.Generator


class Preset(NamedTuple):
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
    penalty: float = 0.0  # γ of R₁
    stride: float | None = (
        None  # of the attention before training, in pixels; None: the grid spans the image
    )
    sigma: float = 1.0  # likewise
    save_every: int = 5  # epochs


PRESETS = {
    # Paper C, Section 3.2.
    "attention": Preset("attention", 49, 3.75e-4, 0.75),
    "attention_n4": Preset("attention", 71, 5e-4, 0.9, points=4),
    "baseline": Preset("perceptrons", 99, 1e-3, 0.5, units=1200),
    # What the paper's settings lack: R₁, which keeps the discriminator from winning; glances that all begin in the
    # middle of the image with overlapping filters, not at random; averaged weights.
    "attention_plus": Preset(
        "attention",
        49,
        1e-3,
        0.5,
        cell="tanh",
        average_decay=0.999,
        penalty=0.02,
        stride=4.0,
        sigma=2.0,
    ),
    # For continuous integration.
    "smoke": Preset(
        "attention",
        2,
        1e-3,
        0.5,
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
        "stride": preset.stride,
        "sigma": preset.sigma,
    }
    return (
        draw.Generator(image_shape, mean_image=mean_image, **options, rngs=rngs),
        draw.Discriminator(image_shape, **options, rngs=rngs),
    )


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

    update: adversarial.Update
    state: adversarial.GameState
    generate: Callable[[Any, jax.Array], Any]  # parameters, z -> the generator's output
    latent_shape: tuple[int, ...]


def game(
    preset: Preset,
    image_shape: tuple[int, int, int],
    mean_image: np.ndarray,
    *,
    seed: int,
    key: jax.Array,
) -> Game:
    """`seed` of the initial weights, `key` of the training."""
    generator, discriminator = networks(preset, image_shape, mean_image, seed)
    adam = optax.adam(preset.learning_rate, b1=preset.beta1, b2=0.999)
    g, g_state = adversarial.from_nnx(generator, lambda model, z, _: to_images(model(z)), adam)
    d, d_state = adversarial.from_nnx(discriminator, judge, adam)
    update = adversarial.make_update(
        g,
        d,
        latent_shape=generator.latent_shape,
        key=key,
        average_decay=preset.average_decay,
        penalty=preset.penalty,
    )
    graphdef, *states = nnx.split(generator, nnx.Param, ...)
    rest = states[1]

    @jax.jit
    def generate(params: Any, z: jax.Array) -> Any:
        return nnx.merge(graphdef, params, rest, copy=True)(z)

    return Game(update, adversarial.create(g_state, d_state), generate, generator.latent_shape)
