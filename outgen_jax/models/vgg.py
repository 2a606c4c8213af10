"""VGG16 with batch normalisation for small images (Simonyan and Zisserman, 2015, configuration D).

Images [B, H, W, 3] float32 in [0, 1], H and W multiples of 32; logits [B, num_classes] float32. The
network normalises its input itself (CIFAR-10's channel means and deviations), so that every
classifier of the package takes the same images.

What every network of this configuration needs are functions below: `convolution_blocks`, `layer_names`,
`through_blocks` and `through_hidden`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from outgen_jax import image_checks
from outgen_jax.models import conv

# Channels of each block's convolutions; every block ends in 2×2 max-pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MEAN = (0.4914, 0.4822, 0.4465)  # CIFAR-10 training set, per channel
STD = (0.2470, 0.2435, 0.2616)


class Convolution(nnx.Module):
    """A 3×3 convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        """Kernel [3, 3, inputs, outputs] by He's rule, float32; the computation is in `dtype`."""
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), (3, 3, inputs, outputs), jnp.float32))
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> pre-activation [B, H, W, outputs]."""
        return self.norm(conv.convolution(x.astype(self.dtype), self.kernel.astype(self.dtype)))


class VGG16(nnx.Module):
    """Thirteen convolutions and one linear layer, or three with `hidden` (layers 14-16 of D)."""

    def __init__(
        self,
        num_classes: int = 10,
        width_multiplier: float = 1.0,
        *,
        hidden: int | None = None,
        image_size: int = 32,
        dropout: float = 0.5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network.

        Args:
          num_classes: number of logits K.
          width_multiplier: scales every convolution's channels (64 becomes 32 at 0.5).
          hidden: units of each of two hidden linear layers, `fc1` and `fc2`, before the logits;
            None: no such layers.
          image_size: side of the square images, needed only to size `fc1`.
          dropout: rate after `fc1` and `fc2` in training.
          dtype: type of the computation; parameters, logits and statistics stay float32.
          rngs: parameters' initial values, and dropout.

        Raises:
          ValueError: a size or width that leaves no pixels or channels.
        """
        if image_size < 32 or image_size % 32:
            raise ValueError(f"VGG16: image_size must be a multiple of 32, got {image_size}")
        if int(64 * width_multiplier) < 1:
            raise ValueError(
                f"VGG16: width_multiplier {width_multiplier} leaves no channels; use 1/64 or more"
            )
        widths = [[int(c * width_multiplier) for c in block] for block in BLOCKS]
        layer = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        self.blocks, inputs = convolution_blocks(widths, layer)
        hidden_layers: list[nnx.Linear] = []
        if hidden is not None:
            features = inputs * (image_size // 32) ** 2
            hidden_layers = [
                nnx.Linear(n, hidden, dtype=dtype, rngs=rngs) for n in (features, hidden)
            ]
            inputs = hidden
        self.hidden = nnx.List(hidden_layers)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(inputs, num_classes, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the pre-activations in `activations`, input side first."""
        return layer_names(self.blocks, self.hidden)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, K] float32."""
        return self.activations(images)[0]

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, K], and every layer's values before its ReLU by name.

        `conv1_1` [B, H, W, 64] (times the width multiplier) ... `conv5_3` [B, H/16, W/16, 512], and
        with hidden layers `fc1` and `fc2` [B, hidden].

        Raises:
          ValueError: images of another shape.
        """
        image_checks.check_batch(images, caller="VGG16", channels=(3,), multiple=32)
        image_checks.check_floats(images, caller="VGG16")
        x = normalised(images, MEAN, STD).astype(self.dtype)
        x, convolved = through_blocks(self.blocks, x)
        # fc1 sees the whole map where there is one, the plain head its mean.
        x = x.reshape(x.shape[0], -1) if self.hidden else x.mean((1, 2))
        x, hidden = through_hidden(self.hidden, self.dropout, x)
        logits = self.head(x).astype(jnp.float32)
        return logits, dict(zip(self.layer_names, convolved + hidden, strict=True))


def normalised(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Images [B, H, W, C] minus a mean, over a deviation, each [C]."""
    shift, scale = (jnp.asarray(x, images.dtype).reshape(1, 1, 1, -1) for x in (mean, std))
    return (images - shift) / scale


def convolution_blocks(
    widths: Sequence[Sequence[int]], layer: Callable[[int, int], nnx.Module]
) -> tuple[nnx.List, int]:
    """Blocks of `layer(inputs, outputs)` of the given widths, the first on an image's 3 channels; the last width."""
    inputs, blocks = 3, []
    for block in widths:
        layers = []
        for outputs in block:
            layers.append(layer(inputs, outputs))
            inputs = outputs
        blocks.append(nnx.List(layers))
    return nnx.List(blocks), inputs


def layer_names(blocks: nnx.List, hidden: nnx.List) -> tuple[str, ...]:
    """`conv1_1`, `conv1_2`, `conv2_1`, ..., `fc1`, ...: the block and the place in it, then the hidden layers."""
    convolutions = [
        f"conv{b}_{i}" for b, block in enumerate(blocks, 1) for i, _ in enumerate(block, 1)
    ]
    return (*convolutions, *(f"fc{i}" for i, _ in enumerate(hidden, 1)))


def through_blocks(blocks: nnx.List, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Blocks of convolutions, each ending in 2×2 max-pooling: [B, H, W, 3] -> the last map, all pre-activations."""
    pre: list[jax.Array] = []
    for block in blocks:
        for i, layer in enumerate(block):
            pre.append(layer(x))
            last = i == len(block) - 1
            # Pooling before the ReLU gives the same values from a quarter of the elements.
            x = jax.nn.relu(conv.max_pool(pre[-1]) if last else pre[-1])
    return x, pre


def through_hidden(
    hidden: nnx.List, dropout: Callable[[jax.Array], Any], x: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Linear layers with dropout: [B, features] -> what the last gives after its dropout, all pre-activations."""
    pre: list[jax.Array] = []
    for linear in hidden:
        pre.append(linear(x))
        x = dropout(jax.nn.relu(pre[-1]))
    return x, pre
