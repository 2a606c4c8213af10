"""Convolutions of few channels, in pairs of pixels, against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from outgen_jax.models import conv
from outgen_jax.models.convolution import bands


def arrays(n: int, h: int, w: int, c: int, k: int) -> tuple[jax.Array, jax.Array]:
    """Image [n, h, w, c], kernel [3, 3, c, k]."""
    rng = np.random.default_rng(n * h + w * c + k)
    x, kernel = (rng.normal(size=shape) for shape in ((n, h, w, c), (3, 3, c, k)))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


@jax.jit
def by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def assert_equal(got: jax.Array, expected: jax.Array) -> None:
    assert got.dtype == expected.dtype
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 * scale)


def equations(text: str, name: str) -> int:
    return text.count(f" {name}[")


@settings(max_examples=4, deadline=None)
@given(
    n=st.integers(1, 3),
    h=st.integers(1, 9),
    w=st.integers(1, 6),
    c=st.integers(1, 5),
    k=st.integers(1, 5),
)
def test_equals_xla_at_every_size(n, h, w, c, k):
    operands = arrays(n, h, w, c, k)
    assert_equal(jax.jit(bands.convolution)(*operands), by_xla(*operands))


def test_six_products_of_pairs():
    text = str(jax.make_jaxpr(bands.convolution)(*arrays(2, 8, 6, 3, 5)))
    assert equations(text, "dot_general") == 6
    assert "conv_general_dilated" not in text
    assert "f32[6,20]" in text  # 2·C × 4·K


@pytest.mark.parametrize(("images", "length"), [(1, 5), (2, 3), (5, 0)])
def test_blocks_change_nothing(monkeypatch, images, length):
    x, kernel = arrays(5, 4, 6, 5, 3)  # 480 bytes an image where it is widest
    monkeypatch.setattr(bands, "_BLOCK_BYTES", images * 480)
    jaxpr = jax.make_jaxpr(lambda *operands: bands.convolution(*operands))(x, kernel).jaxpr
    lengths = [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert lengths == ([length] if length else [])
    got = jax.jit(lambda *operands: bands.convolution(*operands))(x, kernel)
    assert_equal(got, by_xla(x, kernel))


def test_no_images_give_no_outputs():
    x, kernel = arrays(0, 4, 4, 3, 5)
    assert jax.jit(bands.convolution)(x, kernel).shape == (0, 4, 4, 5)


@pytest.mark.parametrize(
    ("size", "channels", "is_banded"),
    [(4, (16, 16), True), (4, (3, 16), True), (3, (16, 16), False), (4, (16, 24), False)],
)
def test_for_few_channels_on_maps_of_a_tile_or_more(size, channels, is_banded):
    x, kernel = jnp.ones((1, size, size, channels[0])), jnp.ones((3, 3, *channels))

    def call(x: jax.Array) -> jax.Array:
        return conv.convolution(x, kernel).sum()

    for function in (call, jax.grad(call)):
        text = jax.jit(function).lower(x).as_text()
        # The value is not needed for its gradient.
        assert (text.count("stablehlo.dot_general") == 6) == is_banded
