"""Adversarial examples within an L2 ball, training on them, and the accuracy that is left under them.

Images are float32 [B, H, W, C] in [0, 1], and radii are L2 norms over all pixels of an image. `projected_gradient` is
the attack of Madry et al. (2018); `robust` trains on it and `robust_accuracy` measures with it.

`apply` of `robust` makes the examples in training. In inference mode each depends on its own image alone, and Pang et
al. (2021, "Bag of tricks for adversarial training") found a higher clean accuracy this way than with statistics of the
batch. Where weights change fast, the running statistics lag behind them, and the attack is one on another network. A
WhitenedCNN then learned to read the label from the attack: most attacked training images were right, and most clean
test images wrong. Make the examples with the statistics of the batch there
(`classifier.make_apply(..., batch_statistics=True)`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from outgen_jax import image_checks
from outgen_jax.data import grey_levels
from outgen_jax.networks import ApplyFn
from outgen_jax.training import objectives
from outgen_jax.training.objectives import Objective, Supervision

Loss = Callable[[jax.Array], jax.Array]  # images [B, H, W, C] -> [B]

STEPS = 20  # of the attack that networks are measured with
_REACH = 2.5  # all steps of the default size together, in radii (Madry et al. 2018)
_BATCH = 100  # images that `attacked` works on at a time
_SMALLEST = 1e-30  # a gradient whose entries are all below it gives no direction


def projected_gradient(
    loss: Loss,
    images: jax.Array,
    key: jax.Array | None,
    *,
    radius: float,
    steps: int = STEPS,
    step_size: float | None = None,
) -> jax.Array:
    r"""Maximises a loss within an L2 ball around each image and within [0, 1]: [B, H, W, C] -> [B, H, W, C].

    .. math:: x \leftarrow \mathrm{clip}_{[0, 1]}\big(x_0 + \Pi_r(x + \alpha g / \lVert g \rVert_2 - x_0)\big)

    where g is the loss's gradient at x, x₀ the image, and Π_r the projection on the ball around 0. This is
    projected gradient ascent with normalised steps (Madry et al. 2018). It is deterministic for a key. The result of
    an image depends on the other images only if its loss does.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import adversarial_examples
    >>> image = jnp.full((1, 1, 2, 1), 0.5)
    >>> loss = lambda images: images.reshape(-1, 2) @ jnp.array([3.0, 4.0])
    >>> found = adversarial_examples.projected_gradient(loss, image, None, radius=0.1)
    >>> print(found.ravel().round(2))  # 0.1 along the gradient
    [0.56 0.58]

    Args:
      loss: of images, one value each.
      images: the centres of the balls.
      key: of the random start, see `random_start`. None: from the images themselves.
      radius: of the ball, above 0.
      steps: gradients, at least 1.
      step_size: L2 length of a step. None: 2.5·radius/steps, but no more than the radius.

    Raises:
      ValueError: images of another rank, or a radius, number of steps or step size that is not positive.
    """
    length = _checked_step(radius, steps, step_size, caller="projected_gradient")
    image_checks.check_batch(images, caller="projected_gradient")
    found = images if key is None else random_start(key, images, radius)
    # Unrolled: some convolutions are slow in loops on CPU, see `chunking`, and a training takes few steps.
    for _ in range(steps):
        found = _ascend(loss, found, images, radius, length)
    return found


def random_start(key: jax.Array, images: jax.Array, radius: float) -> jax.Array:
    """A random point of the ball around each image, clipped to [0, 1]: [B, H, W, C] -> [B, H, W, C].

    Its direction is uniform, and so is its distance in [0, radius] (Rice et al. 2020). A uniform point of the ball
    would almost always lie on the sphere, where it leaves the attack little of the radius.

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax.training import adversarial_examples
    >>> image = jnp.full((1, 4, 4, 3), 0.5)
    >>> start = adversarial_examples.random_start(jax.random.key(0), image, 0.3)
    >>> bool(jnp.linalg.norm(start - image) <= 0.3)
    True
    """

    def start(key: jax.Array, image: jax.Array) -> jax.Array:
        direction_key, length_key = jax.random.split(key)
        direction = _unit(jax.random.normal(direction_key, image.shape, image.dtype))
        return image + radius * jax.random.uniform(length_key, dtype=image.dtype) * direction

    # A key for each row, so that a row's start does not depend on the size of the batch.
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(images)))
    return jnp.clip(jax.vmap(start)(keys, images), 0, 1)


def robust(
    apply: ApplyFn,
    *,
    radius: float,
    steps: int = 3,
    step_size: float | None = None,
    label_smoothing: float = 0.0,
) -> Objective:
    r"""Adversarial training: the cross-entropy of the worst images that the attack finds (Madry et al. 2018, Eq. 2.1).

    .. math:: \min_\theta E \max_{\lVert\delta\rVert_2 \le r} L(\theta, x + \delta, y)

    The inner maximum is `projected_gradient` from a random start, with the weights before the update.
    `Metrics.accuracy` is that of the attacked images.

    Few steps may suffice if they start at random (Wong et al. 2020). With too few, a network learns to bend its
    gradient, and longer attacks succeed again (catastrophic overfitting: Andriushchenko and Flammarion 2020). A sign of
    it is that attacked training images are right more often than clean test images; `robust_accuracy` measures it.

    >>> import jax, optax
    >>> from flax import nnx
    >>> from outgen_jax.training import adversarial_examples, classifier
    >>> optimizer = optax.sgd(0.1)
    >>> graphdef, state = classifier.create(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), optimizer)
    >>> objective = adversarial_examples.robust(classifier.make_apply(graphdef), radius=0.5)
    >>> update = classifier.make_update(graphdef, optimizer, key=jax.random.key(0), objective=objective)

    Args:
      apply: (training state, images) -> logits [B, K], from `classifier.make_apply`; see the module.
      radius: of the ball, above 0.
      steps: gradients of the images in an update, at least 1.
      step_size: L2 length of a step. None: 2.5·radius/steps, but no more than the radius.
      label_smoothing: share of each label that is spread over all classes, in the outer loss.

    Raises:
      ValueError: a radius, number of steps or step size that is not positive.
    """
    length = _checked_step(radius, steps, step_size, caller="adversarial_examples.robust")
    outer = objectives.plain(label_smoothing)

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, jax.Array]:
        moved = projected_gradient(
            _label_loss(apply, state, given.labels),
            images,
            key,
            radius=radius,
            steps=steps,
            step_size=length,
        )
        return jax.lax.stop_gradient(moved), given.labels

    return Objective(prepare, outer.loss)


def attacked(
    apply_fn: ApplyFn,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    radius: float,
    steps: int = STEPS,
    key: jax.Array | None = None,
) -> np.ndarray:
    """Adversarial examples of many images, in the default step size: uint8 [N, H, W, C] -> float32 in [0, 1].

    The loss that is maximised is the cross-entropy with the labels. A compiled program makes one step of 100 images.

    Args:
      apply_fn: the network in inference mode; its logits [B, K].
      variables: of the network.
      images: [N, H, W, C] uint8.
      labels: int [N].
      radius: of the ball, above 0.
      steps: gradients an image, at least 1.
      key: of the random start. None: from the images themselves.

    Raises:
      ValueError: a radius or number of steps that is not positive, no images, images that are not uint8, or labels
        that are not one for each.
    """
    caller = "adversarial_examples.attacked"
    length = _checked_step(radius, steps, None, caller=caller)
    grey_levels.check_labelled(images, labels, caller=caller)
    moved = []
    for batch, rows in enumerate(_batches(len(images))):
        centres = jnp.asarray(images[rows], jnp.float32) / 255
        found, wanted = centres, jnp.asarray(labels[rows])
        if key is not None:
            found = random_start(jax.random.fold_in(key, batch), centres, radius)
        for _ in range(steps):
            found = _compiled_step(apply_fn, variables, found, centres, wanted, radius, length)
        moved.append(np.asarray(found))
    return np.concatenate(moved)[: len(images)]


class Robustness(NamedTuple):
    """The entry `robustness` of a model card."""

    accuracy: float  # top-1 on attacked test images, in [0, 1]
    radius: float  # of the attack
    steps: int  # of the attack


def robustness(
    apply_fn: ApplyFn, variables: Any, images: np.ndarray, labels: np.ndarray, *, radius: float
) -> Robustness:
    """`robust_accuracy` under 20 steps from a random start, as a model card has it; arguments as there."""
    found = robust_accuracy(
        apply_fn, variables, images, labels, radius=radius, key=jax.random.key(0)
    )
    return Robustness(found, radius, STEPS)


def robust_accuracy(
    apply_fn: ApplyFn,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    radius: float,
    steps: int = STEPS,
    key: jax.Array | None = None,
) -> float:
    """Top-1 accuracy on the images that `attacked` makes, in [0, 1]: an upper bound of that in the whole ball.

    Args:
      apply_fn: the network in inference mode; its logits [B, K].
      variables: of the network.
      images: [N, H, W, C] uint8.
      labels: int [N].
      radius: of the ball, above 0.
      steps: gradients an image, at least 1.
      key: of the random start. None: from the images themselves.

    Raises:
      ValueError: a radius or number of steps that is not positive, no images, images that are not uint8, or labels
        that are not one for each.
    """
    moved = attacked(apply_fn, variables, images, labels, radius=radius, steps=steps, key=key)
    found = [
        np.asarray(_compiled_class(apply_fn, variables, jnp.asarray(moved[rows])))
        for rows in _batches(len(moved))
    ]
    return float((np.concatenate(found)[: len(moved)] == labels).mean())


def _batches(count: int) -> Iterator[np.ndarray]:
    """The rows of each batch. The last one is filled up with copies, so that one shape is compiled for all."""
    for first in range(0, count, _BATCH):
        yield np.minimum(np.arange(first, first + _BATCH), count - 1)


@functools.partial(jax.jit, static_argnames="apply_fn")
def _compiled_class(apply_fn: ApplyFn, variables: Any, images: jax.Array) -> jax.Array:
    """The most probable class, [B]; -1 where the network returns NaN."""
    logits = apply_fn(variables, images)
    return jnp.where(jnp.isnan(logits).any(-1), -1, logits.argmax(-1))


@functools.partial(jax.jit, static_argnames="apply_fn")
def _compiled_step(
    apply_fn: ApplyFn,
    variables: Any,
    found: jax.Array,
    centres: jax.Array,
    labels: jax.Array,
    radius: float,
    length: float,
) -> jax.Array:
    return _ascend(_label_loss(apply_fn, variables, labels), found, centres, radius, length)


def _ascend(
    loss: Loss,
    found: jax.Array,
    centres: jax.Array,
    radius: jax.typing.ArrayLike,
    length: jax.typing.ArrayLike,
) -> jax.Array:
    """One step along the normalised gradient, then back into the ball, then into [0, 1].

    Clipping moves a point towards the centre, which lies in [0, 1] itself, so that it stays in the ball.
    """
    gradients = jax.grad(lambda images: loss(images).sum())(found)

    def step(image: jax.Array, gradient: jax.Array, centre: jax.Array) -> jax.Array:
        change = image + length * _unit(gradient) - centre
        return jnp.clip(centre + optax.projections.projection_l2_ball(change, radius), 0, 1)

    return jax.vmap(step)(found, gradients, centres)


def _label_loss(apply_fn: ApplyFn, variables: Any, labels: jax.Array) -> Loss:
    def loss(images: jax.Array) -> jax.Array:
        logits = apply_fn(variables, images).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return loss


def _unit(x: jax.Array) -> jax.Array:
    # Scaled first: the squares of entries below 1e-19 are 0 in float32.
    scaled = x / jnp.maximum(jnp.abs(x).max(), _SMALLEST)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled), _SMALLEST)


def _checked_step(radius: float, steps: int, step_size: float | None, *, caller: str) -> float:
    """The step size, after checking the attack's options."""
    if not (0 < radius < np.inf and steps >= 1 and (step_size is None or 0 < step_size < np.inf)):
        raise ValueError(
            f"{caller}: radius, steps and step_size must be positive, got {radius}, {steps} and {step_size}; for "
            "pixels in [0, 1], CIFAR-10 is usually attacked with a radius of 0.5"
        )
    return radius * min(_REACH / steps, 1) if step_size is None else step_size
