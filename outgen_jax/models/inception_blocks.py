"""The parts of Inception v3 as the FID takes it: convolutions, blocks of branches, poolings, and the old resize.

Maps are [B, H, W, C]; kernels HWIO. Names are those of torchvision's port, which the weights' names follow.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016; what the graph
`inception-2015-12-05` makes differently is told in `inception.py`.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax.models import conv

Pooling = Literal["average", "max", "max, stride 2"]


class Layer(NamedTuple):
    """A convolution of a branch; of stride 2 without padding, otherwise padded to the same size."""

    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class Branch(NamedTuple):
    """A way through a block: a pooling, then convolutions one after the other."""

    name: str
    layers: tuple[Layer, ...] = ()
    pooling: Pooling | None = None
    fork: bool = False  # the last two layers see the same map; theirs are put side by side


_1X7, _7X1, _1X3, _3X1, _3X3, _5X5 = (1, 7), (7, 1), (1, 3), (3, 1), (3, 3), (5, 5)


def block_a(pool: int) -> tuple[Branch, ...]:
    """At 35×35: 64 + 64 + 96 + `pool` channels."""
    return (
        Branch("branch1x1", (Layer(64),)),
        Branch("branch5x5", (Layer(48), Layer(64, _5X5))),
        Branch("branch3x3dbl", (Layer(64), Layer(96, _3X3), Layer(96, _3X3))),
        Branch("branch_pool", (Layer(pool),), "average"),
    )


def block_b() -> tuple[Branch, ...]:
    """From 35×35 to 17×17: 384 + 96 channels and the input's."""
    return (
        Branch("branch3x3", (Layer(384, _3X3, 2),)),
        Branch("branch3x3dbl", (Layer(64), Layer(96, _3X3), Layer(96, _3X3, 2))),
        Branch("branch_pool", pooling="max, stride 2"),
    )


def block_c(c: int) -> tuple[Branch, ...]:
    """At 17×17: 4 × 192 channels, with `c` in between."""
    double = (Layer(c), Layer(c, _7X1), Layer(c, _1X7), Layer(c, _7X1), Layer(192, _1X7))
    return (
        Branch("branch1x1", (Layer(192),)),
        Branch("branch7x7", (Layer(c), Layer(c, _1X7), Layer(192, _7X1))),
        Branch("branch7x7dbl", double),
        Branch("branch_pool", (Layer(192),), "average"),
    )


def block_d() -> tuple[Branch, ...]:
    """From 17×17 to 8×8: 320 + 192 channels and the input's."""
    long = (Layer(192), Layer(192, _1X7), Layer(192, _7X1), Layer(192, _3X3, 2))
    return (
        Branch("branch3x3", (Layer(192), Layer(320, _3X3, 2))),
        Branch("branch7x7x3", long),
        Branch("branch_pool", pooling="max, stride 2"),
    )


def block_e(pooling: Pooling) -> tuple[Branch, ...]:
    """At 8×8: 320 + 768 + 768 + 192 channels."""
    fork = (Layer(384, _1X3), Layer(384, _3X1))
    return (
        Branch("branch1x1", (Layer(320),)),
        Branch("branch3x3", (Layer(384), *fork), fork=True),
        Branch("branch3x3dbl", (Layer(448), Layer(384, _3X3), *fork), fork=True),
        Branch("branch_pool", (Layer(192),), pooling),
    )


def layer_names(branch: Branch) -> list[str]:
    """Of the branch's convolutions: `branch1x1` alone, else `branch3x3_1`, and `branch3x3_2a`, `_2b` of a fork."""
    n = len(branch.layers)
    if n == 1:
        return [branch.name]
    numbers = [str(i) for i in range(1, n + 1)]
    if branch.fork:
        numbers[-2:] = [f"{n - 1}a", f"{n - 1}b"]
    return [f"{branch.name}_{number}" for number in numbers]


class Convolution(nnx.Module):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, layer: Layer, *, padding: str, rngs: nnx.Rngs) -> None:
        """Kernel by He's rule; `padding` "SAME" or "VALID"."""
        shape = (*layer.kernel, inputs, layer.outputs)
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), shape, jnp.float32))
        self.norm = nnx.BatchNorm(layer.outputs, epsilon=1e-3, rngs=rngs)
        self.stride, self.padding = layer.stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H', W', outputs], not negative."""
        kernel = self.kernel[...]
        return jax.nn.relu(
            self.norm(conv.convolution(x, kernel, strides=self.stride, padding=self.padding))
        )


class Block(nnx.Module):
    """Branches that see the same map and whose outputs are put side by side."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], *, rngs: nnx.Rngs) -> None:
        """`inputs`: channels of the map."""
        self.branches = branches
        self.outputs = 0
        layers = {}
        for branch in branches:
            seen = inputs
            for i, (name, layer) in enumerate(zip(layer_names(branch), branch.layers, strict=True)):
                padding = "VALID" if layer.stride > 1 else "SAME"
                layers[name] = Convolution(seen, layer, padding=padding, rngs=rngs)
                if not (branch.fork and i >= len(branch.layers) - 2):
                    seen = layer.outputs
            ends = branch.layers[-2:] if branch.fork else branch.layers[-1:]
            self.outputs += sum(layer.outputs for layer in ends) if ends else inputs
        self.layers = nnx.Dict(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H', W', outputs]."""
        return jnp.concatenate([self._through(branch, x) for branch in self.branches], -1)

    def _through(self, branch: Branch, x: jax.Array) -> jax.Array:
        x = x if branch.pooling is None else pooled(x, branch.pooling)
        layers = [self.layers[name] for name in layer_names(branch)]
        chain, ends = (layers[:-2], layers[-2:]) if branch.fork else (layers, [])
        for layer in chain:
            x = layer(x)
        return jnp.concatenate([layer(x) for layer in ends], -1) if ends else x


def pooled(x: jax.Array, pooling: Pooling) -> jax.Array:
    """3×3 pooling: averages and maxima at the same size over the pixels that there are, or maxima at half the size."""
    if pooling == "average":
        zero = np.zeros((), x.dtype)
        total = jax.lax.reduce_window(x, zero, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
        rows, columns = (_neighbours(side) for side in x.shape[1:3])
        return total / jnp.asarray((rows[:, None] * columns)[None, :, :, None], x.dtype)
    if pooling == "max":
        return nnx.max_pool(x, (3, 3), padding="SAME")
    return nnx.max_pool(x, (3, 3), (2, 2))


def _neighbours(side: int) -> np.ndarray:
    """How many pixels of a line each one sees of itself and its two neighbours, [side]."""
    return np.convolve(np.ones(side), np.ones(3))[1:-1]


def resize(images: jax.Array, side: int) -> jax.Array:
    """Bilinear, as TensorFlow 1 did it with `align_corners=False`: [B, H, W, C] -> [B, side, side, C].

    Pixel i lies at i · H / side, not at the centres of pixels, and is read from its two neighbours alone, however much
    the image shrinks.
    """
    for axis in (2, 1):
        n = images.shape[axis]
        at = np.arange(side, dtype=np.float32) * np.float32(n / side)
        low = at.astype(int)
        below = jnp.take(images, low, axis)
        above = jnp.take(images, np.minimum(low + 1, n - 1), axis)
        shape = [1] * images.ndim
        shape[axis] = side
        images = below + (above - below) * (at - low.astype(np.float32)).reshape(shape)
    return images
