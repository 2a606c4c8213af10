"""Images as files keep them: 8 bits a pixel."""

import numpy as np
from numpy.typing import ArrayLike


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Images in [0, 1] of any shape -> the nearest 8-bit image, as saved to a file.

    >>> import outgen_jax as og
    >>> og.data.to_uint8([0.0, 0.5, 1.0]).tolist()
    [0, 128, 255]
    """
    return np.round(np.asarray(images) * 255).astype(np.uint8)
