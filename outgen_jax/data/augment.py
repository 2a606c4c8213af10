"""Random and fixed changes of images for training.

Images [B, H, W, C]; any dtype, which is kept. `key` first, options keyword-only.
"""

import jax
import jax.numpy as jnp


def random_crop(key: jax.Array, images: jax.Array, *, padding: int) -> jax.Array:
    """Pads each side with `padding` zero pixels and cuts a random window of the old size per image.

    (Paper A, Sec. 3.)
    """
    b, h, w, c = images.shape
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(key, (b, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))

    return jax.vmap(crop)(jnp.pad(images, sides), corners)


def flip_left_right(images: jax.Array) -> jax.Array:
    """Mirrors every image left to right."""
    return images[:, :, ::-1]


def random_flip_left_right(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image with probability 1/2."""
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, flip_left_right(images), images)
