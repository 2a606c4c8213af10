"""The size of changes of images, in the norms of adversarial attacks.

Pixels count from 0 to 1; uint8 is taken in 255ths.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import image_checks


def l2_change(images: ArrayLike, sources: ArrayLike) -> jax.Array:
    """‖x − x₀‖₂ over all pixels of an image; [B, H, W, C], [B, H, W, C] -> [B].

    Raises:
      ValueError: shapes that are not the same, or not of rank 4; integers other than uint8.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.metrics.l2_change(jnp.full((1, 2, 2, 1), 0.75), jnp.full((1, 2, 2, 1), 0.25)).tolist()
    [1.0]
    """
    change = _change(images, sources, caller="l2_change")
    return jnp.sqrt((change**2).sum((1, 2, 3)))


def linf_change(images: ArrayLike, sources: ArrayLike) -> jax.Array:
    """Max |x − x₀| over all pixels of an image; [B, H, W, C], [B, H, W, C] -> [B].

    Raises:
      ValueError: shapes that are not the same, or not of rank 4; integers other than uint8.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.metrics.linf_change(jnp.full((1, 2, 2, 1), 0.75), jnp.full((1, 2, 2, 1), 0.25)).tolist()
    [0.5]
    """
    return jnp.abs(_change(images, sources, caller="linf_change")).max((1, 2, 3))


def _change(images: ArrayLike, sources: ArrayLike, *, caller: str) -> jax.Array:
    x, y = jnp.asarray(images), jnp.asarray(sources)
    image_checks.check_batch(x, caller=caller)
    if x.shape != y.shape:
        raise ValueError(
            f"{caller}: images and sources must have one shape, got {list(x.shape)} and {list(y.shape)}; give each "
            "image its own source"
        )
    return from_0_to_1(x, caller=caller) - from_0_to_1(y, caller=caller)


def from_0_to_1(images: jax.Array, *, caller: str) -> jax.Array:
    """Images as float32 in [0, 1], from uint8 or floats.

    Raises:
      ValueError: another type.
    """
    image_checks.check_floats_or_uint8(images, caller=caller)
    if images.dtype == np.uint8:
        return images.astype(jnp.float32) / 255
    image_checks.check_no_grey_levels(images, caller=caller)
    return images.astype(jnp.float32)
