"""The convolution and its two gradients as JAX primitives that take the fastest form of the platform.

A convolution is linear in the image and in the kernel. With the cotangent it makes one trilinear
form, of which three primitives are the three faces; each is the derivative of the others:

    convolve(x, kernel)                 -> y
    input_gradient(cotangent, kernel)   -> x's gradient
    kernel_gradient(x, cotangent)       -> kernel's gradient

So they can be differentiated any number of times, forwards and backwards, and every derivative is
again one of them. `vmap` makes a larger batch, more channels, or groups of them.

On CPU they lower to `forms`, elsewhere to XLA's convolution and its transposes.

Layout: images [N, *spatial, C], kernels [*spatial, C/groups, K], one to three spatial axes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from outgen_jax.models.convolution import forms
from outgen_jax.models.convolution import window as windows
from outgen_jax.models.convolution.window import Window


def convolve(x: jax.Array, kernel: jax.Array, *, window: Window) -> jax.Array:
    """`jax.lax.conv_general_dilated` of `x` [N, *spatial, C] with `kernel` [*spatial, C/g, K]."""
    return _convolve_p.bind(x, kernel, window=window)


def input_gradient(
    cotangent: jax.Array, kernel: jax.Array, *, window: Window, size: Sequence[int]
) -> jax.Array:
    """Pulls the output's `cotangent` back to the image, of spatial `size`."""
    return _input_gradient_p.bind(cotangent, kernel, window=window, size=tuple(size))


def kernel_gradient(
    x: jax.Array, cotangent: jax.Array, *, window: Window, size: Sequence[int]
) -> jax.Array:
    """Pulls the output's `cotangent` back to the kernel, of spatial `size`."""
    return _kernel_gradient_p.bind(x, cotangent, window=window, size=tuple(size))


def _primitive(name: str, form: Callable[..., jax.Array], xla: Callable[..., jax.Array]) -> Any:
    primitive = Primitive(name)

    def on_cpu(*operands: jax.Array, **params: Any) -> jax.Array:
        one = jax.eval_shape(functools.partial(xla, **params), *operands)
        is_empty = 0 in [array.size for array in (*operands, one)]
        return (xla if is_empty else form)(*operands, **params)

    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("window", "size")))
    primitive.def_abstract_eval(functools.partial(windows.abstract_result, xla))
    mlir.register_lowering(primitive, mlir.lower_fun(xla, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), "cpu")
    return primitive


_convolve_p = _primitive("convolve", forms.convolve, windows.xla_convolve)
_input_gradient_p = _primitive(
    "convolution_input_gradient", forms.input_gradient, windows.xla_input_gradient
)
_kernel_gradient_p = _primitive(
    "convolution_kernel_gradient", forms.kernel_gradient, windows.xla_kernel_gradient
)

# The transposes. The operand that is asked for is known by its shape only.

ad.defbilinear(
    _convolve_p,
    lambda y, x, kernel, window: input_gradient(y, kernel, window=window, size=x.aval.shape[1:-1]),
    lambda y, x, kernel, window: kernel_gradient(x, y, window=window, size=kernel.aval.shape[:-2]),
)
ad.defbilinear(
    _input_gradient_p,
    lambda x, cotangent, kernel, window, size: convolve(x, kernel, window=window),
    lambda x, cotangent, kernel, window, size: kernel_gradient(
        x, cotangent, window=window, size=kernel.aval.shape[:-2]
    ),
)
ad.defbilinear(
    _kernel_gradient_p,
    lambda kernel, x, cotangent, window, size: input_gradient(
        cotangent, kernel, window=window, size=x.aval.shape[1:-1]
    ),
    lambda kernel, x, cotangent, window, size: convolve(x, kernel, window=window),
)


# `vmap`. Mapped images alone are a larger batch. Otherwise the mapped axis joins the channels: of the
# one mapped operand, or, as groups, of both.


def _merge(array: jax.Array, axis: int, channel: int) -> jax.Array:
    """Moves the mapped `axis` before axis `channel` of the rest and makes one axis of the two."""
    place = array.ndim - 1 + channel
    array = jnp.moveaxis(array, axis, place)
    shape = array.shape
    return array.reshape(*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])


def _split(array: jax.Array, mapped: int, channel: int) -> tuple[jax.Array, int]:
    """Undoes `_merge`; the mapped axis and its place."""
    place = array.ndim + channel
    shape = array.shape
    return array.reshape(*shape[:place], mapped, shape[place] // mapped, *shape[place + 1 :]), place


def _unmapped(array: jax.Array, axis: int | None) -> jax.ShapeDtypeStruct:
    """One of the arrays that are mapped along an axis."""
    shape = array.shape if axis is None else (*array.shape[:axis], *array.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, array.dtype)


def _define_batching(primitive: Primitive, alone: Sequence[tuple[int, int] | None]) -> None:
    """Registers the rule of `primitive`.

    `alone` has for each operand the channel axis that the mapped axis joins if only this operand is
    mapped, in the operand and in the result; None: it joins the batch.
    """

    def rule(
        operands: Sequence[jax.Array], axes: Sequence[int | None], *, window: Window, **params: Any
    ) -> tuple[jax.Array, int]:
        (mapped,) = {a.shape[i] for a, i in zip(operands, axes, strict=True) if i is not None}
        if mapped == 0:
            one = jax.eval_shape(
                functools.partial(primitive.bind, window=window, **params),
                *(_unmapped(a, i) for a, i in zip(operands, axes, strict=True)),
            )
            return jnp.zeros((0, *one.shape), one.dtype), 0
        only = axes.index(None) ^ 1 if None in axes else None
        if only is not None and (alone[only] is None or window.groups == 1):
            channels, axis = alone[only], axes[only]
            assert axis is not None
            merged = list(operands)
            if channels is None:
                images = jnp.moveaxis(operands[only], axis, 0)
                merged[only] = images.reshape(mapped * images.shape[1], *images.shape[2:])
                y = primitive.bind(*merged, window=window, **params)
                return y.reshape(mapped, len(y) // mapped, *y.shape[1:]), 0
            merged[only] = _merge(operands[only], axis, channels[0])
            y = primitive.bind(*merged, window=window, **params)
            return _split(y, mapped, channels[1])
        every = [
            _merge(jnp.broadcast_to(a, (mapped, *a.shape)) if i is None else a, i or 0, -1)
            for a, i in zip(operands, axes, strict=True)
        ]
        grouped = dataclasses.replace(window, groups=mapped * window.groups)
        return _split(primitive.bind(*every, window=grouped, **params), mapped, -1)

    batching.primitive_batchers[primitive] = rule


_define_batching(_convolve_p, (None, (-1, -1)))
_define_batching(_input_gradient_p, (None, (-2, -1)))
_define_batching(_kernel_gradient_p, ((-1, -2), (-1, -1)))
