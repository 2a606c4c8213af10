"""What a convolution is: its window, and XLA's convolution with both gradients.

Layout: images [N, *spatial, C], kernels [*spatial, C/groups, K], one to three spatial axes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

Size = Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Where a kernel sees an image: the options of `jax.lax.conv_general_dilated`.

    Attributes:
      strides: steps between outputs, one for each spatial axis.
      padding: zeros before and after the dilated image; negative ones cut it.
      lhs_dilation: steps between the image's pixels.
      rhs_dilation: steps between the kernel's entries.
      groups: into how many groups the channels are divided.
      precision: of the products, as `jax.lax.PrecisionLike`; on CPU only "bfloat16" differs from float32.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int = 1
    precision: Any = None

    def plain(self, *names: str) -> bool:
        """Whether the options of these names are all one."""
        return all(set(getattr(self, name)) == {1} for name in names)


def xla_convolve(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        lhs_dilation=window.lhs_dilation,
        rhs_dilation=window.rhs_dilation,
        dimension_numbers=_layout(x.ndim),
        feature_group_count=window.groups,
        precision=window.precision,
    )


def xla_input_gradient(
    cotangent: jax.Array, kernel: jax.Array, *, window: Window, size: Size
) -> jax.Array:
    """JAX's transpose of it with respect to the image."""
    shape = (cotangent.shape[0], *size, kernel.shape[-2] * window.groups)
    x = jax.ShapeDtypeStruct(shape, cotangent.dtype)
    transpose = jax.linear_transpose(lambda x: xla_convolve(x, kernel, window=window), x)
    return transpose(cotangent)[0]


def xla_kernel_gradient(
    x: jax.Array, cotangent: jax.Array, *, window: Window, size: Size
) -> jax.Array:
    """JAX's transpose of it with respect to the kernel."""
    shape = (*size, x.shape[-1] // window.groups, cotangent.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    transpose = jax.linear_transpose(lambda kernel: xla_convolve(x, kernel, window=window), kernel)
    return transpose(cotangent)[0]


def abstract_result(xla: Callable[..., jax.Array], *operands: Any, **params: Any) -> Any:
    """The abstract value of `xla`: its shape, type and sharding; in `jax.shard_map` it varies as the operands."""
    result: Any = jax.make_jaxpr(lambda *arrays: xla(*arrays, **params))(*operands).out_avals[0]
    varying = getattr(operands[0], "manual_axis_type", None)
    return result if varying is None else result.update(manual_axis_type=varying)


def _layout(ndim: int) -> lax.ConvDimensionNumbers:
    """Images [N, *spatial, C], kernels [*spatial, C, K], in the order that XLA names axes."""
    spatial = tuple(range(1, ndim - 1))
    images = (0, ndim - 1, *spatial)
    return lax.ConvDimensionNumbers(images, (ndim - 1, ndim - 2, *range(ndim - 2)), images)
