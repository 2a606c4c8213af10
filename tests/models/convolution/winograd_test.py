"""Winograd's convolution and its two derivatives against XLA's, whole and in blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from outgen_jax.models.convolution import winograd


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
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale)


def scan_lengths(function: Any, *operands: jax.Array) -> list[int]:
    # A function of its own, here and below: JAX would find the program of other block sizes.
    equations = jax.make_jaxpr(lambda *operands: function(*operands))(*operands).jaxpr.eqns
    return [e.params["length"] for e in equations if e.primitive.name == "scan"]


def small_blocks(monkeypatch: pytest.MonkeyPatch, block_bytes: int, tiles: int = 1) -> None:
    monkeypatch.setattr(winograd, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(winograd, "_BLOCK_TILES", tiles)


@settings(max_examples=3, deadline=None)
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


def test_blocks_change_nothing(monkeypatch):
    x, kernel, cotangent = operands = arrays(5, 4, 6, 3, 3)  # 288 bytes an image
    small_blocks(monkeypatch, 1200)  # of up to four images, and of one for pairs
    assert scan_lengths(winograd.convolution, x, kernel) == [2]
    assert scan_lengths(winograd.input_gradient, cotangent, kernel) == [2]
    assert scan_lengths(winograd.kernel_gradient, x, cotangent) == [5]
    got = jax.jit(lambda *operands: by_winograd(*operands))(*operands)
    assert_equal(got, by_xla(*operands), 3e-6)


@pytest.mark.parametrize(
    ("block_bytes", "lengths"), [(1, [5]), (2 * 576, [5]), (4 * 576, [3]), (10 * 576, [])]
)
def test_a_block_holds_at_least_one_image_and_at_most_all(monkeypatch, block_bytes, lengths):
    small_blocks(monkeypatch, block_bytes)
    x, _, cotangent = arrays(5, 4, 6, 3, 3)
    assert scan_lengths(winograd.kernel_gradient, x, cotangent) == lengths


@pytest.mark.parametrize(("tiles", "lengths"), [(2, [5]), (3, [3]), (9, [])])
def test_a_block_of_the_kernel_gradient_holds_enough_tiles(monkeypatch, tiles, lengths):
    small_blocks(monkeypatch, 1, tiles)
    x, _, cotangent = arrays(5, 2, 4, 3, 4)  # two tiles an image
    assert scan_lengths(winograd.kernel_gradient, x, cotangent) == lengths


def test_blocks_are_of_one_size_and_little_is_filled_up():
    (blocks,) = winograd._blocks(4, jnp.ones((9, 2, 2, 3)))
    assert blocks.shape == (3, 3, 2, 2, 3)
    (blocks,) = winograd._blocks(4, jnp.ones((7, 2, 2, 3)))
    assert blocks.shape == (2, 4, 2, 2, 3)
    assert blocks.sum() == 7 * 12


@pytest.mark.parametrize(("n", "channels_first"), [(1, "image"), (2, "cotangent")])
def test_the_smaller_side_is_turned(n, channels_first):
    """Channels come first in the image's tiles, or in the cotangent if the kernel is small."""
    x, _, cotangent = arrays(n, 4, 4, 4, 8)
    text = str(jax.make_jaxpr(winograd.kernel_gradient)(x, cotangent))
    assert ("optimization_barrier" in text) == (channels_first == "cotangent")
    operands = arrays(n, 4, 4, 4, 8)
    assert_equal(jax.jit(by_winograd)(*operands), by_xla(*operands), 3e-6)


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
    operands = arrays(2, 2, 2, 3, 3, jnp.bfloat16)
    expected = by_xla(*(operand.astype(jnp.float32) for operand in operands))
    got = jax.jit(by_winograd)(*operands)
    assert {y.dtype for y in got} == {jnp.dtype(jnp.bfloat16)}
    assert_equal(tuple(y.astype(jnp.float32) for y in got), expected, 3e-2)
    small_blocks(monkeypatch, 1)  # a sum is carried on from one to the next
    blocks = jax.eval_shape(lambda *operands: by_winograd(*operands), *operands)
    assert {y.dtype for y in blocks} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("function", [winograd.convolution, winograd.input_gradient])
def test_factors_of_another_type_are_rounded_and_summed_in_the_image_s(function):
    x, kernel, cotangent = arrays(2, 4, 4, 8, 8)
    image = x if function is winograd.convolution else cotangent
    exact = function(image, kernel)
    rounded = function(image, kernel, factors=jnp.bfloat16)
    assert rounded.dtype == jnp.float32
    error = float(jnp.abs(rounded - exact).max() / jnp.abs(exact).max())
    assert 1e-4 < error < 2e-2  # bfloat16 has 8 bits
    text = str(jax.make_jaxpr(lambda *a: function(*a, factors=jnp.bfloat16))(image, kernel))
    assert text.count("preferred_element_type=float32") == 16


def test_blocks_are_measured_on_the_wider_side(monkeypatch):
    narrow, wide = jnp.ones((4, 2, 2, 3)), jnp.ones((3, 3, 3, 12))  # 48 bytes an image, and 192
    small_blocks(monkeypatch, 2 * 48)
    assert scan_lengths(winograd.convolution, narrow, wide[..., :3]) == [2]
    assert scan_lengths(winograd.convolution, narrow, wide) == [4]


def test_no_images_give_no_outputs_and_a_kernel_gradient_of_zeros():
    operands = arrays(0, 4, 4, 32, 24)
    for found, expected in zip(jax.jit(by_winograd)(*operands), by_xla(*operands), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
