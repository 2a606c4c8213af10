"""How a classifier is trained: learning rate, optimiser, length, objective.

Muon or Nesterov momentum, a short warm-up, and no weight decay on biases and normalisation come from the fast CIFAR-10
trainers (airbench and its Muon variant, Jordan 2024; hlb-CIFAR10, Balsam 2023). Their label smoothing is off by
default: it changes the output distributions, which are the subject of this package.
"""

import dataclasses

import optax

from outgen_jax.networks import ApplyFn
from outgen_jax.training import adversarial_examples, objectives, optimizers

SCHEDULES = ("cosine", "step", "linear")
OPTIMIZERS = ("sgd", "muon", "normalized_muon")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """Options of the training of a classifier on the mean cross-entropy.

    The default learning rate and weight decay suit "sgd". For "muon" use 0.08 and 0.05 at a batch of 512, or 0.04 and
    0.05 at 256. "normalized_muon" is for `models.WhitenedCNN`: 0.24 at a batch of 2,000, momentum 0.6, the linear
    schedule, label smoothing 0.2; its decay of weights is its own.

    Attributes:
      epochs: passes over the training images.
      batch_size: images of an update.
      optimizer: one of `OPTIMIZERS`.
      learning_rate: the largest one of the schedule.
      momentum: in [0, 1).
      weight_decay: of kernels; biases and normalisation have none. With "muon", what is called `head` has none either.
      label_smoothing: share of each label that is spread over all classes.
      schedule: one of `SCHEDULES`, see `learning_rate_schedule`.
      crop_padding: pixels of zeros around an image before it is cropped at random.
      flip: whether an image is mirrored with probability 1/2. Digits and text must not be.
      robust_radius: of the L2 ball of adversarial training, see `adversarial_examples.robust`. None: the images are
        learnt as they are.
      robust_steps: of the attack in an update, with `robust_radius` only.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    schedule: str = "cosine"
    crop_padding: int = 4
    flip: bool = True
    robust_radius: float | None = None
    robust_steps: int | None = None


def learning_rate_schedule(recipe: ClassifierRecipe, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by update: "cosine" after a warm-up of a tenth of all updates, "step", or "linear".

    "step" divides the rate by 10 after half of all updates, and again after three quarters. "linear" falls from the
    first update on.

    >>> from outgen_jax.training import classifier_recipe
    >>> recipe = classifier_recipe.ClassifierRecipe(epochs=2, schedule="step")
    >>> rate = classifier_recipe.learning_rate_schedule(recipe, steps_per_epoch=4)
    >>> [round(float(rate(update)), 4) for update in (0, 4, 6)]
    [0.1, 0.01, 0.001]

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
        case "linear":
            return optax.linear_schedule(recipe.learning_rate, 0.0, total)
    raise ValueError(
        f"learning_rate_schedule: unknown schedule {recipe.schedule!r}; use one of "
        f"{', '.join(SCHEDULES)}"
    )


def make_optimizer(recipe: ClassifierRecipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser of the recipe with its learning rate schedule; see `optimizers`.

    >>> from outgen_jax.training import classifier_recipe
    >>> recipe = classifier_recipe.ClassifierRecipe(epochs=2, optimizer="muon", learning_rate=0.04)
    >>> optimizer = classifier_recipe.make_optimizer(recipe, steps_per_epoch=4)

    Raises:
      ValueError: an unknown optimiser or schedule, no updates at all, or numbers out of range.
    """
    if not recipe.learning_rate > 0 or not 0 <= recipe.momentum < 1 or not recipe.weight_decay >= 0:
        raise ValueError(
            "make_optimizer: learning_rate must be positive, momentum in [0, 1) and weight_decay not negative; got "
            f"{recipe.learning_rate}, {recipe.momentum} and {recipe.weight_decay}"
        )
    schedule = learning_rate_schedule(recipe, steps_per_epoch)
    momentum, decay = recipe.momentum, recipe.weight_decay
    match recipe.optimizer:
        case "sgd":
            return optimizers.sgd(schedule, momentum=momentum, weight_decay=decay)
        case "muon":
            return optimizers.muon(schedule, momentum=momentum, weight_decay=decay)
        case "normalized_muon":
            return optimizers.normalized_muon(
                schedule,
                momentum=momentum,
                peak=recipe.learning_rate,
                batch_size=recipe.batch_size,
            )
    raise ValueError(
        f"make_optimizer: unknown optimizer {recipe.optimizer!r}; use one of "
        f"{', '.join(OPTIMIZERS)}"
    )


def make_objective(recipe: ClassifierRecipe, apply: ApplyFn) -> objectives.Objective:
    """The objective of the recipe: `objectives.plain`, or `adversarial_examples.robust` if it has a radius.

    >>> from outgen_jax.training import classifier_recipe
    >>> recipe = classifier_recipe.ClassifierRecipe(epochs=2, robust_radius=0.5, robust_steps=2)
    >>> objective = classifier_recipe.make_objective(recipe, lambda state, images: images @ state)

    Args:
      recipe: its label smoothing, radius and steps are read.
      apply: (training state, images) -> logits [B, K], from `classifier.make_apply`.

    Raises:
      ValueError: a radius without steps or the reverse, or one that is not positive.
    """
    radius, steps, smoothing = recipe.robust_radius, recipe.robust_steps, recipe.label_smoothing
    if radius is None and steps is None:
        return objectives.plain(smoothing)
    if radius is None or steps is None:
        raise ValueError(
            f"make_objective: robust_radius and robust_steps belong together, got {radius} and {steps}; "
            "give both, or neither for ordinary training"
        )
    return adversarial_examples.robust(apply, radius=radius, steps=steps, label_smoothing=smoothing)
