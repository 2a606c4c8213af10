"""The size of changes of images, in the norms of adversarial attacks.

Pixels count from 0 to 1; uint8 is taken in 255ths.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# A pixel at most, of images that may have left [0, 1] by rounding or a little more; grey levels of 8 bits are larger.
_MOST = 2.0


def l2_change(images: ArrayLike, sources: ArrayLike) -> jax.Array:
    """‖x − x₀‖₂ over all pixels of an image; [B, H, W, C], [B, H, W, C] -> [B].

    Raises:
      ValueError: shapes that are not the same, or not of rank 4; integers other than uint8.
    """
    change = _change(images, sources, caller="l2_change")
    return jnp.sqrt((change**2).sum((1, 2, 3)))


def linf_change(images: ArrayLike, sources: ArrayLike) -> jax.Array:
    """Max |x − x₀| over all pixels of an image; [B, H, W, C], [B, H, W, C] -> [B].

    Raises:
      ValueError: shapes that are not the same, or not of rank 4; integers other than uint8.
    """
    return jnp.abs(_change(images, sources, caller="linf_change")).max((1, 2, 3))


def _change(images: ArrayLike, sources: ArrayLike, *, caller: str) -> jax.Array:
    x, y = jnp.asarray(images), jnp.asarray(sources)
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(
            f"{caller}: images and sources must be [B, H, W, C], the same for both, got {list(x.shape)} and "
            f"{list(y.shape)}; add the batch axis with images[None]"
        )
    return from_0_to_1(x, caller=caller) - from_0_to_1(y, caller=caller)


def from_0_to_1(images: jax.Array, *, caller: str) -> jax.Array:
    """Images as float32 in [0, 1], from uint8 or floats.

    Raises:
      ValueError: another type.
    """
    if images.dtype == np.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{caller}: images must be uint8, or float in [0, 1], got {images.dtype}; grey levels become uint8 with "
            ".astype(numpy.uint8)"
        )
    largest = jnp.max(images, initial=0)
    # Within a trace it is not known, also of images that a compiled function closes over.
    if not isinstance(largest, jax.core.Tracer) and largest > _MOST:
        raise ValueError(
            f"{caller}: float images must lie in [0, 1], got values up to {float(largest):.4g}; divide grey levels by "
            "255"
        )
    return images.astype(jnp.float32)
