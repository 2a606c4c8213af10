"""Which equations of a jaxpr are convolutions that `convolution.primitives` can compute, and how."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from outgen_jax.models.convolution import primitives
from outgen_jax.models.convolution.window import Window


def form(equation: JaxprEqn) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """The function that computes a `conv_general_dilated` equation by the primitives; None for others."""
    if equation.primitive.name != "conv_general_dilated":
        return None
    operands: list[Any] = [v.aval for v in equation.invars]
    x, kernel = operands
    y: Any = equation.outvars[0].aval
    params = equation.params
    wanted = params["preferred_element_type"]
    if (
        params["batch_group_count"] != 1
        or params.get("out_sharding") is not None
        or x.dtype != kernel.dtype
        or not jnp.issubdtype(x.dtype, jnp.floating)
        or wanted not in (None, x.dtype)
        or not 3 <= x.ndim <= 5
        or 0 in (*x.shape, *kernel.shape, *y.shape)
    ):
        return None
    numbers = params["dimension_numbers"]
    window = Window(
        strides=tuple(params["window_strides"]),
        padding=tuple((before, after) for before, after in params["padding"]),
        lhs_dilation=tuple(params["lhs_dilation"]),
        rhs_dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
        precision=params["precision"],
    )

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        n, c, *pixels = numbers.lhs_spec
        k, inputs, *size = numbers.rhs_spec
        y = primitives.convolve(
            _in_order(x, (n, *pixels, c)), _in_order(kernel, (*size, inputs, k)), window=window
        )
        n, c, *pixels = numbers.out_spec
        return _in_order(y, [int(i) for i in np.argsort((n, *pixels, c))])

    return convolution


def _in_order(array: jax.Array, axes: Sequence[int]) -> jax.Array:
    return array if list(axes) == list(range(array.ndim)) else array.transpose(axes)
