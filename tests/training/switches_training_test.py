"""JAX's global switches, all of them at once, change nothing of what an update of a training returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import switches
from flax import nnx

from outgen_jax.data import distort
from outgen_jax.training import (
    boundary_distillation,
    classifier,
    classifier_recipe,
    finetuning,
    finetuning_recipe,
    objectives,
    updates,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
LABELS = np.array([0, 2, 1, 1], np.int32)
ROWS = np.array([[0, 3], [1, 2]], np.int32)  # of two updates
KEY = jax.random.key(0)


class Network(nnx.Module):
    """A hidden layer with batch normalisation."""

    def __init__(self) -> None:
        self.fc1 = nnx.Linear(48, 5, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(5, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(5, 3, rngs=nnx.Rngs(1))

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.activations(images)[0]

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        hidden = self.norm(self.fc1(images.reshape(len(images), -1)))
        return self.head(jax.nn.relu(hidden)), {"fc1": hidden}


def of_a_classifier(optimizer: str, schedule: str) -> tuple[updates.Update, tuple[Any, ...]]:
    """The compiled update, and what it takes."""
    recipe = classifier_recipe.ClassifierRecipe(
        epochs=2, batch_size=2, optimizer=optimizer, schedule=schedule
    )
    made = classifier_recipe.make_optimizer(recipe, 2)
    graphdef, state = classifier.create(Network(), made)
    update = classifier.make_update(
        graphdef, made, key=KEY, objective=objectives.plain(0.1), crop_padding=1
    )
    return updates.compile_updates(update), (state, IMAGES, LABELS, ROWS)


def of_finetuning(kind: str, held_pass: str) -> tuple[updates.Update, tuple[Any, ...]]:
    """The compiled update, and what it takes."""
    recipe = finetuning_recipe.FinetuningRecipe(
        updates=4, learning_rate=0.1, momentum=0.9, weight_decay=0.1, crop_padding=1
    )
    penalty = finetuning_recipe.Penalty(
        kind=kind,
        weight=0.1,
        layers=("fc1",),
        gain=5.0,
        gain_end=10.0,
        gain_rate=0.1,
        held_pass=held_pass,
    )
    optimizer = finetuning_recipe.make_optimizer(recipe)
    graphdef, state = finetuning.create(Network(), recipe, KEY)
    frozen_graphdef, frozen = finetuning.freeze(Network())
    update = finetuning.make_update(
        *(graphdef, frozen_graphdef, optimizer, recipe, penalty),
        lambda key, images: distort.random_distortion(key, images, distort.CIFAR10_C),
    )
    numbers = finetuning_recipe.coefficients(penalty)
    return updates.compile_updates(update), (state, frozen, numbers, IMAGES, LABELS, ROWS)


def floats(found: Any) -> list[np.ndarray]:
    """The numbers of a pytree that are not integers or keys."""
    leaves = jax.tree.leaves(found)
    return [np.asarray(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (of_a_classifier, ("sgd", "linear")),  # optax's other schedules and Muon need promotion
        (of_finetuning, ("constraint", "inference")),
        (of_finetuning, ("consistency", "training")),
    ],
)
def test_updates(make, options):
    compiled, arguments = make(*options)
    expected = floats(compiled(*arguments))
    with switches():
        compiled, arguments = make(*options)
        found = floats(compiled(*arguments))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_images_near_a_boundary():
    def apply(frozen, images):
        return frozen * images.reshape(len(images), -1)[:, :3]

    move = boundary_distillation.nearby_images(apply, steps=2)
    with switches():
        images = jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32)
        found = jax.eval_shape(move, KEY, None, np.float32(2), images, LABELS)
    assert [x.dtype for x in found] == [jnp.float32, jnp.float32]


@pytest.mark.parametrize("optimizer", classifier_recipe.OPTIMIZERS)
def test_with_64_bit_types_on_every_optimizer_leaves_a_classifier_in_32(optimizer):
    with jax.enable_x64(True):
        compiled, arguments = of_a_classifier(optimizer, "cosine")
        state, metrics = jax.eval_shape(compiled, *arguments)
    leaves = jax.tree.leaves((state.params, state.variables, metrics))
    assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}
