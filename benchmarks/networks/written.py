"""Networks as their users write them in flax.nnx, Equinox and jax.lax, without any layer of this package.

All take images [B, H, W, 3] in [0, 1] and return logits [B, 10]. Batch normalisation is in inference mode.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

import outgen_jax as og
from benchmarks.harness.workload import ConvolutionWeights, Weights
from benchmarks.networks.workload import ResNetWeights
from outgen_jax.models import vgg

Network = tuple[Callable[[Any, jax.Array], jax.Array], Any]  # `apply_fn, variables`


class NnxVGG16(nnx.Module):
    """Blocks of 3×3 convolutions of these channels, each ending in 2×2 max-pooling."""

    def __init__(self, blocks: Sequence[Sequence[int]], rngs: nnx.Rngs) -> None:
        self.lengths = tuple(len(block) for block in blocks)
        widths = [channels for block in blocks for channels in block]
        self.convolutions = nnx.List(
            nnx.Conv(c, k, (3, 3), use_bias=False, rngs=rngs)
            for c, k in itertools.pairwise([3, *widths])
        )
        self.norms = nnx.List(nnx.BatchNorm(c, rngs=rngs) for c in widths)
        self.head = nnx.Linear(widths[-1], 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = (x - jnp.array(vgg.MEAN)) / jnp.array(vgg.STD)
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for length in self.lengths:
            for convolution, norm in itertools.islice(layers, length):
                x = nnx.relu(norm(convolution(x)))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.head(x.mean((1, 2)))


class EquinoxVGG16(eqx.Module):
    """The same for one image [3, H, W], as Equinox's layers take it."""

    lengths: tuple[int, ...] = eqx.field(static=True)
    convolutions: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.BatchNorm]
    head: eqx.nn.Linear

    def __init__(self, blocks: Sequence[Sequence[int]], key: jax.Array) -> None:
        self.lengths = tuple(len(block) for block in blocks)
        widths = [channels for block in blocks for channels in block]
        *keys, last = jax.random.split(key, len(widths) + 1)
        self.convolutions = [
            eqx.nn.Conv2d(c, k, 3, padding=1, use_bias=False, key=key)
            for (c, k), key in zip(itertools.pairwise([3, *widths]), keys, strict=True)
        ]
        self.norms = [eqx.nn.BatchNorm(c, "batch", mode="batch") for c in widths]
        self.head = eqx.nn.Linear(widths[-1], 10, key=last)

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        mean, std = (jnp.array(of)[:, None, None] for of in (vgg.MEAN, vgg.STD))
        x = (x - mean) / std
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for length in self.lengths:
            for convolution, norm in itertools.islice(layers, length):
                x, state = norm(convolution(x), state)
                x = jax.nn.relu(x)
            x = eqx.nn.MaxPool2d(2, 2)(x)
        return self.head(x.mean((1, 2))), state


def nnx_vgg16(weights: Weights) -> Network:
    model = nnx.eval_shape(lambda: NnxVGG16(_widths(weights), nnx.Rngs(0)))
    convolved = [a for block in weights.blocks for a in block]
    for convolution, norm, a in zip(model.convolutions, model.norms, convolved, strict=True):
        convolution.kernel.set_value(jnp.asarray(a.kernel))
        for name in ("scale", "bias", "mean", "var"):
            getattr(norm, name).set_value(jnp.asarray(getattr(a, name)))
    model.head.kernel.set_value(jnp.asarray(weights.kernel))
    model.head.bias.set_value(jnp.asarray(weights.bias))
    return og.models.from_nnx(model)


def equinox_vgg16(weights: Weights) -> Network:
    model, state = eqx.nn.make_with_state(EquinoxVGG16)(_widths(weights), jax.random.key(0))
    convolved = [a for block in weights.blocks for a in block]
    for norm, a in zip(model.norms, convolved, strict=True):
        state = state.set(norm.batch_state_index, (jnp.asarray(a.mean), jnp.asarray(a.var)))
    arrays = [
        *(a.kernel.transpose(3, 2, 0, 1) for a in convolved),
        *(a.scale for a in convolved),
        *(a.bias for a in convolved),
        *(weights.kernel.T, weights.bias),
    ]
    model = eqx.tree_at(
        lambda m: [
            *(convolution.weight for convolution in m.convolutions),
            *(norm.weight for norm in m.norms),
            *(norm.bias for norm in m.norms),
            *(m.head.weight, m.head.bias),
        ],
        model,
        [jnp.asarray(array) for array in arrays],
    )
    return og.models.from_equinox(model, state)


def lax_resnet20(weights: ResNetWeights) -> Network:
    """ResNet-20 for CIFAR-10 (He et al., 2016), with 1×1 convolutions where the map is halved."""
    return _resnet, jax.tree.map(jnp.asarray, weights)


def _resnet(weights: ResNetWeights, images: jax.Array) -> jax.Array:
    x = (images - jnp.array(vgg.MEAN)) / jnp.array(vgg.STD)
    x = jax.nn.relu(_convolve(x, weights.stem))
    for block in weights.blocks:
        stride = 1 if block.shortcut is None else 2
        y = jax.nn.relu(_convolve(x, block.first, stride))
        y = _convolve(y, block.second)
        x = jax.nn.relu(y + (x if block.shortcut is None else _convolve(x, block.shortcut, 2)))
    return x.mean((1, 2)) @ weights.kernel + weights.bias


def _convolve(x: jax.Array, layer: ConvolutionWeights, stride: int = 1) -> jax.Array:
    """With batch normalisation."""
    numbers = ("NHWC", "HWIO", "NHWC")
    pad = layer.kernel.shape[0] // 2
    x = lax.conv_general_dilated(
        x, layer.kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=numbers
    )
    return (x - layer.mean) * lax.rsqrt(layer.var + 1e-5) * layer.scale + layer.bias


def _widths(weights: Weights) -> list[list[int]]:
    return [[a.kernel.shape[-1] for a in block] for block in weights.blocks]
