"""Convolutions and pooling that take the fastest form of the platform and the shape.

XLA's convolution is the right choice on GPU and TPU. On CPU, 3×3 convolutions (stride 1, "SAME",
even sizes) run two to five times faster as Winograd matrix products, the first layer of a network
as a product with patches, and depthwise convolutions as sums of shifted products; on the smallest
maps the difference is a factor of a hundred. All forms agree with `jax.lax.conv_general_dilated` to
float32 rounding; `benchmarks/convolution.py` times them against it.

Layout: images NHWC, kernels HWIO (depthwise: [k, k, C]); any float dtype.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from outgen_jax.models import winograd

_NHWC = ("NHWC", "HWIO", "NHWC")
_FEW = 4  # channels: up to here, Winograd's sums cost more than its products save


def convolution(
    x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: str = "SAME"
) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [k, k, C, K] -> [N, H', W', K].

    Differentiable in reverse mode, any number of times; not by `jax.jvp` and `jax.jacfwd`.
    """
    _, h, w, _ = x.shape
    same = strides == 1 and padding == "SAME" and kernel.shape[:2] == (3, 3)
    if same and h % 2 == w % 2 == 0:
        return _convolve(x, kernel)
    return _xla(x, kernel, strides=strides, padding=padding)


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: str = "SAME"
) -> jax.Array:
    """Convolves each channel of `x` [N, H, W, C] with its `kernel` [k, k, C] -> [N, H', W', C].

    Differentiable in reverse mode, any number of times; not by `jax.jvp` and `jax.jacfwd`.
    """
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted_products, stride, pads),
        default=functools.partial(_grouped, stride, pads),
    )


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of every 2×2 square: [N, H, W, C] -> [N, H/2, W/2, C]; ties share the gradient.

    The maximum of four strided slices: on CPU its gradient costs a seventh of `reduce_window`'s.

    Raises:
      ValueError: an odd H or W.
    """
    _, h, w, _ = x.shape
    if h % 2 or w % 2:  # the slices would broadcast on maps of one and three pixels
        raise ValueError(f"max_pool: H and W must be even, got {h}×{w}; crop or pad the map")
    top = jnp.maximum(x[:, ::2, ::2], x[:, ::2, 1::2])
    bottom = jnp.maximum(x[:, 1::2, ::2], x[:, 1::2, 1::2])
    return jnp.maximum(top, bottom)


def _xla(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: str = "SAME") -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (strides, strides), padding, dimension_numbers=_NHWC)


# The 3×3 convolution and its two derivatives are three faces of one trilinear form of image, kernel
# and cotangent: each is the derivative of the others. Saying so keeps every order of
# differentiation in the fast forms, inside loops too.


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve_on_platform(x, kernel)


@jax.custom_vjp
def _input_gradient(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    return _input_gradient_on_platform(cotangent, kernel)


@jax.custom_vjp
def _kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    return _kernel_gradient_on_platform(x, cotangent)


_convolve.defvjp(
    lambda x, kernel: (_convolve(x, kernel), (x, kernel)),
    lambda saved, y: (_input_gradient(y, saved[1]), _kernel_gradient(saved[0], y)),
)
_input_gradient.defvjp(
    lambda cotangent, kernel: (_input_gradient(cotangent, kernel), (cotangent, kernel)),
    lambda saved, x: (_convolve(x, saved[1]), _kernel_gradient(x, saved[0])),
)
_kernel_gradient.defvjp(
    lambda x, cotangent: (_kernel_gradient(x, cotangent), (x, cotangent)),
    lambda saved, kernel: (_input_gradient(saved[1], kernel), _convolve(saved[0], kernel)),
)


@custom_vmap
def _convolve_on_platform(x: jax.Array, kernel: jax.Array) -> jax.Array:
    few = min(kernel.shape[2:]) <= _FEW
    cpu = _convolve_few if few else winograd.convolution
    return lax.platform_dependent(x, kernel, cpu=cpu, default=_xla)


@custom_vmap
def _input_gradient_on_platform(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    few = min(kernel.shape[2:]) <= _FEW
    cpu = _input_gradient_few if few else winograd.input_gradient
    return lax.platform_dependent(cotangent, kernel, cpu=cpu, default=_xla_input_gradient)


@custom_vmap
def _kernel_gradient_on_platform(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    few = x.shape[-1] <= _FEW
    cpu = _kernel_gradient_few if few else winograd.kernel_gradient
    return lax.platform_dependent(x, cotangent, cpu=cpu, default=_xla_kernel_gradient)


def _xla_input_gradient(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    x = jax.ShapeDtypeStruct((*cotangent.shape[:3], kernel.shape[2]), cotangent.dtype)
    return jax.linear_transpose(lambda x: _xla(x, kernel), x)(cotangent)[0]


def _xla_kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], cotangent.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _xla(x, kernel), kernel)(cotangent)[0]


def _fold_images(on_platform: custom_vmap, plain: Callable[..., jax.Array]) -> None:
    """`vmap` over images alone is a larger batch; mapped kernels take the plain form."""

    def rule(
        axis_size: int, in_batched: list[bool], images: jax.Array, kernel: jax.Array
    ) -> tuple[jax.Array, bool]:
        if in_batched[1]:
            return jax.vmap(plain, (0 if in_batched[0] else None, 0))(images, kernel), True
        y = on_platform(images.reshape(-1, *images.shape[2:]), kernel)
        return y.reshape(axis_size, -1, *y.shape[1:]), True

    on_platform.def_vmap(rule)


_fold_images(_convolve_on_platform, _xla)
_fold_images(_input_gradient_on_platform, _xla_input_gradient)


@_kernel_gradient_on_platform.def_vmap
def _one_kernel_each(
    axis_size: int, in_batched: list[bool], x: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, bool]:
    axes = tuple(0 if batched else None for batched in in_batched)
    return jax.vmap(_xla_kernel_gradient, axes)(x, cotangent), True


def _convolve_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
    few_inputs = kernel.shape[2] <= _FEW
    return (_gather_then_multiply if few_inputs else _multiply_then_scatter)(x, kernel)


def _input_gradient_few(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve_few(cotangent, kernel[::-1, ::-1].swapaxes(2, 3))


def _kernel_gradient_few(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    c, k = x.shape[-1], cotangent.shape[-1]
    patches = jnp.concatenate(_shifted(x), -1).reshape(-1, 9 * c)
    return (patches.T @ cotangent.reshape(-1, k)).reshape(3, 3, c, k)


def _gather_then_multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """For few input channels: each pixel's patch as one vector, times the kernel as a matrix."""
    patches = jnp.concatenate(_shifted(x), -1)  # [N, H, W, 9C]
    return jnp.tensordot(patches, kernel.reshape(-1, kernel.shape[-1]), 1)


def _multiply_then_scatter(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """For few output channels: each pixel's share in its nine neighbours, shifted and summed."""
    c, k = kernel.shape[2:]
    matrix = kernel.transpose(2, 0, 1, 3).reshape(c, 9 * k)
    shares = jnp.tensordot(x, matrix, 1)  # [N, H, W, 9K]
    taps = [t[..., i * k : (i + 1) * k] for i, t in enumerate(_shifted(shares))]
    return functools.reduce(jnp.add, taps)


def _shifted(x: jax.Array) -> list[jax.Array]:
    """The nine [N, H, W, C] views of `x` that a 3×3 kernel's entries see, in the kernel's order."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]


_Pads = Sequence[tuple[int, int]]  # before and after, rows then columns


def _grouped(stride: int, pads: _Pads, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        pads,
        dimension_numbers=_NHWC,
        feature_group_count=x.shape[-1],
    )


# The derivative with respect to `x` is written out because XLA would fuse the transposed slices,
# each padded to the whole image, into one loop: the gradient of all of EfficientNet-Lite0 then
# takes more than twice as long.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _shifted_products(stride: int, pads: _Pads, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _products(stride, jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel)


def _shifted_products_backward(
    stride: int, pads: _Pads, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangent, spread by the stride, with the flipped kernel; and with the image by taps."""
    x, kernel = saved
    config = [(0, 0, 0)]
    for axis, (before, _) in enumerate(pads, 1):
        reach = kernel.shape[axis - 1] - 1
        spread = (cotangent.shape[axis] - 1) * stride + 1
        config.append((reach - before, x.shape[axis] + before - spread, stride - 1))
    spread_out = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*config, (0, 0, 0)])
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    by_kernel = jax.linear_transpose(functools.partial(_products, stride, padded), kernel)
    return _products(1, spread_out, kernel[::-1, ::-1]), by_kernel(cotangent)[0]


_shifted_products.defvjp(
    lambda stride, pads, x, kernel: (_shifted_products(stride, pads, x, kernel), (x, kernel)),
    _shifted_products_backward,
)


def _products(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The sum over the kernel's entries of what each sees of the padded `x`, times the entry."""
    rows, columns, _ = kernel.shape
    n, h, w, c = x.shape
    y = jnp.zeros((), x.dtype)
    for i in range(rows):
        for j in range(columns):
            end = (n, h - rows + i + 1, w - columns + j + 1, c)
            y += lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1)) * kernel[i, j]
    return y
