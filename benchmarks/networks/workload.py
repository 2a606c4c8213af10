"""The workloads: for each network, random images and targets, and weights that all sides share."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.harness import workload
from benchmarks.harness.comparison import REFERENCE
from benchmarks.harness.workload import ConvolutionWeights

VGG16, RESNET20, EFFICIENTNET = "vgg16", "resnet20", "efficientnet_lite0"


class Network(NamedTuple):
    """How the table calls a network, and in what it is written: by the name of the side."""

    name: str
    written: Mapping[str, str]
    size: int  # side of the images
    classes: int


OWN = "the package's"
NETWORKS = {
    VGG16: Network(
        "VGG16", {REFERENCE: OWN, "flax.nnx": "flax.nnx", "Equinox": "Equinox"}, size=32, classes=10
    ),
    RESNET20: Network("ResNet-20", {REFERENCE: "jax.lax"}, size=32, classes=10),
    EFFICIENTNET: Network("EfficientNet-Lite0", {REFERENCE: OWN}, size=224, classes=1000),
}


class Block(NamedTuple):
    """A residual block: two 3×3 convolutions beside the identity, or a 1×1 convolution of stride 2."""

    first: ConvolutionWeights  # of stride 2 where there is a `shortcut`
    second: ConvolutionWeights
    shortcut: ConvolutionWeights | None


class ResNetWeights(NamedTuple):
    stem: ConvolutionWeights
    blocks: list[Block]
    kernel: np.ndarray  # [64, 10] of the linear layer
    bias: np.ndarray  # [10]


class Workload(NamedTuple):
    """The network, and what is changed; `small`: narrow or shallow, or small images, to try a side."""

    network: str
    batch_size: int
    seed: int = 0
    small: bool = False

    @property
    def size(self) -> int:
        """Side of the images."""
        return 32 if self.small else NETWORKS[self.network].size

    def images(self) -> np.ndarray:
        """[B, H, W, 3] float32, clear of 0 and 1, where the pixel map would clip them."""
        rng = np.random.default_rng((self.seed, 1))
        shape = (self.batch_size, self.size, self.size, 3)
        return rng.uniform(0.01, 0.99, shape).astype(np.float32)

    def targets(self) -> np.ndarray:
        """[B, K] float32: mixtures of all classes."""
        rng = np.random.default_rng((self.seed, 2))
        classes = NETWORKS[self.network].classes
        return rng.dirichlet(np.ones(classes), self.batch_size).astype(np.float32)

    def vgg16(self) -> workload.Workload:
        """Of the synthesis benchmark, whose VGG16 this is."""
        return workload.Workload(1 / 16 if self.small else 1.0, self.batch_size, self.seed)

    def resnet20(self) -> ResNetWeights:
        """Three blocks of 16 channels, three of 32, three of 64; one of each where it is `small`.

        As in a trained network, the batch statistics fit what a layer sees. He's rule doubles the second moment of its
        input, which is about 1 for images, 0.6 inside a block, and grows with every block on the identity.
        """
        rng = np.random.default_rng((self.seed, 3))

        def layer(size: int, inputs: int, outputs: int, moment: float) -> ConvolutionWeights:
            drawn = workload.convolution(rng, size, inputs, outputs)
            return drawn._replace(var=np.float32(2 * moment) * drawn.var)

        stem, inputs, moment = layer(3, 3, 16, 1.0), 16, 0.6
        blocks = []
        for outputs in np.repeat((16, 32, 64), 1 if self.small else 3).tolist():
            halves = outputs != inputs
            blocks.append(
                Block(
                    layer(3, inputs, outputs, moment),
                    layer(3, outputs, outputs, 0.6),
                    layer(1, inputs, outputs, moment) if halves else None,
                )
            )
            inputs, moment = outputs, 1.2 if halves else moment + 0.8
        normal = workload.normal
        return ResNetWeights(stem, blocks, normal(rng, 1, inputs, 10), normal(rng, 0.1, 10))
