"""Differentiable attention: a small grid of Gaussian filters that reads a patch of an image, or writes one into it.

Images [H, W] or [H, W, C], patches [N, N] or [N, N, C]. Pixels are counted from 0, so that the centre of a side of
`size` pixels is at (size - 1) / 2; x runs along the width, y along the height. All functions take one image.

Source: Gregor et al., "DRAW: A Recurrent Neural Network For Image Generation", 2015, Section 3.2, as paper C
(Kataoka, Matsubara and Uehara) uses it.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

_NARROWEST = 1e-3  # pixels: any Gaussian as narrow as this falls on one pixel, or on two alike


class Attention(NamedTuple):
    """Position, width and intensity of an N×N grid of Gaussian filters.

    Numbers [], or arrays with the axes of a batch and of the steps.

    Attributes:
      center_x: of the grid along the width, in pixels counted from 0.
      center_y: of the grid along the height, in pixels counted from 0.
      stride: between neighbouring filters, in pixels.
      sigma: standard deviation of each filter, in pixels.
      intensity: what is read or written is multiplied by this number, which has no unit.
    """

    center_x: jax.Array
    center_y: jax.Array
    stride: jax.Array
    sigma: jax.Array
    intensity: jax.Array


class Glance(NamedTuple):
    """Attention before training: a grid in the middle of the image.

    With a stride it is the same for any h, since the kernel of W begins with zeros. Without one the grid spans the
    image and the kernel is random, as in DRAW: this is the attention for h = 0 only. Another h moves the grid, and
    multiplies stride, sigma and intensity.

    A filter's weights sum to 1, so a write changes a pixel by about intensity / stride² times the numbers of the patch.
    With intensity 1 that is almost nothing on a canvas of logits, and only the first step learns to write.

    Attributes:
      stride: between neighbouring filters, in pixels. None: the grid spans the image.
      sigma: standard deviation of each filter, in pixels.
      intensity: what is read or written is multiplied by this number, which has no unit.
    """

    stride: float | None = None
    sigma: float = 1.0
    intensity: float = 1.0


DRAW_GLANCE = Glance()  # as Gregor et al. begin


def filter_bank(
    center: ArrayLike, stride: ArrayLike, sigma: ArrayLike, *, points: int, size: int
) -> jax.Array:
    r"""The Gaussian filters of one axis, a row each (Gregor et al. 2015).

    .. math:: F_{ia} = \frac{1}{Z_i} \exp(-\frac{(a - \mu_i)^2}{2 \sigma^2}),
              \quad \mu_i = center + (i - \frac{N - 1}{2}) stride

    with i and a counted from 0, so that the μ_i average to the centre. Every row sums to 1. A Gaussian beyond the
    image has all its weight on the nearest pixel of the edge, and one with σ = 0 on the pixel nearest to it.

    Args:
      center: of the grid, in pixels; [].
      stride: between neighbouring filters, in pixels; [].
      sigma: standard deviation in pixels; [].
      points: number N of filters.
      size: pixels of the axis.

    Returns:
      [points, size].

    Raises:
      ValueError: no points, no pixels, or an argument that is not a single number.
    """
    if points < 1 or size < 1:
        raise ValueError(
            f"filter_bank: points and size must be at least 1, got {points} and {size}; DRAW has 5 on 28"
        )
    for name, value in (("center", center), ("stride", stride), ("sigma", sigma)):
        if jnp.shape(value):
            raise ValueError(
                f"filter_bank: {name} must be one number, got shape {jnp.shape(value)}; "
                "jax.vmap(filter_bank) takes many"
            )
    dtype = _widest_type(center, stride, sigma)
    center, stride, sigma = (jnp.asarray(x, dtype) for x in (center, stride, sigma))
    mean = center + (jnp.arange(points, dtype=dtype) - (points - 1) / 2) * stride  # [points]
    pixels = jnp.arange(size, dtype=dtype)[None]
    distance = (pixels - mean[:, None]) / jnp.maximum(sigma, _NARROWEST)
    # The softmax is the quotient above, without the 0/0 far from the image or between two pixels.
    return jax.nn.softmax(-(distance**2) / 2)


def attend(parameters: jax.Array, *, points: int, height: int, width: int) -> Attention:
    """The attention given by a linear map of the recurrent output (Gregor et al. 2015).

    (g̃_x, g̃_y, log σ², log δ̃, log γ) = W(h); there, with pixels counted from 1, g_x = (width + 1)/2 · (g̃_x + 1),
    and δ = (max(height, width) − 1)/(N − 1) · δ̃. So zeros make a grid over the whole image, with σ = γ = 1.

    Args:
      parameters: W(h), [5].
      points: N, filters along each axis; the stride of a single one is without effect.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Raises:
      ValueError: not five parameters.
    """
    if parameters.shape != (5,):
        raise ValueError(
            f"attend: expected five parameters, got shape {parameters.shape}; "
            "lift it with jax.vmap for more than one attention"
        )
    x, y, log_variance, log_stride, log_intensity = parameters
    return Attention(
        center_x=(width + 1) / 2 * (x + 1) - 1,
        center_y=(height + 1) / 2 * (y + 1) - 1,
        stride=(max(height, width) - 1) / max(points - 1, 1) * jnp.exp(log_stride),
        sigma=jnp.exp(log_variance / 2),
        intensity=jnp.exp(log_intensity),
    )


def attention_layer(
    units: int, points: int, image_shape: tuple[int, ...], first: Glance, rngs: nnx.Rngs
) -> nnx.Linear:
    """W of `attend`, with a bias that gives the attention `first` before training: where it has no stride, for h = 0.

    Args:
      units: length of h.
      points: N, filters along each axis.
      image_shape: (H, W, ...).
      first: the attention before training, see `Glance`. With a stride, the kernel of W begins with zeros.
      rngs: initial values.

    Raises:
      ValueError: a stride, sigma or intensity that is not above 0.
    """
    widest = (max(image_shape[:2]) - 1) / max(points - 1, 1)
    layer = nnx.Linear(units, 5, rngs=rngs)
    stride, sigma, intensity = first
    if stride is None:
        stride = widest
    else:
        layer.kernel.set_value(jnp.zeros_like(layer.kernel[...]))
    if min(stride, sigma, intensity) <= 0:
        raise ValueError(
            f"draw: the first glance's stride, sigma and intensity must be above 0, got {stride}, {sigma} and "
            f"{intensity}; strides of two or three sigma leave no gaps"
        )
    layer.bias = nnx.Param(
        jnp.array(
            [0, 0, 2 * math.log(sigma), math.log(stride / widest), math.log(intensity)], jnp.float32
        )
    )
    return layer


def read(image: jax.Array, attention: Attention, *, points: int) -> jax.Array:
    """Eq. C2: γ F_Y x F_Xᵀ, the patch of an image.

    The paper's read(x, h) is `attend`, which makes the attention of W(h), and then this function.

    Args:
      image: one image, [H, W] or [H, W, C]. A batch of grey images [B, H, W] cannot be told from one with channels:
        use `jax.vmap`.
      attention: where to read, a number each.
      points: N, filters along each axis; as in `attend`.

    Returns:
      [N, N] or [N, N, C].

    Raises:
      ValueError: an image of another rank, or an attention that is not of one image.

    >>> import jax.numpy as jnp
    >>> attention = attend(jnp.zeros(5), points=3, height=8, width=8)
    >>> read(jnp.ones((8, 8)), attention, points=3).shape
    (3, 3)
    """
    _check_rank("read", "image [H, W]", image)
    _check_single("read", attention)
    f_y, f_x = _filters(attention, points, *image.shape[:2])
    # In this order the gradient takes two thirds of the time on CPU.
    columns = jnp.einsum("hw...,xw->h...x", image, f_x, precision="highest")
    patch = jnp.einsum("yh,h...x->y...x", f_y, columns, precision="highest")
    return attention.intensity * jnp.moveaxis(patch, -1, 1)


def write(patch: jax.Array, attention: Attention, *, height: int, width: int) -> jax.Array:
    """Eq. C8's write: γ F_Yᵀ w F_X, the transpose of `read`.

    Gregor et al. 2015 divide by γ here. Both forms can learn the same writes: log γ is linear in h, so a change of its
    sign turns one into the other.

    Args:
      patch: w, [N, N] or [N, N, C].
      attention: where to write, a number each.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Returns:
      [height, width] or [height, width, C].

    Raises:
      ValueError: a patch of another rank, or not square, or an attention that is not of one image.

    >>> import jax.numpy as jnp
    >>> attention = attend(jnp.zeros(5), points=3, height=8, width=8)
    >>> write(jnp.ones((3, 3)), attention, height=8, width=8).shape
    (8, 8)
    """
    _check_rank("write", "patch [N, N]", patch)
    _check_single("write", attention)
    alone = jax.tree.map(lambda x: jnp.asarray(x)[None], attention)
    return write_all(patch[None], alone, height=height, width=width)


def write_all(patches: jax.Array, attention: Attention, *, height: int, width: int) -> jax.Array:
    """The sum of T writes to one image, as one product: of the rows that they write, T N of them.

    Args:
      patches: [T, N, N] or [T, N, N, C].
      attention: [T] each.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Returns:
      [height, width] or [height, width, C].

    Raises:
      ValueError: patches of another rank, or not square.
    """
    if patches.ndim not in (3, 4) or patches.shape[1] != patches.shape[2]:
        raise ValueError(
            f"write, write_all: patches must be square, [N, N] or [N, N, C] each, got {patches.shape[1:]}; "
            "N filters see each axis"
        )
    points = patches.shape[1]
    f_y, f_x = jax.vmap(lambda one: _filters(one, points, height, width))(attention)
    f_x *= attention.intensity[:, None, None]

    def write_channel(patches: jax.Array) -> jax.Array:
        rows = jnp.einsum("tyx,txw->tyw", patches, f_x, precision="highest")
        return jnp.einsum("tyh,tyw->hw", f_y, rows, precision="highest")

    # On CPU a product with the channels inside takes four times as long.
    return jax.vmap(write_channel, -1, -1)(patches) if patches.ndim == 4 else write_channel(patches)


def _widest_type(*values: ArrayLike) -> np.dtype:
    """Of the arrays of floats among the values; float32 where there are none."""
    types = [jnp.asarray(x).dtype for x in values if hasattr(x, "dtype")]
    floats = [x for x in types if jnp.issubdtype(x, jnp.floating)]
    return max([np.dtype(np.float32), *floats], key=lambda x: x.itemsize)


def _filters(
    attention: Attention, points: int, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """F_Y [points, height] and F_X [points, width]."""
    _, _, stride, sigma, _ = attention
    return (
        filter_bank(attention.center_y, stride, sigma, points=points, size=height),
        filter_bank(attention.center_x, stride, sigma, points=points, size=width),
    )


def _check_rank(caller: str, expected: str, array: jax.Array) -> None:
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{caller}: expected one {expected}, with or without a last axis of channels, got "
            f"{array.shape}; lift it with jax.vmap for a batch"
        )


def _check_single(caller: str, attention: Attention) -> None:
    shapes = [jnp.shape(x) for x in attention]
    if any(shapes):
        raise ValueError(
            f"{caller}: expected one attention, a number in each field, got fields of shapes {shapes}; lift {caller} "
            "with jax.vmap over images and attentions"
        )
