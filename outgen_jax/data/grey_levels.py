"""Images as files keep them: 8 bits a pixel."""

import jax
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
    if array.dtype.itemsize < 4:  # products of 16 bits are rounded
        array = array.astype(np.float32)
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


def check_labelled(images: np.ndarray, labels: np.ndarray, *, caller: str) -> None:
    """Refuses, in the name of `caller`, what is not 8-bit images [N, H, W, C], at least one, with a label [N] each.

    Floats in [0, 1] would be divided by 255 once more, and be black.

    Raises:
      ValueError: another type or shape, no images, or labels that are not one integer for each.

    >>> check_labelled(np.zeros((2, 8, 8, 3), np.uint8), np.array([1, 0]), caller="accuracy")
    """
    check_uint8(images, caller=caller)
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        remedy = "give one for each image, in their order"
        if labels.shape == images.shape[:1]:
            remedy = "whole numbers become integers with .astype(int)"
        elif labels.ndim == 2:
            remedy = (
                "of a row for each class, take labels.argmax(-1); to learn a whole distribution, such as the probs of "
                "a generated set, see outgen_jax.training.objectives"
            )
        raise ValueError(
            f"{caller}: labels must be {len(images)} integers, one for each image, got {labels.dtype} "
            f"{list(labels.shape)}; {remedy}"
        )


def check_uint8(images: np.ndarray | jax.Array, *, caller: str) -> None:
    """Refuses, in the name of `caller`, what is not 8-bit images [N, H, W, C], at least one.

    Raises:
      ValueError: another type or shape, or no images. The remedy depends on what came.

    >>> check_uint8(np.zeros((2, 8, 8, 3), np.uint8), caller="accuracy")
    """
    if images.dtype == np.uint8 and images.ndim == 4 and len(images):
        return
    if images.ndim == 3:
        remedy = "grey images need an axis for the channel, images[..., None]; one image needs images[None]"
    elif images.dtype == np.uint8 or images.ndim != 4:
        remedy = "give at least one image, with height, width and channels"
    elif np.max(np.asarray(images), initial=0) > 1:
        remedy = "grey levels from 0 to 255 become uint8 with .astype(np.uint8)"
    else:
        remedy = "outgen_jax.data.to_uint8 makes such images of floats in [0, 1]"
    raise ValueError(
        f"{caller}: images must be uint8 [N, H, W, C], at least one, got {images.dtype} {list(images.shape)}; {remedy}"
    )
