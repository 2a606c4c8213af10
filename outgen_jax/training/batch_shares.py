"""Objectives on a share of every batch, such as adversarial training of half of the images, and noise as one of them.

They are the controls for images that are generated in the step (`objectives.during`) on the same share.
"""

from typing import Any

import jax
import jax.numpy as jnp

from outgen_jax.training.objectives import Objective, Supervision, checked_fraction, plain


def on_share(objective: Objective, fraction: float, *, apart: bool = False) -> Objective:
    """`objective` on the first images of the batch, whose rows come in random order; the rest stays as it is.

    >>> from outgen_jax.training import batch_shares
    >>> objective = batch_shares.on_share(batch_shares.noise(0.5), 0.25)

    Args:
      objective: one whose loss takes the logits and labels of a batch: `objectives.plain`, `noise`, or
        `adversarial_examples.robust`.
      fraction: of the batch, in (0, 1].
      apart: whether these images are batch-normalised separately from the others, as in `objectives.during`.

    Raises:
      ValueError: a fraction outside [0, 1]; from `prepare`, one that leaves no image.
    """
    checked_fraction(fraction, caller="batch_shares.on_share")

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        count = round(fraction * len(images))
        if count == 0:
            raise ValueError(
                f"batch_shares.on_share: a fraction of {fraction} leaves no image of a batch of {len(images)}; use a "
                "larger fraction or batch"
            )
        first = given.take(jnp.arange(count))
        changed, labels = objective.prepare(key, state, images[:count], first)
        images = jnp.concatenate([changed, images[count:]])
        return images, jnp.concatenate([labels, given.labels[count:]])

    return Objective(prepare, objective.loss, fraction if apart else 0.0, objective.correct)


def noise(radius: float) -> Objective:
    """The cross-entropy of images that are moved by `radius` in a random direction.

    The change is Gaussian noise, scaled to an L2 norm of `radius` over all pixels of an image, and clipped to [0, 1].

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax.training import batch_shares, objectives
    >>> image, given = jnp.full((1, 4, 4, 3), 0.5), objectives.Supervision(jnp.array([2]))
    >>> moved, labels = batch_shares.noise(0.1).prepare(jax.random.key(0), None, image, given)
    >>> print(f"{jnp.linalg.norm(moved - image):.3f}", labels)
    0.100 [2]

    Args:
      radius: above 0; pixels go from 0 to 1.

    Raises:
      ValueError: a radius that is not positive.
    """
    if not radius > 0:
        raise ValueError(
            f"batch_shares.noise: radius must be positive, got {radius}; leave the noise out instead"
        )

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        direction = jax.random.normal(key, images.shape, images.dtype)
        length = jnp.sqrt((direction**2).sum((1, 2, 3), keepdims=True))
        return jnp.clip(images + radius * direction / length, 0, 1), given.labels

    return Objective(prepare, plain().loss)
