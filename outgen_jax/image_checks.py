"""Checks of images: their shape, their type and the range of their values.

Each raises a ValueError in the name of `caller`, with a remedy for what came; `name` is what the user calls the images.
Shapes and types are known within a trace of JAX. Values are not, and are not checked there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray | jax.Array

# Further outside of [0, 1] than this is more than rounding or a resampling filter's overshoot.
_OVERSHOOT = 0.1
# A pixel at most, of images that may have left [0, 1] by rounding or a little more; grey levels of 8 bits are larger.
_MOST = 2.0


# --- shape ---


def check_batch(
    images: Array,
    *,
    caller: str,
    name: str = "images",
    least: int = 0,
    size: tuple[int, int] | None = None,
    channels: tuple[int, ...] | None = None,
    smallest: int = 1,
    multiple: int = 1,
) -> None:
    """Refuses what is no batch of images [B, H, W, C].

    Args:
      images: any array.
      caller: the function in whose name images are refused.
      name: of the images.
      least: the least B, 0 or 1.
      size: the only (H, W) that fit; None: any.
      channels: the only C that fit; None: any.
      smallest: the least H and W.
      multiple: what divides H and W.

    Raises:
      ValueError: another shape, or images without pixels.

    >>> check_batch(np.zeros((1, 8, 8, 3)), caller="f", channels=(3,))
    >>> check_batch(np.zeros((8, 8, 3)), caller="f")
    Traceback (most recent call last):
    ValueError: f: images must be [B, H, W, C], got [8, 8, 3]; one image is images[None], ...
    """
    shape = images.shape
    if len(shape) == 4:
        count, *sides, depth = shape
        fits = min(sides) >= smallest and not any(side % multiple for side in sides)
        fits &= size in (None, tuple(sides)) and depth >= 1 and (not channels or depth in channels)
        if fits and count >= least:
            return
    height, width = size or ("H", "W")
    depths = " or ".join(map(str, channels or "C"))
    wanted = f"[B, {height}, {width}, {depths}]"
    wanted += ", at least one" if least else ""
    wanted += f", H and W at least {smallest}" if smallest > 1 else ""
    wanted += f", H and W multiples of {multiple}" if multiple > 1 else ""
    remedy = _batch_remedy(shape, name, channels)
    raise ValueError(f"{caller}: {name} must be {wanted}, got {list(shape)}; {remedy}")


def _batch_remedy(shape: tuple[int, ...], name: str, channels: tuple[int, ...] | None) -> str:
    if len(shape) == 3:
        one, grey = f"one image is {name}[None]", f"grey images are {name}[..., None]"
        return f"{one}, {grey}" if shape[2] in (1, 3) else f"{grey}, {one}"
    if len(shape) == 2:
        return f"one grey image is {name}[None, ..., None]"
    if len(shape) != 4:
        return "stack images [H, W, C] along a first axis"
    if 0 in shape:
        return "leave out images without pixels" if shape[0] else "give at least one"
    if channels and shape[3] not in channels:
        return _channels_remedy(shape, name, channels)
    return "resize or crop them"


def check_image(
    image: Array, *, caller: str, name: str = "the image", channels: tuple[int, ...] | None = None
) -> None:
    """Refuses what is no single image [H, W, C]; `channels` are the only C that fit, None: any.

    Raises:
      ValueError: another shape, or an image without pixels.

    >>> check_image(np.zeros((8, 8, 3)), caller="f", channels=(1, 3))
    >>> check_image(np.zeros((2, 8, 8, 3)), caller="f")
    Traceback (most recent call last):
    ValueError: f: the image must be [H, W, C], got [2, 8, 8, 3]; take one image at a time, or map with jax.vmap
    """
    shape = image.shape
    if len(shape) == 3 and 0 not in shape and (not channels or shape[2] in channels):
        return
    if len(shape) == 2:
        remedy = "a grey image is image[..., None]"
    elif len(shape) == 4:
        remedy = "take one image at a time, or map with jax.vmap"
    elif len(shape) == 3 and 0 not in shape and channels:
        remedy = _channels_remedy(shape, "image", channels)
    else:
        remedy = "give an image with height, width and channels"
    wanted = f"[H, W, {' or '.join(map(str, channels or 'C'))}]"
    raise ValueError(f"{caller}: {name} must be {wanted}, got {list(shape)}; {remedy}")


def _channels_remedy(shape: tuple[int, ...], name: str, channels: tuple[int, ...]) -> str:
    """For images [..., H, W, C] with other channels than these."""
    if shape[-3] in channels:
        return f"channels go last: numpy.moveaxis({name}, {len(shape) - 3}, -1)"
    if shape[-1] == 4 and 3 in channels:
        return f"drop the transparency: {name}[..., :3]"
    if shape[-1] == 1 and channels == (3,):
        return f"repeat the grey channel three times: {name}.repeat(3, -1)"
    if channels == (1,):
        return f"take the mean over the channels: {name}.mean(-1, keepdims=True)"
    return "keep the channels that fit"


# --- type ---


def check_floats(images: Array, *, caller: str, name: str = "images") -> None:
    """Refuses images that are not floats: grey levels would be taken for values in [0, 1].

    Raises:
      ValueError: another type.

    >>> check_floats(np.zeros((1, 8, 8, 3)), caller="f")
    >>> check_floats(np.zeros((1, 8, 8, 3), np.uint8), caller="f")
    Traceback (most recent call last):
    ValueError: f: images must be float in [0, 1], got uint8; divide 8-bit images by 255
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        remedy = "divide 8-bit images by 255"
        if images.dtype != np.uint8:
            remedy = f"convert grey levels with {name}.astype(numpy.float32) / 255"
        raise ValueError(f"{caller}: {name} must be float in [0, 1], got {images.dtype}; {remedy}")


def check_floats_or_uint8(images: Array, *, caller: str, name: str = "images") -> None:
    """Refuses images that are neither floats nor uint8: what their values mean is not known.

    Raises:
      ValueError: another type.

    >>> check_floats_or_uint8(np.zeros((1, 8, 8, 3), np.uint8), caller="f")
    >>> check_floats_or_uint8(np.zeros((1, 8, 8, 3), int), caller="f")
    Traceback (most recent call last):
    ValueError: f: images must be uint8, or float in [0, 1], got int64; grey levels become uint8 with numpy.asarray...
    """
    if images.dtype == np.uint8 or jnp.issubdtype(images.dtype, jnp.floating):
        return
    remedy = f"grey levels become uint8 with numpy.asarray({name}, numpy.uint8)"
    if not jnp.issubdtype(images.dtype, jnp.integer):
        remedy = f"convert them, as with numpy.asarray({name}, numpy.float32)"
    raise ValueError(
        f"{caller}: {name} must be uint8, or float in [0, 1], got {images.dtype}; {remedy}"
    )


def check_uint8(images: Array, *, caller: str, name: str = "images") -> None:
    """Refuses what is not 8-bit images [N, H, W, C], at least one.

    Raises:
      ValueError: another type or shape, or no images. The remedy depends on what came.

    >>> check_uint8(np.zeros((2, 8, 8, 3), np.uint8), caller="accuracy")
    """
    if images.dtype == np.uint8 and images.ndim == 4 and 0 not in images.shape:
        return
    if images.ndim != 4 or 0 in images.shape:
        remedy = _batch_remedy(images.shape, name, None)
    elif np.max(np.asarray(images)) > 1:
        remedy = f"grey levels from 0 to 255 become uint8 with numpy.asarray({name}, numpy.uint8)"
    else:
        remedy = f"outgen_jax.data.to_uint8({name}) makes such images of floats in [0, 1]"
    raise ValueError(
        f"{caller}: {name} must be uint8 [N, H, W, C], at least one, got {images.dtype} {list(images.shape)}; {remedy}"
    )


# --- values ---


def check_range(images: Array, *, caller: str, name: str = "images", margin: float = 0.0) -> None:
    """Refuses float images, of any shape, with values farther than `margin` outside [0, 1].

    Raises:
      ValueError: such values, NaN or infinities; not within a trace.

    >>> check_range(np.full((2, 1, 1, 1), 255.0), caller="f")
    Traceback (most recent call last):
    ValueError: f: float images must lie in [0, 1], got values from 255.0 to 255.0; take images / 255
    """
    if not images.size:
        return
    fits: Any = (images.min() >= -margin) & (images.max() <= 1 + margin)  # NaN fits neither
    # Within a trace it is not known, also of images that a compiled function closes over.
    if not isinstance(fits, jax.core.Tracer) and not fits:
        fault = range_fault(np.asarray(images), name)
        raise ValueError(f"{caller}: float {name} must lie in [0, 1], {fault}")


def check_no_grey_levels(images: Array, *, caller: str, name: str = "images") -> None:
    """Refuses float images with values that only grey levels have; a measure of images takes all others.

    Raises:
      ValueError: such values; not within a trace.

    >>> check_no_grey_levels(np.full((2, 1, 1, 1), 1.01), caller="f")
    """
    largest: Any = images.max(initial=0)
    if not isinstance(largest, jax.core.Tracer) and largest > _MOST:
        raise ValueError(
            f"{caller}: float {name} must lie in [0, 1], got values up to {float(largest):.4g}; divide grey levels by "
            "255"
        )


def range_fault(images: np.ndarray, name: str) -> str:
    """The values of images [N, H, W, C] outside [0, 1], and a remedy for the array that is called `name`.

    The same of one image [H, W, C].

    >>> range_fault(np.full((2, 1, 1, 1), 255.0), "images")
    'got values from 255.0 to 255.0; take images / 255'
    """
    finite = np.isfinite(images)
    if not finite.all():
        row = np.argwhere(~finite)[0][0]
        where = f", in row {row} first" if images.ndim == 4 else ""
        value = "NaN" if np.isnan(images).any() else "infinity"
        return f"got {value}{where}; leave out the images that are not finite"
    low, high = images.min(), images.max()
    return f"got values from {low!s} to {high!s}; {_range_remedy(float(low), float(high), name)}"


def _range_remedy(low: float, high: float, name: str) -> str:
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return f"take numpy.clip({name}, 0, 1)"
    if low >= 0 and high <= 255:
        return f"take {name} / 255"
    if low >= -1 and high <= 1:
        return f"take ({name} + 1) / 2"
    return "undo their normalisation: multiply by the deviation and add the mean"
