"""How an image is parameterised: maps between pixels in [0, 1] and real weights, and the low-pass filter.

Every function takes one image [H, W, C] float32 (the maps are elementwise and take any shape).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import image_checks

# Just under half a grey level: at 0 and 1 the maps are infinite, and a clipped pixel must still round to itself.
_MARGIN = 0.499 / 255

ROLLOFFS = ("ideal", "gaussian")


class PixelMap(NamedTuple):
    """A pair of functions, inverse to each other up to clipping; `to_pixels` always lands in [0, 1].

    Attributes:
      to_weights: pixels in [0, 1] -> real weights, of any shape.
      to_pixels: weights -> pixels in [0, 1].
    """

    to_weights: Callable[[jax.Array], jax.Array]
    to_pixels: Callable[[jax.Array], jax.Array]


def arctan() -> PixelMap:
    """Paper A's map.

    Pixel to weight, Eq. A2: w = tan((x − 0.5)·π). Weight to pixel, Eq. A4: x = arctan(w)/π + 0.5.

    >>> import outgen_jax as og
    >>> og.pixels.arctan().to_pixels(0.0).item()
    0.5
    """
    return PixelMap(_tan_weights, _arctan_pixels)


def tanh() -> PixelMap:
    """Carlini and Wagner's map (2017): x = (tanh(w) + 1)/2.

    >>> import outgen_jax as og
    >>> og.pixels.tanh().to_pixels(0.0).item()
    0.5
    """
    return PixelMap(_arctanh_weights, _tanh_pixels)


def identity() -> PixelMap:
    """Pixels themselves, clipped: x = min(max(w, 0), 1). A pixel pushed beyond its range gets no gradient.

    >>> import outgen_jax as og
    >>> og.pixels.identity().to_pixels(1.5).item()
    1.0
    """
    return PixelMap(_same_weights, _clipped_pixels)


# Functions of the module, so that two maps of a kind are equal: solvers are compared by them.


def _tan_weights(x: jax.Array) -> jax.Array:
    return jnp.tan((_inside(x) - 0.5) * jnp.pi)


def _arctan_pixels(w: jax.Array) -> jax.Array:
    return jnp.arctan(w) / jnp.pi + 0.5


def _arctanh_weights(x: jax.Array) -> jax.Array:
    return jnp.arctanh(2 * _inside(x) - 1)


def _tanh_pixels(w: jax.Array) -> jax.Array:
    return (jnp.tanh(w) + 1) / 2


def _same_weights(x: jax.Array) -> jax.Array:
    return x


def _clipped_pixels(w: jax.Array) -> jax.Array:
    return jnp.clip(w, 0, 1)


def lowpass(image: jax.Array, radius: float, *, rolloff: str = "ideal") -> jax.Array:
    """Keeps the frequencies of an image [H, W, C] up to a radius, in each channel (Fig. A5).

    Args:
      image: one image [H, W, C].
      radius: in cycles per image side.
      rolloff: "ideal" cuts at the radius; "gaussian" multiplies frequency f by exp(−f² / (2 radius²)).

    Raises:
      ValueError: an array that is not of rank 3, a radius that is not positive, or an unknown roll-off.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> stripes = jnp.tile(jnp.array([[0.0], [1.0]]), (4, 8, 1))  # 4 cycles per side
    >>> og.pixels.lowpass(stripes, 3)[:2, 0, 0].tolist()
    [0.5, 0.5]
    """
    check_lowpass_radius(radius, caller="lowpass")
    if rolloff not in ROLLOFFS:
        raise ValueError(f"lowpass: unknown rolloff {rolloff!r}; use one of {', '.join(ROLLOFFS)}")
    image_checks.check_image(image, caller="lowpass")
    height, width, _ = image.shape
    # Whole numbers: fftfreq(49, 1 / 49) gives 10.000000000000002, which a radius of 10 would cut.
    rows = np.fft.ifftshift(np.arange(height) - height // 2)[:, None]
    columns = np.arange(width // 2 + 1)[None, :]
    squared = rows**2 + columns**2  # [H, W//2 + 1]
    if rolloff == "ideal":
        mask = (squared <= radius**2).astype(np.float32)
    else:
        mask = np.exp(-squared / (2 * radius**2)).astype(np.float32)
    spectrum = jnp.fft.rfft2(image, axes=(0, 1))
    kept = spectrum * mask[:, :, None].astype(spectrum.dtype)
    return jnp.fft.irfft2(kept, s=(height, width), axes=(0, 1))


def check_lowpass_radius(radius: float | None, *, caller: str) -> None:
    """Refuses, in the name of `caller`, a radius that `lowpass` cannot take; None means no filter.

    Raises:
      ValueError: a radius that is not positive.
    """
    if radius is not None and not radius > 0:
        raise ValueError(
            f"{caller}: radius must be positive, got {radius}; None in gradient_descent means no filter"
        )


def high_frequency_energy(image: jax.Array, radius: float) -> jax.Array:
    """Mean square of what `lowpass(image, radius)` removes, a measure of paper A's "noise": [H, W, C] -> [].

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> stripes = jnp.tile(jnp.array([[0.0], [1.0]]), (4, 8, 1))  # 4 cycles per side
    >>> og.pixels.high_frequency_energy(stripes, 3).item()
    0.25
    """
    return jnp.mean((image - lowpass(image, radius)) ** 2)


def _inside(x: jax.Array) -> jax.Array:
    return jnp.clip(x, _MARGIN, 1 - _MARGIN)
