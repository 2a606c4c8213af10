"""The three primitives against XLA's convolution: every window, derivative and mapped axis."""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.models.convolution import primitives
from outgen_jax.models.convolution import window as windows
from outgen_jax.models.convolution.window import Window

ONE = (1, 1)
SAME = ((1, 1), (1, 1))


def window(strides=ONE, padding=SAME, lhs_dilation=ONE, rhs_dilation=ONE, groups=1) -> Window:
    return Window(
        strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        groups=groups,
    )


def normal(seed: int, *shape: int, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def every_derivative(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Value and gradients; their gradients and tangents."""

    def first(x, kernel, cotangent):
        y, pull_back = jax.vjp(convolve, x, kernel)
        return y, *pull_back(cotangent)

    def second(x, kernel, cotangent, *directions):
        values, pull_back = jax.vjp(first, x, kernel, cotangent)
        tangents = jax.jvp(first, (x, kernel, cotangent), (*directions, cotangent))[1]
        return values, pull_back((cotangent, *directions)), tangents

    return jax.jit(second)


def assert_equal(got: Any, expected: Any, rtol: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        b = np.asarray(b, np.float64)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=0, atol=rtol * np.abs(b).max()
        )


def compare(x_shape, kernel_shape, window: Window, dtype: Any = jnp.float32, rtol=1e-5) -> None:
    x, kernel = normal(0, *x_shape, dtype=dtype), normal(1, *kernel_shape, dtype=dtype)

    def xla(x, kernel):
        return windows.xla_convolve(x, kernel, window=window)

    def ours(x, kernel):
        return primitives.convolve(x, kernel, window=window)

    cotangent = normal(2, *jax.eval_shape(xla, x, kernel).shape, dtype=dtype)
    operands = (x, kernel, cotangent, normal(3, *x.shape, dtype=dtype), kernel[::-1])
    assert_equal(every_derivative(ours)(*operands), every_derivative(xla)(*operands), rtol)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 7, 5, 32), (3, 3, 32, 40), {}),  # Winograd's products
        ((2, 7, 5, 8), (3, 3, 8, 6), {}),  # pairs of pixels
        ((2, 7, 5, 32), (3, 3, 32, 3), {}),  # few output channels
        ((2, 7, 5, 8), (1, 1, 8, 6), {"strides": (2, 3), "padding": ((0, 0), (0, 0))}),
        ((2, 2, 2, 8), (3, 3, 8, 6), {}),  # images smaller than the kernel
        ((2, 1, 4, 8), (3, 3, 8, 6), {"padding": ((3, 0), (1, 1))}),  # entries in padding only
        ((2, 7, 5, 8), (3, 3, 1, 8), {"groups": 8}),
        ((2, 7, 5, 4), (3, 2, 1, 8), {"groups": 4, "strides": (2, 2)}),  # two outputs of each
        ((2, 7, 5, 8), (3, 3, 2, 12), {"groups": 4, "rhs_dilation": (1, 2)}),
        ((2, 4, 5, 4), (3, 3, 4, 6), {"lhs_dilation": (2, 1)}),
        ((2, 9, 4), (3, 4, 6), {"strides": (2,), "padding": ((1, 1),), "lhs_dilation": (1,)}),
    ],
)
def test_every_derivative_equals_xla(x, kernel, options):
    if len(x) == 3:
        options = {**options, "rhs_dilation": (1,)}
    compare(x, kernel, window(**options))


def test_random_windows_equal_xla():
    draw = random.Random(0)
    for _ in range(4):
        groups = draw.choice([1, 2])
        options = window(
            strides=(draw.randint(1, 3), draw.randint(1, 3)),
            padding=((draw.randint(0, 2), draw.randint(-1, 2)), (draw.randint(0, 2), 1)),
            rhs_dilation=(draw.randint(1, 2), 1),
            groups=groups,
        )
        size = (draw.randint(1, 3), draw.randint(2, 3), draw.randint(2, 3), 2 * groups)
        compare((2, draw.randint(5, 9), draw.randint(5, 9), size[2] * groups), size, options)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kernel", [(3, 3, 32, 32), (3, 3, 32, 2), (1, 1, 32, 4)])
def test_sixteen_bits_stay_and_are_rounded_once(dtype, kernel):
    x, kernel = normal(0, 2, 6, 6, 32, dtype=dtype), normal(1, *kernel, dtype=dtype)
    pads = SAME if kernel.shape[0] == 3 else ((0, 0), (0, 0))
    options = window(padding=pads)
    got = jax.jit(lambda: primitives.convolve(x, kernel, window=options))()
    exact = windows.xla_convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), window=options)
    assert got.dtype == dtype
    assert_equal(got.astype(jnp.float32), exact, rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("in_axes", [(1, None, 1), (None, 0, None), (2, 3, 1), (0, 0, None)])
def test_mapped_operands_equal_one_by_one(groups, in_axes):
    shapes = [(2, 5, 4, 4), (3, 3, 4 // groups, 6), (2, 5, 4, 6)]
    arrays = [
        normal(i, *shape) if axis is None else normal(i, *shape[:axis], 3, *shape[axis:])
        for i, (shape, axis) in enumerate(zip(shapes, in_axes, strict=True))
    ]

    def gradients(x, kernel, cotangent):
        options = window(groups=groups)
        y, pull_back = jax.vjp(lambda *o: primitives.convolve(*o, window=options), x, kernel)
        return y, *pull_back(cotangent)

    got = jax.jit(jax.vmap(gradients, in_axes))(*arrays)
    one = jax.jit(gradients)
    for i in range(3):
        taken = [
            a if axis is None else jnp.take(a, i, axis)
            for a, axis in zip(arrays, in_axes, strict=True)
        ]
        assert_equal([part[i] for part in got], one(*taken))


def test_outside_jit_and_in_float64():
    x, kernel = normal(0, 1, 4, 4, 2), normal(1, 3, 3, 2, 3)
    expected = windows.xla_convolve(x, kernel, window=window())
    assert_equal(primitives.convolve(x, kernel, window=window()), expected)
    with jax.enable_x64(True):
        compare((2, 5, 4, 2), (3, 3, 2, 3), window(strides=(2, 1)), jnp.float64, 1e-12)
