"""One update of fine-tuning on distorted images (paper D), as pure functions of arrays.

An update takes a batch of clean images, crops and mirrors them, distorts each at a level of its own, and trains the
network on the distorted images. One of four penalties, times λ, is added to the cross-entropy:

    none         plain fine-tuning, the first row of Table D1
    mse          keeps the pre-activations of named layers near those of the frozen original on the clean image
                 (`losses.intermediate_mse`)
    constraint   keeps their signs: neurons stay on or off (`losses.intermediate_constraint`)
    consistency  uses no frozen network: the cross-entropy is that of the clean image, and the outputs for it and for
                 two distortions of it must agree (`losses.jensen_shannon`; AugMix, Hendrycks et al. 2020, here with
                 the distortions of paper D)

Images are uint8 NHWC in the data set, and float32 in [0, 1] once they are distorted. `finetuning_fit` runs the
updates.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from outgen_jax import losses
from outgen_jax.data import augment
from outgen_jax.training import finetuning_recipe, objectives, updates
from outgen_jax.training.finetuning_recipe import (
    HELD,
    Coefficients,
    Distort,
    FinetuningRecipe,
    Penalty,
)


class State(NamedTuple):
    """All arrays that change during training."""

    params: nnx.State
    variables: nnx.State  # running statistics, keys of dropout
    opt_state: optax.OptState
    log_gain: jax.Array  # [] learned part of log α
    key: jax.Array  # of everything random
    step: jax.Array  # [] int32, updates done


class Metrics(NamedTuple):
    """What an update measures on its batch."""

    loss: jax.Array  # [] what is minimised
    recognition: jax.Array  # [] cross-entropy, in nats
    penalty: jax.Array  # [] before λ, in nats; "mse" in squared units of the pre-activations
    accuracy: jax.Array  # [] top-1
    gain: jax.Array  # [] α


class Batch(NamedTuple):
    """What an update sees of its images after crop and flip, [B, H, W, C] each."""

    clean: jax.Array
    distorted: jax.Array
    again: Callable[[], jax.Array]  # a second, independent distortion
    labels: jax.Array


# (state, variables of the frozen network, coefficients, images [N, ...] uint8, labels [N], rows [B])
Update = Callable[
    [State, nnx.State, Coefficients, jax.Array, jax.Array, jax.Array], tuple[State, Metrics]
]


def create(
    model: nnx.Module, recipe: FinetuningRecipe, key: jax.Array
) -> tuple[nnx.GraphDef, State]:
    """The definition of the network in training mode, and the first state, which shares no buffer with `model`.

    Dropout gets keys of its own, derived from `key`.

    >>> import jax
    >>> from flax import nnx
    >>> from outgen_jax.training import finetuning, finetuning_recipe
    >>> recipe = finetuning_recipe.FinetuningRecipe(updates=10)
    >>> graphdef, state = finetuning.create(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), recipe, jax.random.key(0))
    """
    key, dropout_key = jax.random.split(key)
    student = nnx.clone(model)
    student.train()
    updates.reseed(student, dropout_key)
    graphdef, *states = nnx.split(student, nnx.Param, ...)
    params, variables = jax.tree.map(jnp.copy, states)  # the buffers of the state are donated
    opt_state = finetuning_recipe.make_optimizer(recipe).init(params)
    zero = jnp.zeros((), jnp.int32)
    return graphdef, State(params, variables, opt_state, jnp.zeros((), jnp.float32), key, zero)


def freeze(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State]:
    """Definition and variables of the network in inference mode; `model` is left as it is.

    >>> from flax import nnx
    >>> from outgen_jax.training import finetuning
    >>> graphdef, variables = finetuning.freeze(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    """
    frozen = nnx.clone(model)
    frozen.eval()
    graphdef, variables = nnx.split(frozen)
    return graphdef, variables


def make_update(
    graphdef: nnx.GraphDef,
    frozen_graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    recipe: FinetuningRecipe,
    penalty: Penalty,
    distort: Distort,
) -> Update:
    """Makes the pure function `update(state, frozen, coefficients, images, labels, rows) -> (state, metrics)`.

    `images` [N, H, W, C] uint8 and `labels` [N] are the whole data set, `rows` [B] the indices of the batch.
    `updates.compile_updates` compiles it.

    Args:
      graphdef: of the network in training, from `create`.
      frozen_graphdef: of the frozen network, from `freeze`.
      optimizer: from `finetuning_recipe.make_optimizer`.
      recipe: its crop, flip and number of updates are read.
      penalty: its kind, layers and layer weights are read. Its numbers are the argument `coefficients` of the update.
      distort: see `finetuning_fit.finetune`.
    """

    def loss_fn(
        learned: tuple[nnx.State, jax.Array],
        state: State,
        frozen: nnx.State,
        c: Coefficients,
        batch: Batch,
    ) -> tuple[jax.Array, tuple[nnx.State, Metrics]]:
        params, log_gain = learned
        student = nnx.merge(graphdef, params, state.variables, copy=True)
        gain = finetuning_recipe.gain_at(state.step, recipe.updates, c, log_gain)
        if penalty.kind == "consistency":
            logits, extra = _consistency(student, batch)
        else:
            logits, hidden = student.activations(batch.distorted)
            extra = jnp.zeros((), jnp.float32)
            if penalty.kind in HELD:
                if penalty.held_pass != "training":
                    again = nnx.merge(graphdef, params, state.variables, copy=True)
                    hidden = _held_pass(again, penalty.held_pass).activations(batch.distorted)[1]
                teacher = nnx.merge(frozen_graphdef, frozen, copy=True)
                extra = _held(penalty, hidden, teacher.activations(batch.clean)[1], gain)
        crossed = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        recognition = crossed.mean()
        loss = recognition + c.weight * extra
        accuracy = objectives.top_1(logits, batch.labels)
        metrics = Metrics(loss, recognition, extra, accuracy, gain)
        return loss, (nnx.state(student, nnx.Not(nnx.Param)), metrics)

    def update(
        state: State,
        frozen: nnx.State,
        coefficients: Coefficients,
        images: jax.Array,
        labels: jax.Array,
        rows: jax.Array,
    ) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        batch = _draw(key, images[rows], labels[rows], recipe, distort)
        gradients, (variables, metrics) = jax.grad(loss_fn, has_aux=True)(
            (state.params, state.log_gain), state, frozen, coefficients, batch
        )
        changes, opt_state = optimizer.update(gradients[0], state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        log_gain = state.log_gain - coefficients.gain_rate * gradients[1]
        return State(params, variables, opt_state, log_gain, state.key, state.step + 1), metrics

    return update


def _draw(
    key: jax.Array, images: jax.Array, labels: jax.Array, recipe: FinetuningRecipe, distort: Distort
) -> Batch:
    crop_key, flip_key, key, again_key = jax.random.split(key, 4)
    if recipe.crop_padding:
        images = augment.random_crop(crop_key, images, padding=recipe.crop_padding)
    if recipe.flip:
        images = augment.random_flip_left_right(flip_key, images)
    images = images.astype(jnp.float32) / 255
    distorted = distort(key, images)
    clean = images[..., : distorted.shape[-1]]
    return Batch(clean, distorted, lambda: distort(again_key, images), labels)


def _held_pass(student: Any, held_pass: str) -> Any:
    """The student, set to compute the layers that are compared; the statistics that it updates are not kept."""
    if held_pass == "inference":
        student.eval()
    else:
        student.set_attributes(nnx.Dropout, deterministic=True, raise_if_not_found=False)
    return student


def _held(
    penalty: Penalty,
    hidden: dict[str, jax.Array],
    original: dict[str, jax.Array],
    gain: jax.Array,
) -> jax.Array:
    """The penalty on the distance of the student's layers from those of the frozen network."""
    loss = losses.intermediate_mse
    if penalty.kind == "constraint":
        loss = functools.partial(losses.intermediate_constraint, gain=gain)
    weights = None
    if penalty.layer_weights is not None:
        weights = dict(zip(penalty.layers, penalty.layer_weights, strict=True))
    ours, theirs = ({name: h[name] for name in penalty.layers} for h in (hidden, original))
    return losses.mean_over_layers(loss, ours, theirs, weights=weights)


def _consistency(student: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Logits for the clean images, and the mean divergence of the outputs for the three views."""
    views = jnp.concatenate([batch.clean, batch.distorted, batch.again()])
    logits = student.activations(views)[0].reshape(3, len(batch.clean), -1)
    return logits[0], jax.vmap(losses.jensen_shannon, in_axes=1)(logits).mean()
