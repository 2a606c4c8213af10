"""Distillation on images near or on the teacher's decision boundaries.

A share of every batch is moved to a boundary between its own class and another. There the student learns the teacher's
output alone; elsewhere it learns labels and outputs, as in `objectives.distillation`. The images are those of Heo et
al. (AAAI 2019, "Knowledge distillation with adversarial samples supporting decision boundary"), made by
`nearby_images`, or images whose output is exact, made by any other `objectives.Generate`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from outgen_jax import losses
from outgen_jax.networks import ApplyFn
from outgen_jax.training import objectives
from outgen_jax.training.objectives import Generate, Objective, Supervision

# Of Heo et al.
_STEPS = 10
_RATE = 0.3
_MARGIN = 1e-4  # added to the difference of logits, so that a step on the boundary has a length
_SMALLEST_NORM = 1e-30  # a gradient below it gives no direction


def objective(apply: ApplyFn, generate: Generate, fraction: float) -> Objective:
    r"""Distillation of which the first `fraction` of the batch, in random order, is moved by `generate`.

    .. math:: \frac{1}{2} D_{KL}(q \| p) + \frac{1}{2} L_c(p, t)

    for the images that stay, and D_KL(q ‖ p) for those that are moved, where the label t does not hold. p is the
    student's output and q the teacher's, both for the image as it is.

    Args:
      apply: the frozen teacher, on the variables `frozen` of the supervision.
      generate: moves the images and gives the teacher's logits for them.
      fraction: of the batch, in [0, 1].

    Raises:
      ValueError: a fraction outside [0, 1]; from `prepare`, one that leaves no image to move.
    """
    moved = objectives.during(generate, fraction)

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        images, (labels, teacher, generated) = moved.prepare(key, state, images, given)
        count = round(fraction * len(images))
        teacher = teacher.at[count:].set(apply(given.frozen, images[count:]).astype(teacher.dtype))
        return images, (labels, teacher, generated)

    return Objective(prepare, _loss)


def nearby_images(
    apply: ApplyFn, *, steps: int = _STEPS, rate: float = _RATE, margin: float = _MARGIN
) -> Generate:
    r"""The images of Heo et al. near a boundary, from the images that the teacher gives their label.

    .. math:: x \leftarrow x - \eta (d + \epsilon) \nabla d / \lVert \nabla d \rVert_2^2, \quad d = f_b - f_k

    f are the teacher's logits, b the image's own class, and k another class, drawn with the teacher's probabilities.
    An image stops at its first step across a boundary, to whatever class. Pixels are clipped to [0, 1]. Heo et al.
    also choose the images on which student and teacher differ most; here all of the given ones are moved.

    Args:
      apply: the frozen teacher: (variables, images [n, H, W, C]) -> logits [n, K].
      steps: at most.
      rate: η; 1 would reach the boundary of a linear network in one step.
      margin: ε.

    Raises:
      ValueError: steps or a rate that are not positive.
    """
    if steps < 1 or not rate > 0:
        raise ValueError(
            f"boundary_distillation.nearby_images: steps and rate must be positive, got {steps} and {rate}; Heo et al. "
            f"use {_STEPS} and {_RATE}"
        )

    def generate(
        key: jax.Array, state: Any, frozen: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        def logits_of(image: jax.Array) -> jax.Array:
            return apply(frozen, image[None])[0].astype(jnp.float32)

        def difference(image: jax.Array, own: jax.Array, other: jax.Array) -> Any:
            logits = logits_of(image)
            return logits[own] - logits[other], logits.argmax().astype(jnp.int32) == own

        def step(image: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
            slope = jax.value_and_grad(difference, has_aux=True)
            (distance, inside), gradient = slope(image, own, other)
            squared = jnp.maximum((gradient**2).sum(), _SMALLEST_NORM)
            moved = jnp.clip(image - rate * (distance + margin) * gradient / squared, 0, 1)
            return jnp.where(inside, moved, image)

        labels = labels.astype(jnp.int32)
        logits = apply(frozen, images).astype(jnp.float32)
        is_own = losses.one_hot(labels, logits.shape[-1]) > 0
        others = jnp.where(is_own, -jnp.inf, logits)
        drawn = jax.random.categorical(key, others)
        # Unrolled: some convolutions are slow in loops on CPU, see `chunking`.
        for _ in range(steps):
            images = jax.vmap(step)(images, labels, drawn)
        return images, apply(frozen, images).astype(jnp.float32)

    return generate


def _loss(logits: jax.Array, wanted: Any) -> jax.Array:
    labels, teacher_logits, moved = wanted

    def one(logits: jax.Array, label: jax.Array, teacher: jax.Array, moved: jax.Array) -> jax.Array:
        divergence = losses.kl_divergence(logits, jax.nn.softmax(teacher))
        t = losses.one_hot(label, len(logits))
        labelled = losses.cross_entropy(logits, t)
        return jnp.where(moved, divergence, (divergence + labelled) / 2)

    return jax.vmap(one)(logits, labels, jax.lax.stop_gradient(teacher_logits), moved).mean()
