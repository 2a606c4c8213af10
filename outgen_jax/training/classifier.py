"""Training of classifiers: one compiled update, with the data and its augmentation on the device.

The data set stays on the device as uint8 [N, H, W, C]; an update gathers its rows, crops and flips
them and takes one step. Everything random is a function of (key, step), so that a resumed run is
the uninterrupted one, bit for bit. What the fast CIFAR-10 trainers teach (airbench and its Muon
variant, Jordan 2024; hlb-CIFAR10, Balsam 2023) is here: Muon or Nesterov momentum, a short warm-up,
no weight decay on biases and normalisation. Their label smoothing is off by default: it bends the
very output distributions that this package is about.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from optax import contrib

from outgen_jax.data import augment

SCHEDULES = ("cosine", "step")
OPTIMIZERS = ("sgd", "muon")

# Adam's learning rate as a share of Muon's, for what Muon does not take.
_ADAM_SHARE = 0.1


class Recipe(NamedTuple):
    """How a classifier is trained, on the mean loss; the defaults of rate and decay suit "sgd".

    For "muon" use 0.08 and 0.05 at a batch of 512, or 0.04 and 0.05 at 256.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    schedule: str = "cosine"


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


Update = Callable[[TrainState, jax.Array, jax.Array, jax.Array], tuple[TrainState, Metrics]]
Apply = Callable[[TrainState, jax.Array], jax.Array]


def learning_rate_schedule(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by update: "cosine" after a warm-up of a tenth of all updates, or "step".

    "step" goes to a tenth at 50 % of all updates and again at 75 %.

    Raises:
      ValueError: an unknown schedule, or no updates at all.
    """
    total = recipe.epochs * steps_per_epoch
    if total < 1:
        raise ValueError(
            f"learning_rate_schedule: {recipe.epochs} epochs of {steps_per_epoch} updates leave "
            "nothing to train; use more epochs, or a batch no larger than the data set"
        )
    match recipe.schedule:
        case "cosine":
            warmup = min(max(1, total // 10), total - 1)
            return optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, warmup, total)
        case "step":
            boundaries = {total // 2: 0.1, total * 3 // 4: 0.1}
            return optax.piecewise_constant_schedule(recipe.learning_rate, boundaries)
    raise ValueError(
        f"learning_rate_schedule: unknown schedule {recipe.schedule!r}; use one of "
        f"{', '.join(SCHEDULES)}"
    )


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """The recipe's optimiser over its learning rate schedule; see `sgd` and `muon`.

    Raises:
      ValueError: an unknown optimiser or schedule, or no updates at all.
    """
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    match recipe.optimizer:
        case "sgd":
            return sgd(schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        case "muon":
            return muon(schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    raise ValueError(
        f"make_optimizer: unknown optimizer {recipe.optimizer!r}; use one of "
        f"{', '.join(OPTIMIZERS)}"
    )


def sgd(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Nesterov SGD whose weight decay spares biases and normalisation (arrays of one axis)."""
    return optax.chain(
        optax.add_decayed_weights(
            weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        ),
        optax.sgd(schedule, momentum, nesterov=True),
    )


def muon(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for convolutions and hidden layers, Adam for the rest.

    Each kernel's momentum, as a matrix [inputs, outputs], is orthogonalised, so that all its
    directions learn alike. The weight decay is decoupled.
    """
    return contrib.muon(
        schedule,
        beta=momentum,
        weight_decay=weight_decay,
        adam_learning_rate=lambda step: _ADAM_SHARE * schedule(step),
        muon_weight_dimension_numbers=_matrix_axes,
    )


def _matrix_axes(params: nnx.State) -> nnx.State:
    """Which axes of a parameter are its matrix's rows and columns; None: not for Muon."""

    def axes(path: tuple[jax.tree_util.KeyEntry, ...], p: jax.Array) -> object:
        if p.ndim < 2 or jax.tree_util.keystr(path[:1], simple=True) == "head":
            return None
        *inputs, output = range(p.ndim)
        return contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree_util.tree_map_with_path(axes, params)


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
    key: jax.Array,
    label_smoothing: float = 0.0,
) -> Update:
    """Makes `update(state, images, labels, rows) -> (state, metrics)`, pure, to jit or scan.

    `images` [N, H, W, C] uint8 and `labels` [N] int32 are the whole data set, `rows` [B] the
    batch's indices into it.
    """

    def loss_fn(
        params: nnx.State, variables: nnx.State, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        model = nnx.merge(graphdef, params, variables, copy=True)
        logits = model(images)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (nnx.state(model, nnx.Not(nnx.Param)), logits)

    def update(
        state: TrainState, images: jax.Array, labels: jax.Array, rows: jax.Array
    ) -> tuple[TrainState, Metrics]:
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = augment.random_crop(crop_key, images[rows], padding=4)
        batch = augment.random_flip_left_right(flip_key, batch).astype(jnp.float32) / 255
        (loss, (variables, logits)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.variables, batch, labels[rows]
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        accuracy = (logits.argmax(-1) == labels[rows]).mean()
        return TrainState(params, variables, opt_state, state.step + 1), Metrics(loss, accuracy)

    return update


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
    update: Update, state: TrainState, images: jax.Array, labels: jax.Array, rows: np.ndarray
) -> Iterator[tuple[TrainState, Metrics]]:
    """Runs `update` (see `compile_update`) over `rows` [steps, B]; yields as it goes.

    A state that was yielded is gone (donated) with the next. On CPU one step a call, because XLA's
    convolution gradients are slow inside loops there; elsewhere a scanned chunk a call, so that the
    host is out of the way. Metrics come stacked, [steps of the chunk].
    """
    chunk = 1 if jax.default_backend() == "cpu" else 50
    for start in range(0, len(rows), chunk):
        state, metrics = update(state, images, labels, jnp.asarray(rows[start : start + chunk]))
        yield state, metrics


def compile_update(update: Update) -> Update:
    """Jits `update` over a chunk of batches, `rows` [steps, B], donating the state."""

    def chunk(
        state: TrainState, images: jax.Array, labels: jax.Array, rows: jax.Array
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
