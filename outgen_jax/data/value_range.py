"""Float images must lie in [0, 1]: what is wrong with those that do not, and what to do about it."""

import numpy as np

# Further outside of [0, 1] than this is more than rounding or a resampling filter's overshoot.
_OVERSHOOT = 0.1


def is_unit(images: np.ndarray) -> bool:
    """Whether all values, of any shape, lie in [0, 1]."""
    return bool(images.min() >= 0 and images.max() <= 1)  # either is NaN where any value is


def fault(images: np.ndarray, name: str) -> str:
    """The values of images [N, H, W, C] that are not `is_unit`, and a remedy for the array that is called `name`.

    The same of one image [H, W, C].

    >>> fault(np.full((2, 1, 1, 1), 255.0), "images")
    'got values from 255.0 to 255.0; take images / 255'
    """
    finite = np.isfinite(images)
    if not finite.all():
        row = np.argwhere(~finite)[0][0]
        where = f", in row {row} first" if images.ndim == 4 else ""
        value = "NaN" if np.isnan(images).any() else "infinity"
        return f"got {value}{where}; leave out the images that are not finite"
    low, high = images.min(), images.max()
    return f"got values from {low!s} to {high!s}; {_remedy(float(low), float(high), name)}"


def _remedy(low: float, high: float, name: str) -> str:
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return f"take numpy.clip({name}, 0, 1)"
    if low >= 0 and high <= 255:
        return f"take {name} / 255"
    if low >= -1 and high <= 1:
        return f"take ({name} + 1) / 2"
    return "undo their normalisation: multiply by the deviation and add the mean"
