"""The trust region of a linear model: the radius of a step, adapted to the accuracy of the prediction."""

import jax
import jax.numpy as jnp

# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
_MIN_RADIUS = 1e-4


def first_radius(image: jax.Array) -> jax.Array:
    """The largest L2 norm of the first step of an image: []."""
    return jnp.float32(_FIRST_RADIUS * image.size**0.5)


def next_radius(radius: jax.Array, length: jax.Array, agreement: jax.Array) -> jax.Array:
    """The radius after a step of L2 norm `length` that lowered the loss by `agreement` times the prediction."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    shrunk = jnp.where(agreement > 0, taken / 2, taken / 4)
    kept = jnp.where(agreement > 0.75, 3 * radius, radius)
    return jnp.clip(jnp.where(agreement > 0.25, kept, shrunk), _MIN_RADIUS, 1 / _MIN_RADIUS)
