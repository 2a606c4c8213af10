"""The updates of every training lower for GPU and TPU: in place, on the whole batch, without the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lowered
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.data.differentiable_augment import differentiable_augment
from outgen_jax.data.distort import gaussian_noise
from outgen_jax.models import VGG16, dcgan, draw
from outgen_jax.training import (
    classifier,
    classifier_recipe,
    finetuning,
    finetuning_recipe,
    gan,
    updates,
)

BATCH = 7  # no other size of the networks
KEY = jax.random.key(0)


def shapes(*shape: int, dtype: Any = jnp.uint8) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


ROWS = shapes(1, BATCH, dtype=jnp.int32)
IMAGES, LABELS = shapes(20, 32, 32, 3), shapes(20, dtype=jnp.int32)


def of_classifier(small_vgg16: Callable[..., VGG16]) -> tuple[Any, ...]:
    """-> the update, and its arguments: the state, then the data."""
    recipe = classifier_recipe.ClassifierRecipe(epochs=1, batch_size=BATCH)
    optimizer = classifier_recipe.make_optimizer(recipe, 1)
    graphdef, state = classifier.create(small_vgg16(), optimizer)
    return classifier.make_update(graphdef, optimizer, key=KEY), state, IMAGES, LABELS


def of_finetuning(small_vgg16: Callable[..., VGG16]) -> tuple[Any, ...]:
    recipe = finetuning_recipe.FinetuningRecipe(updates=1)
    penalty = finetuning_recipe.Penalty(kind="constraint", weight=1.0, layers=("conv5_1",))
    model = small_vgg16()
    graphdef, state = finetuning.create(model, recipe, KEY)
    frozen_graphdef, frozen = finetuning.freeze(model)
    optimizer = finetuning_recipe.make_optimizer(recipe)

    def noisy(key: jax.Array, images: jax.Array) -> jax.Array:
        return gaussian_noise(key, images, 10)

    update = finetuning.make_update(
        graphdef, frozen_graphdef, optimizer, recipe, penalty, distort=noisy
    )
    return update, state, frozen, finetuning_recipe.coefficients(penalty), IMAGES, LABELS


def of_game(
    build: Callable[[], tuple[nnx.Module, nnx.Module]],
    images_of: Callable[[Any], jax.Array],
    logits_of: Callable[[Any], jax.Array],
    shape: tuple[int, ...],
    **options: Any,
) -> tuple[Any, ...]:
    networks, adam = nnx.eval_shape(build), optax.adam(1e-3)
    (g, g_state), (d, d_state) = (
        gan.from_nnx(model, lambda model, x, _, read=read: read(model(x)), adam)
        for model, read in zip(networks, (images_of, logits_of), strict=True)
    )
    probability = 0.5 if "augmentation" in options else None
    create = functools.partial(gan.create, probability=probability)
    state = jax.eval_shape(create, g_state, d_state)
    update = gan.make_update(
        g, d, latent_shape=networks[0].latent_shape, key=KEY, average_decay=0.9, **options
    )
    return update, state, shapes(20, *shape)


def of_augmented_game(small_vgg16: Callable[..., VGG16]) -> tuple[Any, ...]:
    def build() -> tuple[nnx.Module, nnx.Module]:
        options = {"size": 16, "width": 2, "rngs": nnx.Rngs(0)}
        return dcgan.Generator(latent=5, **options), dcgan.Discriminator(**options)

    augmentation = gan.Augmentation(differentiable_augment)
    same = lambda output: output  # noqa: E731
    return of_game(build, same, same, (16, 16, 3), augmentation=augmentation)


def of_drawing_game(small_vgg16: Callable[..., VGG16]) -> tuple[Any, ...]:
    shape, options = (9, 8, 1), {"cell": "tanh", "units": 6, "points": 3, "steps": 2}

    def build() -> tuple[nnx.Module, nnx.Module]:
        rngs, mean = nnx.Rngs(0), np.full(shape, 0.5)
        generator = draw.Generator(shape, first_image=mean, latent=5, rngs=rngs, **options)
        return generator, draw.Discriminator(shape, rngs=rngs, **options)

    return of_game(build, lambda output: output.images, lambda output: output[0], shape)


# How many convolutions there are. Forward, kernel gradients, and image gradients of all layers but the first:
FIVE_LAYERS = 5 + 5 + 4
PROGRAMS = {
    "classifier": (of_classifier, FIVE_LAYERS),
    "finetuning": (of_finetuning, FIVE_LAYERS + 5),  # and the frozen network forward
    # The generator forward, the discriminator on both batches and back; both forward, and back through both.
    "augmented": (of_augmented_game, (2 + 2 * (2 + 2 + 1)) + (2 + 2 + 2 + 2 + 2)),
    "drawing": (of_drawing_game, 0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_update_works_on_the_whole_batch_in_place(name, small_vgg16):
    make, count = PROGRAMS[name]
    update, state, *data = make(small_vgg16)
    traced = updates.compile_updates(update).trace(state, *data, ROWS)
    for text in lowered.texts(traced):
        found = lowered.convolutions(text)
        assert len(found) == count
        assert all(one.operands[0][0] == BATCH for one in found)
        assert "stablehlo.while" not in text
        assert lowered.is_in_place(traced, text)
