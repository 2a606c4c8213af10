"""Training of classifiers: one compiled update, with the data and its augmentation on the device.

The data set stays on the device as uint8 [N, H, W, C]; an update gathers its rows, crops and flips
them and takes one step. Everything random is a function of (key, step), so that a resumed run is
the uninterrupted one, bit for bit. What the network learns from its batch is an objective's to say
(`objectives`), how it steps the optimiser's (`classifier_recipe`).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from outgen_jax import loops
from outgen_jax.data import augment
from outgen_jax.training import objectives
from outgen_jax.training.classifier_recipe import OPTIMIZERS as OPTIMIZERS
from outgen_jax.training.classifier_recipe import SCHEDULES as SCHEDULES
from outgen_jax.training.classifier_recipe import Recipe as Recipe
from outgen_jax.training.classifier_recipe import learning_rate_schedule as learning_rate_schedule
from outgen_jax.training.classifier_recipe import make_optimizer as make_optimizer
from outgen_jax.training.classifier_recipe import muon as muon
from outgen_jax.training.classifier_recipe import sgd as sgd
from outgen_jax.training.objectives import Labels, Objective, Supervision


class TrainState(NamedTuple):
    """All that changes during training, a pytree of arrays."""

    params: nnx.State
    variables: nnx.State  # running statistics of batch normalisation, and the like
    opt_state: optax.OptState
    step: jax.Array  # [] int32, updates done


class Metrics(NamedTuple):
    """Of one update: mean loss in nats and top-1 accuracy on the augmented batch."""

    loss: jax.Array
    accuracy: jax.Array


Update = Callable[[TrainState, jax.Array, Labels, jax.Array], tuple[TrainState, Metrics]]
Apply = Callable[[TrainState, jax.Array], jax.Array]


def create(
    model: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits `model`, put into training mode here, into its definition and its first state."""
    model.train()
    graphdef, *states = nnx.split(model, nnx.Param, ...)
    params, variables = states
    state = TrainState(params, variables, optimizer.init(params), jnp.zeros((), jnp.int32))
    return graphdef, state


def make_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array | None = None,
    label_smoothing: float = 0.0,
    objective: Objective | None = None,
    crop_padding: int = 4,
    flip: bool = True,
) -> Update:
    """Makes `update(state, images, labels, rows) -> (state, metrics)`, pure, to jit or scan.

    `images` [N, H, W, C] uint8 and `labels` are the whole data set, `rows` [B] the batch's indices
    into it. `labels` are int32 [N], or a `Supervision` where the objective wants more.

    Args:
      graphdef: from `create`.
      optimizer: from `make_optimizer`.
      key: of all that is random; None: the `Supervision` has it, so that runs of many seeds share
        one compiled update.
      label_smoothing: of the default objective.
      objective: what is learnt from a batch; None: `objectives.plain(label_smoothing)`.
      crop_padding: pixels of zeros around an image before it is cropped at random.
      flip: whether every other image is mirrored.

    Raises:
      ValueError: an objective and a label smoothing; from the update, no key at all.
    """
    if objective is not None and label_smoothing:
        raise ValueError(
            "make_update: label_smoothing is the default objective's; with another, leave it 0"
        )
    learnt = objectives.plain(label_smoothing) if objective is None else objective

    def loss_fn(
        params: nnx.State, variables: nnx.State, images: jax.Array, wanted: Any
    ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        model = nnx.merge(graphdef, params, variables, copy=True)
        count = round(learnt.apart * len(images))
        if 0 < count < len(images):
            beside = nnx.merge(graphdef, params, variables, copy=True)
            logits = jnp.concatenate([beside(images[:count]), model(images[count:])])
        else:
            logits = model(images)
        return learnt.loss(logits, wanted), (nnx.state(model, nnx.Not(nnx.Param)), logits)

    def update(
        state: TrainState, images: jax.Array, labels: Labels, rows: jax.Array
    ) -> tuple[TrainState, Metrics]:
        supervision = labels if isinstance(labels, Supervision) else Supervision(labels)
        step_key = jax.random.fold_in(_the_key(key, supervision), state.step)
        crop_key, flip_key = jax.random.split(step_key)
        batch = augment.random_crop(crop_key, images[rows], padding=crop_padding)
        if flip:
            batch = augment.random_flip_left_right(flip_key, batch)
        batch = batch.astype(jnp.float32) / 255
        chosen = supervision.take(rows)
        # `split` has taken 0 and 1 of this key.
        batch, wanted = learnt.prepare(jax.random.fold_in(step_key, 2), state, batch, chosen)
        (loss, (variables, logits)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.variables, batch, wanted
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        accuracy = (logits.argmax(-1) == chosen.labels).mean()
        return TrainState(params, variables, opt_state, state.step + 1), Metrics(loss, accuracy)

    return update


def _the_key(key: jax.Array | None, supervision: Supervision) -> jax.Array:
    found = supervision.key if key is None else key
    if found is None:
        raise ValueError("make_update: no key; give one to make_update or to the Supervision")
    return found


def epoch_rows(key: jax.Array, epoch: int, num_images: int, batch_size: int) -> np.ndarray:
    """Every row once in random order, [steps, batch_size] int32, without the incomplete last batch.

    Raises:
      ValueError: a batch larger than the data set.
    """
    if batch_size > num_images:
        raise ValueError(
            f"epoch_rows: batch_size {batch_size} exceeds the {num_images} images; use a smaller "
            "batch"
        )
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), num_images))
    steps = num_images // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def run_epoch(
    update: Update, state: TrainState, images: jax.Array, labels: Labels, rows: np.ndarray
) -> Iterator[tuple[TrainState, Metrics]]:
    """Runs `update` (see `compile_update`) over `rows` [steps, B]; yields as it goes.

    A state that was yielded is gone (donated) with the next. As many steps a call as is fastest
    (`loops`); metrics come stacked, [steps of the call].
    """
    most = loops.updates_per_call(update, state, images, labels, rows[:1])
    for part in loops.split(rows, most):
        state, metrics = update(state, images, labels, jnp.asarray(part))
        yield state, metrics


def compile_update(update: Update) -> Update:
    """Jits `update` over a chunk of batches, `rows` [steps, B], donating the state."""

    def chunk(
        state: TrainState, images: jax.Array, labels: Labels, rows: jax.Array
    ) -> tuple[TrainState, Metrics]:
        if len(rows) == 1:
            state, metrics = update(state, images, labels, rows[0])
            return state, jax.tree.map(lambda m: m[None], metrics)
        return jax.lax.scan(lambda state, r: update(state, images, labels, r), state, rows)

    return jax.jit(chunk, donate_argnums=0)


def make_apply(graphdef: nnx.GraphDef) -> Apply:
    """The classifier in inference mode: `apply(state, images [B, H, W, C]) -> logits [B, K]`."""

    def apply(state: TrainState, images: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state.params, state.variables, copy=True)
        model.eval()
        return model(images)

    return apply


def accuracy(
    apply: Apply,
    state: TrainState,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 500,
) -> float:
    """Top-1 accuracy on `images` [N, H, W, C] uint8 with `labels` [N], `apply` from `make_apply`."""
    correct = 0
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        logits = apply(state, jnp.asarray(images[rows], jnp.float32) / 255)
        correct += int((np.asarray(logits).argmax(-1) == labels[rows]).sum())
    return correct / len(images)
