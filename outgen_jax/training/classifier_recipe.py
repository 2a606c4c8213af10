"""How a classifier is trained: learning rates and optimisers.

What the fast CIFAR-10 trainers teach (airbench and its Muon variant, Jordan 2024; hlb-CIFAR10,
Balsam 2023) is here: Muon or Nesterov momentum, a short warm-up, no weight decay on biases and
normalisation. Their label smoothing is off by default: it bends the very output distributions that
this package is about.
"""

from typing import NamedTuple

import jax
import optax
from flax import nnx
from optax import contrib

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
