"""How far a linear model is trusted: the radius of a step, and how it follows what the model foretold."""

import jax
import jax.numpy as jnp

# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
_MIN_RADIUS = 1e-4


def first_radius(image: jax.Array) -> jax.Array:
    """How far the first step of an image may go: [], L2 norm."""
    return jnp.float32(_FIRST_RADIUS * image.size**0.5)


def next_radius(radius: jax.Array, length: jax.Array, agreement: jax.Array) -> jax.Array:
    """The radius after a step of L2 norm `length` that lowered the loss `agreement` times as foretold."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    shrunk = jnp.where(agreement > 0, taken / 2, taken / 4)
    kept = jnp.where(agreement > 0.75, 3 * radius, radius)
    return jnp.clip(jnp.where(agreement > 0.25, kept, shrunk), _MIN_RADIUS, 1 / _MIN_RADIUS)
