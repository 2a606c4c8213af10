"""One update of fine-tuning on distorted images (paper D), as pure functions of arrays.

Images are uint8 NHWC as they come, float32 in [0, 1] from the distortion on.
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

SCHEDULES = ("constant", "cosine")
PENALTIES = ("none", "mse", "constraint", "consistency")
HELD = ("mse", "constraint")  # to a frozen network

Distort = Callable[[jax.Array, jax.Array], jax.Array]


class Recipe(NamedTuple):
    """How long and how fast; the defaults are paper D's, but for `updates`, its 40 epochs."""

    updates: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    momentum: float = 0.0
    schedule: str = "constant"
    weight_decay: float = 0.0  # of kernels, not of biases and normalisation
    crop_padding: int = 0  # pixels; 0: images are not cropped
    mirror: bool = True  # each image with probability 1/2


class Penalty(NamedTuple):
    """What is added to the recognition loss, and how much of it."""

    kind: str = "none"
    weight: float = 0.0  # λ
    layers: tuple[str, ...] = ("fc1", "fc2")
    layer_weights: tuple[float, ...] | None = None  # None: every neuron counts the same
    gain: float = 100.0  # α
    gain_end: float | None = None  # α goes there geometrically; None: it stays
    gain_rate: float = 0.0  # above 0: log α is learned at this rate, from the same loss


class State(NamedTuple):
    """All that changes, a pytree of arrays."""

    params: nnx.State
    variables: nnx.State  # running statistics, dropout's keys
    opt_state: optax.OptState
    log_gain: jax.Array  # [] learned part of log α
    key: jax.Array
    step: jax.Array  # [] int32, updates done


class Coefficients(NamedTuple):
    """The numbers of a `Penalty`; traced, so that a grid of them shares one compiled update."""

    weight: jax.Array
    gain: jax.Array
    gain_end: jax.Array
    gain_rate: jax.Array


class Metrics(NamedTuple):
    """Of one update, on the batch it saw: losses in nats (MSE in squared units), accuracy, α."""

    loss: jax.Array
    recognition: jax.Array
    penalty: jax.Array  # before λ
    accuracy: jax.Array
    gain: jax.Array


class Batch(NamedTuple):
    """What an update sees: the augmented images [B, H, W, C], clean and distorted twice over."""

    clean: jax.Array
    distorted: jax.Array
    again: Callable[[], jax.Array]  # a second, independent distortion
    labels: jax.Array


Update = Callable[[State, nnx.State, Coefficients, jax.Array, jax.Array], tuple[State, Metrics]]


def coefficients(penalty: Penalty) -> Coefficients:
    """The penalty's numbers as float32 arrays."""
    end = penalty.gain if penalty.gain_end is None else penalty.gain_end
    numbers = (penalty.weight, penalty.gain, end, penalty.gain_rate)
    return Coefficients(*(jnp.float32(number) for number in numbers))


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """SGD, its rate constant or falling to 0 along a cosine."""
    rate: optax.ScalarOrSchedule = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(recipe.learning_rate, recipe.updates)
    decay = optax.add_decayed_weights(
        recipe.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    return optax.chain(decay, optax.sgd(rate, recipe.momentum or None))


def gain_at(
    step: jax.Array, updates: int, coefficients: Coefficients, log_gain: jax.Array
) -> jax.Array:
    """α of an update: from `gain` to `gain_end` geometrically, times what was learned."""
    ratio = coefficients.gain_end / coefficients.gain
    return coefficients.gain * ratio ** (step / updates) * jnp.exp(log_gain)


def make_update(
    graphdef: nnx.GraphDef,
    frozen_graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    penalty: Penalty,
    distort: Distort,
) -> Update:
    """Makes `update(state, frozen, coefficients, images [B, ...] uint8, labels [B])`, pure, to jit or scan.

    Of `penalty` only the kind, the layers and their weights are read; its numbers are `coefficients`.
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
        gain = gain_at(state.step, recipe.updates, c, log_gain)
        if penalty.kind == "consistency":
            logits, extra = _consistency(student, batch)
        else:
            logits, hidden = student.activations(batch.distorted)
            extra = jnp.zeros(())
            if penalty.kind in HELD:
                teacher = nnx.merge(frozen_graphdef, frozen, copy=True)
                extra = _held(penalty, hidden, teacher.activations(batch.clean)[1], gain)
        crossed = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        recognition = crossed.mean()
        loss = recognition + c.weight * extra
        accuracy = (logits.argmax(-1) == batch.labels).mean()
        metrics = Metrics(loss, recognition, extra, accuracy, gain)
        return loss, (nnx.state(student, nnx.Not(nnx.Param)), metrics)

    def update(
        state: State,
        frozen: nnx.State,
        coefficients: Coefficients,
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[State, Metrics]:
        batch = _draw(jax.random.fold_in(state.key, state.step), images, labels, recipe, distort)
        gradients, (variables, metrics) = jax.grad(loss_fn, has_aux=True)(
            (state.params, state.log_gain), state, frozen, coefficients, batch
        )
        changes, opt_state = optimizer.update(gradients[0], state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        log_gain = state.log_gain - coefficients.gain_rate * gradients[1]
        return State(params, variables, opt_state, log_gain, state.key, state.step + 1), metrics

    return update


def _draw(
    key: jax.Array, images: jax.Array, labels: jax.Array, recipe: Recipe, distort: Distort
) -> Batch:
    crop_key, flip_key, key, again_key = jax.random.split(key, 4)
    if recipe.crop_padding:
        images = augment.random_crop(crop_key, images, padding=recipe.crop_padding)
    if recipe.mirror:
        images = augment.random_flip_left_right(flip_key, images)
    images = images.astype(jnp.float32) / 255
    distorted = distort(key, images)
    clean = images[..., : distorted.shape[-1]]
    return Batch(clean, distorted, lambda: distort(again_key, images), labels)


def _held(
    penalty: Penalty,
    hidden: dict[str, jax.Array],
    original: dict[str, jax.Array],
    gain: jax.Array,
) -> jax.Array:
    """The penalty that ties the student's layers to the frozen network's."""
    loss = losses.intermediate_mse
    if penalty.kind == "constraint":
        loss = functools.partial(losses.intermediate_constraint, gain=gain)
    weights = None
    if penalty.layer_weights is not None:
        weights = dict(zip(penalty.layers, penalty.layer_weights, strict=True))
    ours, theirs = ({name: h[name] for name in penalty.layers} for h in (hidden, original))
    return losses.mean_over_layers(loss, ours, theirs, weights=weights)


def _consistency(student: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Logits on the clean images, and how far the three views' outputs disagree."""
    views = jnp.concatenate([batch.clean, batch.distorted, batch.again()])
    logits = student.activations(views)[0].reshape(3, len(batch.clean), -1)
    return logits[0], jax.vmap(losses.jensen_shannon, in_axes=1)(logits).mean()
