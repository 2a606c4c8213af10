"""One update of a classifier's training, with the data and its augmentation on the device.

The data set stays on the device as uint8 [N, H, W, C]; an update gathers its batch, crops and mirrors the images, and
takes one step of the optimiser. Everything random is a function of (key, step), so that a resumed run equals the
uninterrupted one, bit for bit. An objective says what the network learns from its batch (`objectives`), a recipe how
(`classifier_recipe`); `classifier_fit` runs the epochs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from outgen_jax.data import augment, grey_levels
from outgen_jax.networks import ApplyFn
from outgen_jax.training import objectives, updates
from outgen_jax.training.objectives import Labels, Objective, Supervision


class TrainState(NamedTuple):
    """All arrays that change during training."""

    params: nnx.State
    variables: nnx.State  # running statistics of batch normalisation, and the like
    opt_state: optax.OptState
    step: jax.Array  # [] int32, updates done


class Metrics(NamedTuple):
    """What an update measures on its augmented batch."""

    loss: jax.Array  # [] mean, in nats
    accuracy: jax.Array  # [] top-1, or the objective's own


Update = Callable[[TrainState, jax.Array, Labels, jax.Array], tuple[TrainState, Metrics]]


def create(
    model: nnx.Module, optimizer: optax.GradientTransformation, *, key: jax.Array | None = None
) -> tuple[nnx.GraphDef, TrainState]:
    """The definition of the network in training mode, and the first state, which shares no buffer with `model`.

    >>> import optax
    >>> from flax import nnx
    >>> from outgen_jax.training import classifier
    >>> graphdef, state = classifier.create(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), optax.sgd(0.1))
    >>> int(state.step)
    0

    Args:
      model: it stays as it is.
      optimizer: as `make_update` takes it.
      key: of dropout and other random layers. None: their own keys, whatever the key of the training.

    Raises:
      ValueError: `model` is no `flax.nnx` module.
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"classifier.create: model must be a flax.nnx module, got {type(model).__name__}; networks of other "
            "frameworks are steered, see og.models, and trained by their own tools"
        )
    trained = nnx.clone(model)
    trained.train()
    if key is not None:
        updates.reseed(trained, updates.dropout_key(key))
    graphdef, *states = nnx.split(trained, nnx.Param, ...)
    params, variables = jax.tree.map(jnp.copy, states)  # the buffers of the state are donated
    state = TrainState(params, variables, optimizer.init(params), jnp.zeros((), jnp.int32))
    return graphdef, state


def make_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array | None = None,
    objective: Objective | None = None,
    crop_padding: int = 4,
    flip: bool = True,
) -> Update:
    """Makes the pure function `update(state, images, labels, rows) -> (state, metrics)`.

    `images` [N, H, W, C] uint8 and `labels` are the whole data set, `rows` [B] the indices of the batch. `labels` are
    int32 [N], or a `Supervision` where the objective needs more than labels. `updates.compile_updates` compiles it.

    Args:
      graphdef: from `create`.
      optimizer: from `classifier_recipe.make_optimizer`, or any other of optax.
      key: of everything random. None: the key of the `Supervision` is used, so that runs with different seeds share
        one compiled update.
      objective: what the network learns from a batch. None: `objectives.plain()`.
      crop_padding: pixels of zeros around an image before it is cropped at random.
      flip: whether an image is mirrored with probability 1/2.

    Raises:
      ValueError: the update raises it if there is no key.
    """
    learnt = objectives.plain() if objective is None else objective

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
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        accuracy = learnt.correct(logits, chosen.labels)
        return TrainState(params, variables, opt_state, state.step + 1), Metrics(loss, accuracy)

    # `updates.compile_updates` hands it on: values of labels are not seen inside of an update.
    update.__dict__["check"] = functools.partial(_check, graphdef, learnt)
    return update


def _check(
    graphdef: nnx.GraphDef,
    objective: Objective,
    state: TrainState,
    images: Any,
    supervision: Supervision,
) -> None:
    """Refuses, where the objective learns classes, labels that are not classes of the network."""
    if objective.correct is not objectives.top_1:
        return
    labels = np.asarray(supervision.labels)
    grey_levels.check_labelled(images, labels, caller="fit")

    def logits_of(params: nnx.State, variables: nnx.State, batch: jax.Array) -> Any:
        return nnx.merge(graphdef, params, variables, copy=True)(batch)

    batch = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    try:
        found = jax.eval_shape(logits_of, state.params, state.variables, batch)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"fit: the network fails on an image of shape {list(images.shape[1:])}: {error}. Check the image size and "
            "the number of channels that it takes"
        ) from error
    if getattr(found, "ndim", 0) != 2:
        shapes = jax.tree.map(lambda leaf: list(leaf.shape), found)
        raise ValueError(
            f"fit: the network must return logits [B, K], one array, got {shapes} for a batch of 1; wrap it in a "
            "module that returns these alone"
        )
    num_classes = found.shape[-1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"fit: labels must be in 0..{num_classes - 1}, the network's classes; they span "
            f"{labels.min()}..{labels.max()}. Match the data's classes to the network's"
        )


def _the_key(key: jax.Array | None, supervision: Supervision) -> jax.Array:
    found = supervision.key if key is None else key
    if found is None:
        raise ValueError("make_update: no key; give one to make_update or to the Supervision")
    return found


def make_apply(graphdef: nnx.GraphDef, *, batch_statistics: bool = False) -> ApplyFn:
    """The classifier in inference mode: `apply(state, images [B, H, W, C]) -> logits [B, K]`.

    >>> import jax.numpy as jnp, optax
    >>> from flax import nnx
    >>> from outgen_jax.training import classifier
    >>> graphdef, state = classifier.create(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), optax.sgd(0.1))
    >>> classifier.make_apply(graphdef)(state, jnp.zeros((3, 4))).shape
    (3, 2)

    Args:
      graphdef: from `create`.
      batch_statistics: whether batch normalisation takes the statistics of the images that it is given, as in
        training. The running ones stay as they are.
    """

    def apply(state: TrainState, images: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state.params, state.variables, copy=True)
        model.eval()
        if batch_statistics and any(
            isinstance(m, nnx.BatchNorm) for _, m in nnx.iter_modules(model)
        ):
            model.set_attributes(nnx.BatchNorm, use_running_average=False)
        return model(images)

    return apply


def accuracy(
    apply: ApplyFn,
    state: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 500,
) -> float:
    """Top-1 accuracy, in [0, 1]. Images for which the network returns NaN count as wrong.

    Args:
      apply: from `make_apply`, or a network's `apply_fn`; better jitted.
      state: the first argument of `apply`.
      images: [N, H, W, C] uint8; the network sees them as float32 in [0, 1].
      labels: int [N].
      batch_size: images at a time.

    Raises:
      ValueError: no images, images that are not uint8, or labels that are not one for each.
    """
    grey_levels.check_labelled(images, labels, caller="classifier.accuracy")
    size, correct = min(batch_size, len(images)), 0
    for start in range(0, len(images), size):
        # The last batch is filled up with copies, so that one shape is compiled for all.
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        logits = np.asarray(apply(state, jnp.asarray(images[rows], jnp.float32) / 255))
        right = (logits.argmax(-1) == labels[rows]) & ~np.isnan(logits).any(-1)
        correct += int(right[: len(images) - start].sum())
    return correct / len(images)
