"""Images made of MNIST's digits for networks with several labels or several numbers.

Images are uint8 [N, H, W, 1]. What is drawn depends on the seed alone.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

CELLS = 4  # of a canvas, a side
_FILLED = 0.6  # probability that a cell of a canvas holds a digit
_LARGEST_ANGLE = 45.0  # degrees
_LARGEST_SHIFT = 3.0  # pixels
NUMBERS = ("angle", "thickness", "row", "column")


class Drawn(NamedTuple):
    """Images, and what a network should say of them."""

    images: np.ndarray  # [N, H, W, 1] uint8
    wanted: np.ndarray  # [N, K] float32


def canvases(digits: np.ndarray, labels: np.ndarray, count: int, *, seed: int) -> Drawn:
    """Canvases of 4×4 cells, each empty or with one digit of half the size, and which digits their halves hold.

    Args:
      digits: [D, S, S, 1] uint8.
      labels: [D], 0 to 9.
      count: N.
      seed: of cells and digits.

    Returns:
      Images [N, 2 S, 2 S, 1]; `wanted` [N, 20] is 1 for the digits of the left half, then for those of the right one.
    """
    rng = np.random.default_rng(seed)
    small = _halved(digits[..., 0])
    chosen = rng.integers(len(digits), size=(count, CELLS, CELLS))
    filled = rng.random(chosen.shape) < _FILLED
    side = CELLS * small.shape[1]
    images = np.empty((count, side, side, 1), np.uint8)
    for image, places, present in zip(images, chosen, filled, strict=True):
        drawn = small[places] * present[..., None, None]  # [row, column, S/2, S/2]
        image[..., 0] = drawn.transpose(0, 2, 1, 3).reshape(side, side)
    held = filled[..., None] & (labels[chosen][..., None] == np.arange(10))
    halves = held.reshape(count, CELLS, 2, CELLS // 2, 10).any((1, 3))  # [N, half, 10]
    return Drawn(images, halves.reshape(count, 20).astype(np.float32))


def anywhere(halves: np.ndarray) -> np.ndarray:
    """Which digits a canvas holds in either half: [N, 20] -> [N, 10]."""
    return halves.reshape(len(halves), 2, 10).max(1)


def posed(digits: np.ndarray, count: int, *, seed: int) -> Drawn:
    """Digits turned and shifted at random, and four numbers of each.

    Args:
      digits: [D, S, S, 1] uint8.
      count: N; digits are taken in turn.
      seed: of angles and shifts.

    Returns:
      Images [N, S, S, 1]; `wanted` [N, 4] as `NUMBERS` names them: the angle by which the digit was turned, in degrees;
      the thickness of its strokes; row and column of its centre of mass, in pixels.
    """
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-_LARGEST_ANGLE, _LARGEST_ANGLE, count)
    shifts = rng.uniform(-_LARGEST_SHIFT, _LARGEST_SHIFT, (count, 2))
    images = np.empty((count, *digits.shape[1:]), np.uint8)
    for row, (angle, shift) in enumerate(zip(angles, shifts, strict=True)):
        images[row, ..., 0] = _moved(digits[row % len(digits), ..., 0], angle, shift)
    grey = images[..., 0] / 255
    centres = np.array([ndimage.center_of_mass(image) for image in grey])
    return Drawn(images, np.column_stack([angles, thickness(grey), centres]).astype(np.float32))


def thickness(images: np.ndarray) -> np.ndarray:
    """Width of strokes in pixels: twice the area over the length of the outline; [N, H, W] in [0, 1] -> [N].

    A stroke of width w and length l has area w l and an outline of about 2 l, which is the total variation of the
    image.
    """
    down, across = np.gradient(images, axis=(1, 2))
    return 2 * images.sum((1, 2)) / np.hypot(down, across).sum((1, 2))


def _halved(digits: np.ndarray) -> np.ndarray:
    """Means over 2×2 pixels: [D, S, S] -> [D, S/2, S/2] uint8."""
    count, side, _ = digits.shape
    blocks = digits.reshape(count, side // 2, 2, side // 2, 2)
    return np.rint(blocks.mean((2, 4))).astype(np.uint8)


def _moved(image: np.ndarray, angle: float, shift: np.ndarray) -> np.ndarray:
    """An image [S, S] turned about its centre by `angle` degrees, then shifted by `shift` (row, column)."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = (np.array(image.shape) - 1) / 2
    moved = ndimage.affine_transform(
        image.astype(np.float64), turn, offset=centre - turn @ (centre + shift), order=1
    )
    return np.rint(np.clip(moved, 0, 255)).astype(np.uint8)
