"""Images as files keep them: 8 bits a pixel."""

import numpy as np
from numpy.typing import ArrayLike

from outgen_jax import image_checks


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
    image_checks.check_floats_or_uint8(array, caller="to_uint8")
    if array.dtype.itemsize < 4:  # products of 16 bits are rounded
        array = array.astype(np.float32)
    levels = np.round(array * 255)
    if not ((levels >= 0) & (levels <= 255)).all():
        if not np.isfinite(array).all():
            image_checks.check_range(array, caller="to_uint8")
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
    image_checks.check_uint8(images, caller=caller)
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
