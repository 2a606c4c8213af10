"""Winograd's convolution and its two derivatives against XLA's, whole and in blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from outgen_jax.models import winograd


def arrays(n: int, h: int, w: int, c: int, k: int, dtype: Any = jnp.float32) -> list[jax.Array]:
    """Image [n, h, w, c], kernel [3, 3, c, k], cotangent [n, h, w, k]."""
    rng = np.random.default_rng(n * h + w * c + k)
    shapes = ((n, h, w, c), (3, 3, c, k), (n, h, w, k))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@jax.jit
def by_xla(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    y, pull_back = jax.vjp(
        lambda x, kernel: lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        x,
        kernel,
    )
    return y, *pull_back(cotangent)


def by_winograd(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    return (
        winograd.convolution(x, kernel),
        winograd.input_gradient(cotangent, kernel),
        winograd.kernel_gradient(x, cotangent),
    )


def assert_equal(got: tuple[jax.Array, ...], expected: tuple[jax.Array, ...], rtol: float) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), atol=rtol * scale
        )


def scan_lengths(function: Any, *operands: jax.Array) -> list[int]:
    # A function of its own, here and below: JAX would find the program of other block sizes.
    equations = jax.make_jaxpr(lambda *operands: function(*operands))(*operands).jaxpr.eqns
    return [e.params["length"] for e in equations if e.primitive.name == "scan"]


@settings(max_examples=6, deadline=None)
@given(
    n=st.integers(1, 3),
    h=st.integers(1, 3).map(lambda half: 2 * half),
    w=st.integers(1, 3).map(lambda half: 2 * half),
    c=st.integers(1, 5),
    k=st.integers(1, 5),
)
def test_equals_xla_with_both_gradients(n, h, w, c, k):
    operands = arrays(n, h, w, c, k)
    assert_equal(jax.jit(by_winograd)(*operands), by_xla(*operands), 3e-6)


# Of a 4x6 image: 288 bytes with 3 channels, 192 with 2, both 480. Lengths for the three functions.
@pytest.mark.parametrize(
    ("block_bytes", "lengths"),
    [
        (600, ([3], [2], [5])),  # blocks of 2 and 3, the last one filled up; then single images
        (1000, ([2], [], [3])),  # blocks of 3, all five at once, blocks of 2
        (1, ([5], [5], [5])),  # not even one image fits
        (5 * 480, ([], [], [])),
    ],
)
def test_blocks_change_nothing(monkeypatch, block_bytes, lengths):
    monkeypatch.setattr(winograd, "_BLOCK_BYTES", block_bytes)
    x, kernel, cotangent = arrays(5, 4, 6, 3, 2)
    found = (
        scan_lengths(winograd.convolution, x, kernel),
        scan_lengths(winograd.input_gradient, cotangent, kernel),
        scan_lengths(winograd.kernel_gradient, x, cotangent),
    )
    assert found == lengths
    got = jax.jit(lambda *operands: by_winograd(*operands))(x, kernel, cotangent)
    assert_equal(got, by_xla(x, kernel, cotangent), 3e-6)


def test_sixteen_products_for_thirty_six():
    x, kernel, cotangent = arrays(2, 4, 4, 3, 5)
    for function, operands in (
        (winograd.convolution, (x, kernel)),
        (winograd.input_gradient, (cotangent, kernel)),
        (winograd.kernel_gradient, (x, cotangent)),
    ):
        text = str(jax.make_jaxpr(function)(*operands))
        assert text.count("dot_general[") == 16
        assert "conv_general_dilated" not in text


def test_keeps_bfloat16(monkeypatch):
    monkeypatch.setattr(winograd, "_BLOCK_BYTES", 300)
    operands = arrays(3, 4, 4, 8, 6, jnp.bfloat16)
    got = jax.jit(lambda *operands: by_winograd(*operands))(*operands)
    assert_equal(got, by_xla(*operands), 3e-2)
