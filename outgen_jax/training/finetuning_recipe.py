"""How a network is fine-tuned (paper D): learning rate and length, the penalty and its numbers."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from outgen_jax.training import optimizers

SCHEDULES = ("constant", "cosine")
PENALTIES = ("none", "mse", "constraint", "consistency")
HELD = ("mse", "constraint")  # to the layers of a frozen network
PASSES = ("training", "no_dropout", "inference")

# (key, clean images [B, H, W, C] float32 in [0, 1]) -> distorted images of as many channels as the network takes
Distort = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningRecipe:
    """Options of the training. The defaults are those of paper D, which trains for 40 epochs.

    Attributes:
      updates: in all.
      batch_size: images of an update.
      learning_rate: of SGD, at first.
      momentum: in [0, 1).
      schedule: one of `SCHEDULES`; "cosine" lets the rate fall to 0.
      weight_decay: of kernels; biases and normalisation have none.
      crop_padding: pixels of zeros around an image before it is cropped at random. 0: images are not cropped.
      flip: whether an image is mirrored with probability 1/2.
    """

    updates: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    momentum: float = 0.0
    schedule: str = "constant"
    weight_decay: float = 0.0
    crop_padding: int = 0
    flip: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalty:
    """The term that is added to the cross-entropy, and its numbers.

    Attributes:
      kind: one of `PENALTIES`, see `finetuning`.
      weight: λ.
      layers: names of the layers whose pre-activations are compared; any sequence, or a single name, becomes a tuple.
      layer_weights: one for each layer; any sequence becomes a tuple. None: every neuron counts the same.
      gain: α of the constraint, at first.
      gain_end: α at the end, reached geometrically. None: α stays the same.
      gain_rate: if positive, log α is learned at this rate, from the same loss.
      held_pass: one of `PASSES`, how the layers compared are computed on the distorted images. "training": in the pass
        that gives the cross-entropy, with its dropout and batch statistics. The others add a pass: "no_dropout" with
        the batch's statistics, "inference" with running statistics, as the frozen network's layers are computed.
    """

    kind: str = "none"
    weight: float = 0.0
    layers: tuple[str, ...] = ("fc1", "fc2")
    layer_weights: tuple[float, ...] | None = None
    gain: float = 100.0
    gain_end: float | None = None
    gain_rate: float = 0.0
    held_pass: str = "training"

    def __post_init__(self) -> None:
        """Makes tuples of sequences: compiled updates are kept by penalty, which must be hashable."""
        layers = (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if self.layer_weights is not None:
            object.__setattr__(self, "layer_weights", tuple(map(float, self.layer_weights)))

    def without_numbers(self) -> "Penalty":
        """The options on which the compiled program depends; the others are its `Coefficients`."""
        return Penalty(
            kind=self.kind,
            layers=self.layers,
            layer_weights=self.layer_weights,
            held_pass=self.held_pass,
        )


class Coefficients(NamedTuple):
    """The numbers of a `Penalty`. They are traced, so that a grid of values shares one compiled update."""

    weight: jax.Array
    gain: jax.Array
    gain_end: jax.Array
    gain_rate: jax.Array


def coefficients(penalty: Penalty) -> Coefficients:
    """The numbers of a penalty as float32 arrays.

    >>> from outgen_jax.training import finetuning_recipe
    >>> print(finetuning_recipe.coefficients(finetuning_recipe.Penalty(kind="constraint", weight=0.5)).weight)
    0.5
    """
    end = penalty.gain if penalty.gain_end is None else penalty.gain_end
    numbers = (penalty.weight, penalty.gain, end, penalty.gain_rate)
    return Coefficients(*(jnp.float32(number) for number in numbers))


def make_optimizer(recipe: FinetuningRecipe) -> optax.GradientTransformation:
    """SGD with a constant learning rate, or one that falls to 0 along a cosine.

    >>> from outgen_jax.training import finetuning_recipe
    >>> recipe = finetuning_recipe.FinetuningRecipe(updates=10, schedule="cosine")
    >>> optimizer = finetuning_recipe.make_optimizer(recipe)
    """
    rate: optax.ScalarOrSchedule = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(recipe.learning_rate, recipe.updates)
    return optimizers.sgd(
        rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=False
    )


def gain_at(
    step: jax.Array, updates: int, coefficients: Coefficients, log_gain: jax.Array
) -> jax.Array:
    """α of an update: geometric from `gain` to `gain_end` over all updates, times the learned factor.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import finetuning_recipe
    >>> penalty = finetuning_recipe.Penalty(kind="constraint", gain=1.0, gain_end=100.0)
    >>> numbers = finetuning_recipe.coefficients(penalty)
    >>> print(round(float(finetuning_recipe.gain_at(jnp.array(5), 10, numbers, jnp.zeros(()))), 4))
    10.0
    """
    ratio = coefficients.gain_end / coefficients.gain
    return coefficients.gain * ratio ** (step / updates) * jnp.exp(log_gain)
