"""Random and fixed changes of images for training.

Images [B, H, W, C]; any dtype, which is kept, but `contrast` and `invert` take floats in [0, 1].
`key` first, options keyword-only.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax import image_checks


def random_crop(key: jax.Array, images: jax.Array, *, padding: int) -> jax.Array:
    """Pads each side with `padding` zero pixels and cuts a random window of the old size per image.

    (Paper A, Sec. 3.)

    Raises:
      ValueError: images of another rank than 4.

    >>> import jax, jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), padding=1).shape
    (2, 8, 8, 3)
    """
    image_checks.check_batch(images, caller="random_crop")
    b, h, w, c = images.shape
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(key, (b, 2), 0, 2 * padding + 1, jnp.int32)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
        return jax.lax.dynamic_slice(image, start, (h, w, c))

    return jax.vmap(crop)(jnp.pad(images, sides), corners)


def flip_left_right(images: jax.Array) -> jax.Array:
    """Mirrors every image left to right (paper B): [B, H, W, C] -> [B, H, W, C].

    Raises:
      ValueError: images of another rank than 4.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.flip_left_right(jnp.array([[[[0.0], [1.0]]]])).ravel().tolist()
    [1.0, 0.0]
    """
    image_checks.check_batch(images, caller="flip_left_right")
    return images[:, :, ::-1]


def flip_up_down(images: jax.Array) -> jax.Array:
    """Turns every image upside down (paper B): [B, H, W, C] -> [B, H, W, C].

    Raises:
      ValueError: images of another rank than 4.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.flip_up_down(jnp.array([[[[0.0]], [[1.0]]]])).ravel().tolist()
    [1.0, 0.0]
    """
    image_checks.check_batch(images, caller="flip_up_down")
    return images[:, ::-1]


def invert(images: jax.Array) -> jax.Array:
    """The negative, 1 − x (paper B); images [B, H, W, C] in [0, 1].

    Raises:
      ValueError: images that are not floats.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.invert(jnp.array([[[[0.25]]]])).item()
    0.75
    """
    image_checks.check_floats(images, caller="invert")
    return 1 - images


def contrast(images: jax.Array, factor: ArrayLike = 1.5) -> jax.Array:
    """Stretches every channel about its mean over the image, m + factor·(x − m), clipped to [0, 1].

    (Paper B, which does not give the factor.)

    Args:
      images: [B, H, W, C] in [0, 1].
      factor: one, or [B] one per image; 0 leaves the mean colour, 1 the image, more than 1 a higher
        contrast.

    Raises:
      ValueError: images that are not floats or not [B, H, W, C], or a factor of another shape.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.contrast(jnp.array([[[[0.25], [0.75]]]]), 2).ravel().tolist()
    [0.0, 1.0]
    """
    image_checks.check_floats(images, caller="contrast")
    image_checks.check_batch(images, caller="contrast")
    factors = jnp.asarray(factor, images.dtype)
    if factors.shape not in ((), images.shape[:1]):
        raise ValueError(
            f"contrast: factor must be one number or [{len(images)}], one per image; it has shape "
            f"{list(factors.shape)}. Make one call for each factor"
        )
    mean = images.mean((1, 2), keepdims=True)  # [B, 1, 1, C]
    stretched = mean + factors.reshape(-1, 1, 1, 1) * (images - mean)
    return jnp.clip(stretched, 0, 1)


def random_flip_left_right(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image of [B, H, W, C] left to right with probability 1/2.

    Raises:
      ValueError: images of another rank than 4.

    >>> import jax, jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.augment.random_flip_left_right(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
    (2, 8, 8, 3)
    """
    image_checks.check_batch(images, caller="random_flip_left_right")
    flip = jax.random.bernoulli(key, jnp.float32(0.5), (images.shape[0], 1, 1, 1))
    return jnp.where(flip, flip_left_right(images), images)
