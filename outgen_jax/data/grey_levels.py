"""Images as files keep them: 8 bits a pixel."""

import numpy as np
from numpy.typing import ArrayLike

from outgen_jax.data import value_range


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Images in [0, 1] of any shape -> the nearest 8-bit image, as saved to a file; uint8 comes back as it is.

    Raises:
      ValueError: values whose nearest level is not in 0-255, or another integer type.

    >>> import outgen_jax as og
    >>> og.data.to_uint8([0.0, 0.5, 1.0]).tolist()
    [0, 128, 255]
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"to_uint8: images must be float in [0, 1] or uint8, got {array.dtype}; grey levels become uint8 with "
            ".astype(np.uint8)"
        )
    levels = np.round(array * 255)
    if not ((levels >= 0) & (levels <= 255)).all():
        if not np.isfinite(array).all():
            raise ValueError(
                f"to_uint8: images must lie in [0, 1], {value_range.fault(array, 'images')}"
            )
        raise ValueError(
            f"to_uint8: images must lie in [0, 1], got values from {array.min()} to {array.max()}; clip them "
            "first, np.clip(images, 0, 1), if what lies outside is meant to be black or white"
        )
    return levels.astype(np.uint8)
