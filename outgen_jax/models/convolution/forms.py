"""Forms of the convolution and its gradients on CPU, one of them for every shape.

XLA's convolution is fast on CPU where it is written with images NHWC and kernels HWIO; in another
layout, as JAX writes gradients, it is fast outside loops only, and up to 400 times slower in them.
So the gradients are written as convolutions of that layout here. Faster still are

  - matrix products for kernels of one pixel,
  - Winograd's products for 3×3 kernels of many channels,
  - products of pairs of pixels for 3×3 kernels of few channels,
  - products of pixels, shifted and summed, for few output channels and for images smaller than the kernel,
  - shifted products for depthwise kernels.

All forms equal `jax.lax.conv_general_dilated` to float32 rounding. 16-bit arrays are computed in
float32 and rounded once. `benchmarks/convolution` times the forms.

At JAX's precision "bfloat16" Winograd's factors are rounded to it where the processor multiplies them faster, but for
the gradients of kernels, where rounding takes as long as it saves.

Layout: images [N, *spatial, C], kernels [*spatial, C/groups, K], one to three spatial axes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from outgen_jax.models.convolution import bands, processor, winograd
from outgen_jax.models.convolution.window import Size, Window, xla_convolve

_FEW = 4  # output channels: up to here a pixel's product with the whole kernel is cheap to shift
_MANY = 24  # channels: from here Winograd's products save more than its sums cost
# Precisions, of `jax.default_matmul_precision`, at which factors are rounded to bfloat16.
_BFLOAT16 = ("bfloat16", "BF16_BF16_F32")


def _in_float32(form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Computes `form` of 16-bit arrays in float32 and rounds the result."""

    @functools.wraps(form)
    def wrapped(a: jax.Array, b: jax.Array, **options: Any) -> jax.Array:
        if a.dtype.itemsize != 2:
            return form(a, b, **options)
        wide = form(a.astype(jnp.float32), b.astype(jnp.float32), **options)
        return wide.astype(a.dtype)

    return wrapped


@_in_float32
def convolve(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """The convolution of `x` with `kernel`."""
    if _is_pointwise(kernel.shape[:-2], window):
        return jnp.tensordot(_every(x, window.strides), _matrix(kernel), 1)
    if _is_winograd(kernel.shape, window):
        y = winograd.convolution(_even(x), kernel, factors=_factors(window, x))
        return y[:, : x.shape[1], : x.shape[2]]
    if _is_banded(kernel.shape, window, x.shape[1:-1]):
        return bands.convolution(x, kernel)
    return _convolve(x, kernel, window)


@_in_float32
def input_gradient(
    cotangent: jax.Array, kernel: jax.Array, *, window: Window, size: Size
) -> jax.Array:
    """The gradient to the image: a convolution with the turned kernel, strides become dilation."""
    if _is_pointwise(kernel.shape[:-2], window):
        x = lax.dot_general(cotangent, _matrix(kernel), (((cotangent.ndim - 1,), (1,)), ((), ())))
        spread = _spread_size(cotangent, window.strides)
        after = [(0, n - m) for n, m in zip(size, spread, strict=True)]
        return _spread(x, window.strides, after)
    if _is_winograd(kernel.shape, window):
        x = winograd.input_gradient(_even(cotangent), kernel, factors=_factors(window, kernel))
        return x[:, : size[0], : size[1]]
    if _is_banded(kernel.shape, window, size):
        return bands.convolution(cotangent, _turn(kernel, window.groups))
    reach = [(k - 1) * d for k, d in zip(kernel.shape, window.rhs_dilation, strict=False)]
    before = [r - pad for r, (pad, _) in zip(reach, window.padding, strict=True)]
    seen = [(n - 1) * e + 1 + r for n, e, r in zip(size, window.lhs_dilation, reach, strict=True)]
    spread = _spread_size(cotangent, window.strides)
    turned = dataclasses.replace(
        window,
        strides=window.lhs_dilation,
        lhs_dilation=window.strides,
        padding=tuple((b, all_ - b - n) for b, all_, n in zip(before, seen, spread, strict=True)),
    )
    return _convolve(cotangent, _turn(kernel, window.groups), turned)


@_in_float32
def kernel_gradient(x: jax.Array, cotangent: jax.Array, *, window: Window, size: Size) -> jax.Array:
    """The gradient to the kernel: a convolution of images as channels with cotangents as kernels."""
    c, k = x.shape[-1], cotangent.shape[-1]
    if _is_pointwise(size, window):
        x = _every(x, window.strides).reshape(-1, c)
        return (x.T @ cotangent.reshape(-1, k)).reshape(*size, c, k)
    if _is_winograd((*size, c, k), window):
        return winograd.kernel_gradient(_even(x), _even(cotangent))
    slow = window.groups == 1 and _is_slow(x, cotangent.shape[1:-1])
    if slow or _is_depthwise(c, k, window):
        return _taps_gradient(x, cotangent, window, size)
    return _images_as_channels(x, cotangent, window, size)


def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    c, k = x.shape[-1], kernel.shape[-1]
    if _is_depthwise(c, k, window):
        return _depthwise(x, kernel, window)
    if window.groups == 1 and _is_slow(x, kernel.shape[:-2]):
        return _taps(x, kernel, window)
    if window.groups == 1 and k <= _FEW < c and window.plain("strides", "lhs_dilation"):
        return _multiply_then_shift(x, kernel, window)
    return xla_convolve(x, kernel, window=window)


def _images_as_channels(
    x: jax.Array, cotangent: jax.Array, window: Window, size: Size
) -> jax.Array:
    """Channels are the batch, images the channels that are summed over, cotangents the kernels."""
    n, *pixels, c = x.shape
    groups = window.groups
    images = x.reshape(n, *pixels, groups, c // groups)
    images = images.transpose(-1 % images.ndim, *range(1, x.ndim - 1), -2 % images.ndim, 0)
    images = lax.optimization_barrier(images.reshape(c // groups, *pixels, groups * n))
    kernels = lax.optimization_barrier(jnp.moveaxis(cotangent, 0, -2))
    padding = []
    for axis, (before, _) in enumerate(window.padding):
        image = (pixels[axis] - 1) * window.lhs_dilation[axis] + 1
        kernel = (cotangent.shape[axis + 1] - 1) * window.strides[axis] + 1
        seen = kernel + (size[axis] - 1) * window.rhs_dilation[axis]
        padding.append((before, seen - image - before))
    swapped = dataclasses.replace(
        window,
        strides=window.rhs_dilation,
        rhs_dilation=window.strides,
        padding=tuple(padding),
    )
    return jnp.moveaxis(xla_convolve(images, kernels, window=swapped), 0, -2)


def _turn(kernel: jax.Array, groups: int) -> jax.Array:
    """[*spatial, C/g, K] -> [*spatial, K/g, C], turned by 180°."""
    *size, c, k = kernel.shape
    turned = jnp.flip(kernel, range(len(size))).reshape(*size, c, groups, k // groups)
    turned = jnp.moveaxis(turned, -1, -3).swapaxes(-1, -2).reshape(*size, k // groups, groups * c)
    return lax.optimization_barrier(turned)  # or XLA would take it for another layout


def _taps(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The sum over the kernel's entries of the pixels that each sees, times the entry."""
    products = [
        jnp.tensordot(pixels, kernel[place], 1)
        for place, pixels in _seen(x, kernel.shape[:-2], window)
    ]
    return _sum(products, x, kernel, window)


def _sum(
    products: Sequence[jax.Array], x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """The sum of the entries' products; zeros where all entries see nothing but padding."""
    if products:
        return functools.reduce(jnp.add, products)
    size = _output_size(x, kernel.shape[:-2], window)
    return jnp.zeros((x.shape[0], *size, kernel.shape[-1]), x.dtype)


def _taps_gradient(x: jax.Array, cotangent: jax.Array, window: Window, size: Size) -> jax.Array:
    """The gradient of `_taps` or `_depthwise` to the kernel, entry by entry."""
    depthwise = window.groups > 1
    inputs, outputs = x.shape[-1] // window.groups, cotangent.shape[-1]
    axes = tuple(range(x.ndim - 1))
    gradient = jnp.zeros((*size, inputs, outputs), x.dtype)
    for place, pixels in _seen(x, size, window):
        if depthwise:
            entry = _weights_gradient(pixels, cotangent, window.groups)
        else:
            entry = jnp.tensordot(pixels, cotangent, (axes, axes))
        gradient = gradient.at[place].set(entry)
    return gradient


def _depthwise(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Groups of one input or one output channel: each pixel times its channel's entry."""
    *size, inputs, outputs = kernel.shape
    ones = (1,) * (x.ndim - 1)  # the axes of batch and pixels
    weights = kernel.swapaxes(-1, -2).reshape(*size, *ones, -1)
    x = jnp.repeat(x, weights.shape[-1] // x.shape[-1], -1)
    products = [pixels * weights[place] for place, pixels in _seen(x, size, window)]
    if inputs > 1:
        products = [y.reshape(*y.shape[:-1], outputs, inputs).sum(-1) for y in products]
    return _sum(products, x, kernel, window)


def _weights_gradient(pixels: jax.Array, cotangent: jax.Array, groups: int) -> jax.Array:
    inputs, outputs = pixels.shape[-1] // groups, cotangent.shape[-1] // groups
    product = jnp.repeat(pixels, outputs, -1) * jnp.repeat(cotangent, inputs, -1)
    total = product.sum(tuple(range(pixels.ndim - 1)))  # [groups · inputs · outputs]
    return total.reshape(-1, inputs).T


def _multiply_then_shift(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """For few output channels: each pixel's share in all outputs that see it, shifted and summed."""
    *size, c, k = kernel.shape
    matrix = jnp.moveaxis(kernel, -2, 0).reshape(c, -1)
    shares = jnp.tensordot(x, matrix, 1)  # [N, *spatial, entries · K]
    terms = [
        pixels[..., i * k : (i + 1) * k]
        for i, (_, pixels) in enumerate(_seen(shares, size, window, skip=False))
    ]
    return functools.reduce(jnp.add, terms)


def _seen(
    x: jax.Array, size: Size, window: Window, *, skip: bool = True
) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """For each entry of a kernel of `size`, its place and the pixels that the outputs see by it.

    Entries that see nothing but padding are left out if `skip`.
    """
    outputs = _output_size(x, size, window)
    spread = _spread(x, window.lhs_dilation, window.padding)
    for place in np.ndindex(*size):
        start = [i * d for i, d in zip(place, window.rhs_dilation, strict=True)]
        if skip and not all(
            any(before <= at < before + length for at in range(first, first + (n - 1) * s + 1, s))
            for first, (before, _), n, s, length in zip(
                start,
                window.padding,
                outputs,
                window.strides,
                _spread_size(x, window.lhs_dilation),
                strict=True,
            )
        ):
            continue
        end = [
            first + (n - 1) * s + 1
            for first, n, s in zip(start, outputs, window.strides, strict=True)
        ]
        yield (
            place,
            lax.slice(
                spread,
                (0, *start, 0),
                (x.shape[0], *end, x.shape[-1]),
                (1, *window.strides, 1),
            ),
        )


def _spread(x: jax.Array, dilation: Size, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Zeros between the pixels and around them."""
    inner = [(*pads, step - 1) for pads, step in zip(padding, dilation, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def _spread_size(x: jax.Array, dilation: Size) -> list[int]:
    return [(n - 1) * step + 1 for n, step in zip(x.shape[1:-1], dilation, strict=True)]


def _output_size(x: jax.Array, size: Size, window: Window) -> list[int]:
    return [
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, pads, k, d, s in zip(
            _spread_size(x, window.lhs_dilation),
            window.padding,
            size,
            window.rhs_dilation,
            window.strides,
            strict=True,
        )
    ]


def _every(x: jax.Array, strides: Size) -> jax.Array:
    return x[(slice(None), *(slice(None, None, s) for s in strides))]


def _matrix(kernel: jax.Array) -> jax.Array:
    return kernel.reshape(kernel.shape[-2:])


def _even(x: jax.Array) -> jax.Array:
    """A row or column of zeros after an odd number of them."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))) if h % 2 or w % 2 else x


def _is_pointwise(size: Size, window: Window) -> bool:
    unpadded = all(pads == (0, 0) for pads in window.padding)
    return math.prod(size) == 1 and window.groups == 1 and unpadded and window.plain("lhs_dilation")


def _is_winograd(kernel: Size, window: Window) -> bool:
    """Whether the kernel [3, 3, C, K] runs at every pixel and its neighbours, of many channels."""
    return _is_plain(kernel, window) and min(kernel[-2:]) >= _MANY


def _is_banded(kernel: Size, window: Window, size: Size) -> bool:
    """Whether the kernel [3, 3, C, K] runs at every pixel and its neighbours, of few channels, on a map of tiles."""
    return _is_plain(kernel, window) and max(kernel[-2:]) < _MANY and min(size) >= 4


def _is_plain(kernel: Size, window: Window) -> bool:
    """Whether the kernel [3, 3, C, K] runs at every pixel and its neighbours."""
    return (
        tuple(kernel[:-2]) == (3, 3)
        and window.padding == ((1, 1), (1, 1))
        and window.groups == 1
        and window.plain("strides", "lhs_dilation", "rhs_dilation")
    )


def _factors(window: Window, x: jax.Array) -> DTypeLike:
    """The type of the factors of Winograd's products, which are summed in the type of `x`."""
    rounded = window.precision in _BFLOAT16 and x.dtype == jnp.float32
    return jnp.bfloat16 if rounded and processor.multiplies_bfloat16() else x.dtype


def _is_depthwise(c: int, k: int, window: Window) -> bool:
    return window.groups > 1 and window.groups in (c, k)


def _is_slow(x: jax.Array, kernel: Size) -> bool:
    """Whether XLA's convolution is up to a hundred times slower, for its sizes or for its type."""
    smaller = any(n < k for n, k in zip(x.shape[1:-1], kernel, strict=False))
    return smaller or x.dtype.itemsize == 8
