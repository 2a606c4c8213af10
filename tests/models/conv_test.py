"""Convolutions and pooling against XLA's, through every order of derivative and every vmap."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from outgen_jax.models import conv

Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_xla(
    x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: str = "SAME"
) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), padding, dimension_numbers=numbers
    )


def assert_close(got, expected, rtol: float = 5e-6) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(jnp.abs(b).max()))


def two_orders(convolution: Convolution) -> Callable[..., list[jax.Array]]:
    """Value, gradients, and the gradients of the gradients by image, kernel and cotangent."""

    def first(x, kernel, cotangent):
        y, pull_back = jax.vjp(convolution, x, kernel)
        return y, *pull_back(cotangent)

    def both(x, kernel, cotangent, directions):
        values, pull_back = jax.vjp(first, x, kernel, cotangent)
        return [*values, *pull_back((jnp.zeros_like(cotangent), *directions))]

    return jax.jit(both)


# Few channels, few output channels, many (Winograd's products), of an odd size too.
@pytest.mark.parametrize(("c", "k", "h"), [(3, 6, 4), (6, 2, 4), (32, 33, 4), (33, 32, 3)])
def test_two_orders_of_derivatives_equal_xla(c, k, h):
    x, kernel, cotangent = normal(0, 2, h, 6, c), normal(1, 3, 3, c, k), normal(2, 2, h, 6, k)
    directions = normal(3, *x.shape), normal(4, *kernel.shape)
    got = two_orders(conv.convolution)(x, kernel, cotangent, directions)
    assert_close(got, two_orders(by_xla)(x, kernel, cotangent, directions))


def lowered(function: Callable[..., object], platform: str, *shapes: tuple[int, ...]) -> str:
    operands = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).trace(*operands).lower(lowering_platforms=(platform,)).as_text()


def convolutions(text: str, *, slow_in_loops: bool = False) -> int:
    """How many of XLA's there are; or of those not written with images NHWC and kernels HWIO."""
    fast = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    found = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    return len([line for line in found if not slow_in_loops or fast not in line])


def gradients(x, kernel):
    return jax.grad(lambda *operands: (conv.convolution(*operands) ** 2).sum(), (0, 1))(x, kernel)


@pytest.mark.parametrize(("c", "k"), [(3, 8), (8, 3), (32, 32)])
def test_takes_the_form_of_the_platform(c, k):
    shapes = (2, 4, 4, c), (3, 3, c, k)
    for function, count in ((conv.convolution, 1), (gradients, 3)):
        text = lowered(function, "cpu", *shapes)
        assert convolutions(text, slow_in_loops=True) == 0
        assert c < 32 or convolutions(text) == 0
        for platform in ("cuda", "tpu"):
            text = lowered(function, platform, *shapes)
            assert convolutions(text) == count
            assert "stablehlo.dot_general" not in text


def test_mapped_images_are_a_larger_batch():
    def image_gradient(x, kernel):
        return jax.grad(lambda x: (conv.convolution(x[None], kernel) ** 2).sum())(x)

    one = lowered(image_gradient, "cpu", (4, 6, 32), (3, 3, 32, 32))
    twice = jax.vmap(jax.vmap(image_gradient, (0, None)), (0, None))
    many = lowered(twice, "cpu", (5, 3, 4, 6, 32), (3, 3, 32, 32))
    assert one.count("stablehlo.dot_general") == many.count("stablehlo.dot_general") == 32
    assert "stablehlo.convolution" not in many

    x, kernel = normal(0, 5, 3, 4, 6, 3), normal(1, 3, 3, 3, 5)
    flat = x.reshape(15, 4, 6, 3)
    expected = jax.jit(jax.grad(lambda x: (by_xla(x, kernel) ** 2).sum()))(flat)
    assert_close(jax.jit(twice)(x, kernel), expected.reshape(x.shape))


@pytest.mark.parametrize("in_axes", [(None, 0), (0, 0), (0, None)])
def test_mapped_kernels_and_gradients(in_axes):
    """Both gradients of one member each, as for an ensemble or for gradients by example."""
    x, kernel = normal(0, 3, 2, 4, 4, 2), normal(1, 3, 3, 3, 2, 5)
    operands = [
        array if axis == 0 else array[0] for array, axis in zip((x, kernel), in_axes, strict=True)
    ]

    def value_and_gradients(convolution, x, kernel):
        y, pull_back = jax.vjp(convolution, x, kernel)
        return y, *pull_back(y)

    mapped = jax.vmap(lambda *one: value_and_gradients(conv.convolution, *one), in_axes)
    got = jax.jit(mapped)(*operands)
    by_one = jax.jit(lambda *one: value_and_gradients(by_xla, *one))
    for i in range(3):
        member = [a[i] if axis == 0 else a for a, axis in zip(operands, in_axes, strict=True)]
        assert_close([part[i] for part in got], by_one(*member))


@settings(max_examples=5, deadline=None)
@given(
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    size=st.sampled_from([1, 2, 3, 5]),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["SAME", "VALID"]),
)
def test_any_shape_equals_xla(h, w, size, strides, padding):
    x, kernel = normal(0, 2, h + size, w + size, 3), normal(1, size, size, 3, 4)
    got = conv.convolution(x, kernel, strides=strides, padding=padding)
    assert_close(got, by_xla(x, kernel, strides=strides, padding=padding))


@pytest.mark.parametrize(
    ("height", "size", "options"),
    [(5, 3, {}), (4, 5, {}), (8, 5, {}), (4, 3, {"strides": 2}), (4, 3, {"padding": "VALID"})],
)
def test_no_shape_is_slow_in_loops(height, size, options):
    def both(x, kernel):
        energy = lambda *o: (conv.convolution(*o, **options) ** 2).sum()  # noqa: E731
        return jax.grad(energy, (0, 1))(x, kernel)

    text = lowered(both, "cpu", (2, height, 6, 8), (size, size, 8, 8))
    assert convolutions(text, slow_in_loops=True) == 0


def test_forward_mode_equals_xla():
    x, kernel = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 4)
    tangents = normal(2, *x.shape), normal(3, *kernel.shape)
    got = jax.jit(lambda *o: jax.jvp(conv.convolution, o[:2], o[2:]))(x, kernel, *tangents)
    assert_close(got, jax.jvp(by_xla, (x, kernel), tangents))
    got = jax.jit(jax.jacfwd(conv.convolution))(x, kernel[:1, :1])
    assert_close(got, jax.jacrev(by_xla)(x, kernel[:1, :1]))


def test_the_default_precision_is_that_of_the_call():
    shapes = (1, 4, 4, 8), (3, 3, 8, 8)
    assert "HIGHEST" not in lowered(conv.convolution, "tpu", *shapes)
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in lowered(lambda *o: conv.convolution(*o), "tpu", *shapes)


def test_keeps_bfloat16():
    for c, k in ((32, 32), (3, 8), (8, 3)):
        shapes = (
            jax.ShapeDtypeStruct((2, 4, 4, c), jnp.bfloat16),
            jax.ShapeDtypeStruct((3, 3, c, k), jnp.bfloat16),
        )
        outputs = jax.eval_shape(lambda *o: (conv.convolution(*o), gradients(*o)), *shapes)
        assert {y.dtype for y in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.bfloat16)}


def test_max_pool_and_its_gradient_equal_reduce_window():
    values = np.random.default_rng(0).permutation(2 * 4 * 6 * 3)  # no ties
    x = jnp.asarray(values.reshape(2, 4, 6, 3), jnp.float32)
    window = (1, 2, 2, 1)

    def value_and_gradient(pool):
        y, pull_back = jax.vjp(pool, x)
        return y, *pull_back(normal(0, *y.shape))

    got = jax.jit(lambda: value_and_gradient(conv.max_pool))()
    expected = jax.jit(
        lambda: value_and_gradient(
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        )
    )()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_maxima_share_the_gradient():
    gradient = jax.grad(lambda x: conv.max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))


@pytest.mark.parametrize(("height", "width"), [(1, 2), (2, 3), (5, 5)])
def test_max_pool_wants_even_sizes(height, width):
    with pytest.raises(ValueError, match=rf"max_pool: .* even, got {height}×{width}"):
        conv.max_pool(jnp.zeros((1, height, width, 1)))


def grouped(x, kernel, stride: int, padding: str):
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(
    ("size", "height", "width", "stride", "padding"),
    [
        (3, 9, 6, 1, "SAME"),
        (3, 9, 6, 2, "SAME"),
        (5, 3, 4, 2, "SAME"),  # smaller than the kernel
        (3, 8, 10, 3, "VALID"),  # rows and columns that no output sees
    ],
)
def test_depthwise_equals_the_grouped_convolution(size, height, width, stride, padding):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, 4))
    kernel = jax.random.normal(keys[1], (size, size, 4))
    out = jax.eval_shape(lambda: grouped(x, kernel, stride, padding))
    cotangent = jax.random.normal(keys[2], out.shape)

    def value_and_gradients(depthwise):
        y, transpose = jax.vjp(depthwise, x, kernel)
        return y, *transpose(cotangent)

    def ours(x, kernel):
        return conv.depthwise_convolution(x, kernel, strides=stride, padding=padding)

    got = jax.jit(lambda: value_and_gradients(ours))()
    expected = jax.jit(lambda: value_and_gradients(lambda x, k: grouped(x, k, stride, padding)))()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_depthwise_under_vmap_and_its_second_derivative():
    x = jax.random.normal(jax.random.key(0), (3, 7, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4))

    def energy(x, kernel, depthwise):
        return (depthwise(x[None], kernel) ** 3).sum()

    def hessian_product(depthwise):
        def gradient(x):
            return jax.grad(energy, (0, 1))(x, kernel, depthwise)

        def one(x):
            return jax.vjp(gradient, x)[1]((jnp.ones_like(x), jnp.ones_like(kernel)))[0]

        return jax.jit(jax.vmap(one))(x)

    got = hessian_product(lambda x, k: conv.depthwise_convolution(x, k, strides=2))
    expected = hessian_product(lambda x, k: grouped(x, k, 2, "SAME"))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_depthwise_takes_the_form_of_the_platform():
    shapes = (
        jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 4), jnp.float32),
    )
    traced = jax.jit(conv.depthwise_convolution).trace(*shapes)
    for platform, grouped in (("cpu", False), ("cuda", True), ("tpu", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("feature_group_count = 4" in text) == grouped, platform


def test_maps_without_pixels():
    assert conv.convolution(jnp.ones((1, 0, 4, 32)), jnp.ones((3, 3, 32, 32))).shape == (
        1,
        0,
        4,
        32,
    )
    few, kernel = jnp.ones((2, 1, 4, 3)), jnp.ones((3, 3, 3, 3))
    assert conv.convolution(few, kernel, padding="VALID").shape == (2, 0, 2, 3)
