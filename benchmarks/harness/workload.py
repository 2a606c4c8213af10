"""The workload of all sides of the synthesis benchmark: paper A's update on random inputs.

VGG16 with batch normalisation in inference mode and random weights, images [B, 32, 32, 3] float32
in [0, 1], targets [B, 10]; one update is

    W ← W − γ (∇L(W) + λ W),   image = arctan(W)/π + 0.5,   L = cross-entropy summed over images

(Eq. A4, A6, A11). Everything is drawn by numpy from one seed, so that every process has the same.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from outgen_jax.models import vgg

SIZE = 32
CLASSES = 10


class ConvolutionWeights(NamedTuple):
    """A convolution and its batch normalisation."""

    kernel: np.ndarray  # [k, k, C, K]
    scale: np.ndarray  # [K], as are the following
    bias: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class Weights(NamedTuple):
    blocks: list[list[ConvolutionWeights]]
    kernel: np.ndarray  # [C, 10] of the linear layer
    bias: np.ndarray  # [10]


class Workload(NamedTuple):
    width: float = 1.0  # width multiplier of VGG16
    batch_size: int = 128
    seed: int = 0

    def images(self) -> np.ndarray:
        """[B, 32, 32, 3] float32, clear of 0 and 1, where the pixel map would clip them."""
        rng = np.random.default_rng((self.seed, 1))
        return rng.uniform(0.01, 0.99, (self.batch_size, SIZE, SIZE, 3)).astype(np.float32)

    def targets(self) -> np.ndarray:
        """[B, 10] float32: mixtures of all classes."""
        rng = np.random.default_rng((self.seed, 2))
        return rng.dirichlet(np.ones(CLASSES), self.batch_size).astype(np.float32)

    def weights(self) -> Weights:
        """Of VGG16, drawn by `convolution`."""
        rng = np.random.default_rng((self.seed, 3))
        blocks = [[convolution(rng, 3, c, k) for c, k, _ in block] for block in layers(self.width)]
        features = blocks[-1][-1].kernel.shape[-1]
        return Weights(blocks, normal(rng, 1, features, CLASSES), normal(rng, 0.1, CLASSES))


def convolution(rng: np.random.Generator, size: int, c: int, k: int) -> ConvolutionWeights:
    """He's rule for the kernel [size, size, c, k], batch statistics that are not the neutral ones."""
    scale, var = rng.uniform(0.5, 1.5, (2, k)).astype(np.float32)
    kernel = normal(rng, math.sqrt(2 / (size**2 * c)), size, size, c, k)
    return ConvolutionWeights(kernel, scale, normal(rng, 0.1, k), normal(rng, 0.1, k), var)


def normal(rng: np.random.Generator, scale: float, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def layers(width: float) -> Iterator[list[tuple[int, int, int]]]:
    """(input channels, output channels, side of the map) of each convolution, block by block."""
    inputs, size = 3, SIZE
    for block in vgg.BLOCKS:
        outputs = [int(channels * width) for channels in block]
        yield [(c, k, size) for c, k in zip([inputs, *outputs], outputs, strict=False)]
        inputs, size = outputs[-1], size // 2


def flops_per_update(width: float) -> int:
    """Multiplications and additions for one image, forward and back to the image.

    Counted as direct convolutions, whatever the algorithm: 2·9·C·K·H·W each way. The gradient with
    respect to the weights of the network is not needed. 1.25 GFLOP at full width.
    """
    convolutions = [layer for block in layers(width) for layer in block]
    products = sum(9 * c * k * size**2 for c, k, size in convolutions)
    return 2 * 2 * (products + convolutions[-1][1] * CLASSES)


def bytes_per_pass(width: float, images: int, *, itemsize: int) -> int:
    """Bytes that a forward or a backward pass of some images has to move, if all between two convolutions is fused.

    Every convolution reads its images and kernel and writes its result, once.
    """
    total = 0
    for c, k, size in (layer for block in layers(width) for layer in block):
        total += images * (c + k) * size**2 + 9 * c * k
    return total * itemsize
