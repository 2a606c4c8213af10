"""Convolutions and pooling that take the fastest form of the platform and the shape.

XLA's convolution is the right choice on GPU and TPU. On CPU other forms are faster for many shapes,
and its gradients are slow inside loops; `convolution.forms` has both. All forms agree with
`jax.lax.conv_general_dilated` to float32 rounding; `benchmarks/convolution` times them against it.
`accelerate` brings the same forms to networks that call XLA's convolution.

Layout: images NHWC, kernels HWIO (depthwise: [k, k, C]); any float dtype.
"""

import jax
import jax.numpy as jnp
from jax import lax

from outgen_jax.models.convolution import primitives
from outgen_jax.models.convolution.window import Window


def convolution(
    x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: str = "SAME"
) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [k, k, C, K] -> [N, H', W', K].

    Differentiable in forward and reverse mode, any number of times.

    >>> convolution(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))).shape
    (1, 4, 4, 5)
    """
    window = _window(x, kernel, strides, padding)
    return primitives.convolve(x, kernel, window=window)


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: str = "SAME"
) -> jax.Array:
    """Convolves each channel of `x` [N, H, W, C] with its `kernel` [k, k, C] -> [N, H', W', C].

    Differentiable in forward and reverse mode, any number of times.

    >>> depthwise_convolution(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2)), strides=2).shape
    (1, 2, 2, 2)
    """
    window = _window(x, kernel, strides, padding, groups=x.shape[-1])
    return primitives.convolve(x, kernel[:, :, None], window=window)


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of every 2×2 square: [N, H, W, C] -> [N, H/2, W/2, C]; ties share the gradient.

    Computed as the maximum of four strided slices, whose gradient is faster on CPU than that of `reduce_window`.

    Raises:
      ValueError: an odd H or W.

    >>> max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1)).item()
    3.0
    """
    _, h, w, _ = x.shape
    if h % 2 or w % 2:  # the slices would broadcast on maps of one and three pixels
        raise ValueError(f"max_pool: H and W must be even, got {h}×{w}; crop or pad the map")
    top = jnp.maximum(x[:, ::2, ::2], x[:, ::2, 1::2])
    bottom = jnp.maximum(x[:, 1::2, ::2], x[:, 1::2, 1::2])
    return jnp.maximum(top, bottom)


def _window(
    x: jax.Array, kernel: jax.Array, strides: int, padding: str, *, groups: int = 1
) -> Window:
    both = (strides, strides)
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], both, padding)
    return Window(
        strides=both,
        padding=tuple((int(before), int(after)) for before, after in pads),
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        groups=groups,
        # What holds here holds for the program, which is lowered later.
        precision=jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    )
