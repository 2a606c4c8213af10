"""The forms that a DCGAN's resampling layers could take, and the layers they are timed on."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.harness.alternation import Operations
from outgen_jax.models import conv, dcgan

_NHWC = ("NHWC", "HWIO", "NHWC")


class Form(NamedTuple):
    """A way to double or to halve the sides of a map."""

    apply: Callable[[jax.Array, jax.Array], jax.Array]  # [B, h, w, C], kernel -> [B, h', w', K]
    kernel: int  # its side
    multiple: int = 1  # of the output's channels that the kernel has


class Layer(NamedTuple):
    size: int  # of its input
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        return f"{self.size}×{self.size}, {self.inputs}→{self.outputs}"


def shuffled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return dcgan.pixel_shuffle(conv.convolution(x, kernel))


def resized(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.convolution(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel)


def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=_NHWC)


def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.convolution(x, kernel, strides=2)


def over_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`strided`: the 4×4 kernel, with a margin of zeros, sees 3×3 blocks of 2×2 pixels."""
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    kernel = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0))).reshape(3, 2, 3, 2, c, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * c, -1)
    return conv.convolution(blocks.reshape(n, h // 2, w // 2, 4 * c), kernel)


UP = {
    "pixel shuffle": Form(shuffled, 3, multiple=4),
    "nearest + convolution": Form(resized, 3),
    "transposed": Form(transposed, 4),
}
DOWN = {"stride 2": Form(strided, 4), "Winograd over blocks": Form(over_blocks, 4)}


def layers(size: int, width: int) -> tuple[list[Layer], list[Layer]]:
    """The generator's upsamplings and the discriminator's downsamplings, as they come."""

    def kernels(
        network: type[dcgan.Generator] | type[dcgan.Discriminator],
    ) -> list[tuple[int, ...]]:
        model = nnx.eval_shape(lambda: network(size=size, width=width, rngs=nnx.Rngs(0)))
        found = [layer.kernel.shape for layer in model.hidden]
        return found + ([model.pixels.kernel.shape] if hasattr(model, "pixels") else [])

    up = [
        Layer(4 << i, inputs, outputs // 4)
        for i, (*_, inputs, outputs) in enumerate(kernels(dcgan.Generator))
    ]
    down = [
        Layer(size >> i, inputs, outputs)
        for i, (*_, inputs, outputs) in enumerate(kernels(dcgan.Discriminator))
    ]
    return up, down


def operations(forms: Mapping[str, Form], layer: Layer, batch: int) -> Operations:
    """By form: the output and the two gradients, where the output's own gradient is all ones."""
    shape = (batch, layer.size, layer.size, layer.inputs)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))

    def make(form: Form) -> Callable[[], Any]:
        shape = (form.kernel, form.kernel, layer.inputs, form.multiple * layer.outputs)
        kernel = jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))

        @jax.jit
        def passes(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
            y, pull_back = jax.vjp(form.apply, x, kernel)
            return y, *pull_back(jnp.ones_like(y))

        return functools.partial(passes, x, kernel)

    return Operations(
        {name: make(form) for name, form in forms.items()},
        wait=jax.block_until_ready,
        to_array=lambda passes: np.asarray(passes[0]),
    )
