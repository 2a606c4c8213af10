"""Pictures for the page: PNG as data URLs, and the difference of two images, amplified."""

import base64
from typing import NamedTuple

import numpy as np

from outgen_jax import files
from outgen_jax.data.grey_levels import to_uint8

_FACTORS = (1, 2, 5, 10, 20, 50, 100)
# Changes of all but this share of the values stay within what can be shown.
_CLIPPED = 0.005


class Difference(NamedTuple):
    """How an image differs from its source."""

    image: np.ndarray  # [H, W, C] uint8, mid-grey where nothing has changed
    factor: int  # by which the changes are amplified


def difference(source: np.ndarray, image: np.ndarray) -> Difference:
    """½ + factor · (image − source), with the largest factor that hardly clips.

    Args:
      source: [H, W, C] float in [0, 1].
      image: alike.

    >>> found = difference(np.zeros((2, 2, 1)), np.full((2, 2, 1), 0.04))
    >>> found.factor, found.image[0, 0, 0].item()
    (10, 230)
    """
    change = image - source
    extent = np.quantile(np.abs(change), 1 - _CLIPPED)
    factor = max((f for f in _FACTORS if f * extent <= 0.5), default=1) if extent else 1
    return Difference(to_uint8(np.clip(0.5 + factor * change, 0, 1)), factor)


def data_url(image: np.ndarray) -> str:
    """A uint8 image [H, W, C] as `data:image/png;base64,...`."""
    return f"data:image/png;base64,{base64.b64encode(files.png_bytes(image)).decode()}"
