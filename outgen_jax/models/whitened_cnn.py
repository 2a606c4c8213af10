"""A small convolutional network with a whitened first layer, which trains fast (after Jordan 2024, arXiv 2404.00498).

Images [B, H, W, 3] float32 in [0, 1], H and W multiples of 8; logits [B, num_classes] float32. The first layer sees
patches of 2×2 pixels. Its kernel is computed from training images (`whiten`), so that its outputs are uncorrelated,
and stays fixed. Six 3×3 convolutions in three blocks follow, then the maximum over the map and a linear layer.

The network departs from the paper's airbench94 where its maps have odd sides: they are even here, which costs nothing
and suits the convolution's fast forms.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from outgen_jax import image_checks
from outgen_jax.models import conv
from outgen_jax.models.vgg import MEAN, STD, normalised

WIDTHS = (64, 256, 256)  # channels of the three blocks
PATCH = 2  # side of the whitened patches
_DIRECTIONS = 2 * PATCH * PATCH * 3  # outputs of the first layer: both signs of each direction
_SMALLEST_VARIANCE = 5e-4  # added to the variance of each direction, so that noise is not amplified
_MOMENTUM = 0.6  # of the running statistics, which follow the last few updates
_EPSILON = 1e-12


class WhiteningKernel(nnx.BatchStat):
    """The kernel of the first layer [2, 2, 3, 24]: a statistic of the training images."""


class Block(nnx.Module):
    """A convolution, 2×2 pooling, a second convolution; normalisation and GELU after each."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        """Kernels [3, 3, inputs, outputs] and [3, 3, outputs, outputs]."""
        self.kernel1 = nnx.Param(_initial_kernel(rngs.params(), inputs, outputs))
        self.kernel2 = nnx.Param(_initial_kernel(rngs.params(), outputs, outputs))
        norm = functools.partial(
            nnx.BatchNorm,
            outputs,
            momentum=_MOMENTUM,
            epsilon=_EPSILON,
            use_scale=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm1, self.norm2 = norm(), norm()
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """[B, H, W, inputs] -> [B, H/2, W/2, outputs], and both pre-activations of that shape."""
        pre = []
        x = conv.max_pool(conv.convolution(x, self.kernel1.astype(self.dtype)))
        pre.append(self.norm1(x))
        x = conv.convolution(jax.nn.gelu(pre[0]), self.kernel2.astype(self.dtype))
        pre.append(self.norm2(x))
        return jax.nn.gelu(pre[1]), pre


class WhitenedCNN(nnx.Module):
    """A whitened first layer, three blocks of two convolutions, and a linear layer.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from outgen_jax import models
    >>> network = models.WhitenedCNN(10, width_multiplier=1 / 16, rngs=nnx.Rngs(0))
    >>> network(jnp.zeros((2, 32, 32, 3))).shape
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
        width_multiplier: float = 1.0,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network; call `whiten` with training images before it is trained.

        Args:
          num_classes: number of logits K.
          width_multiplier: scales the channels of every block (64 becomes 32 at 0.5).
          dtype: type of the computation; parameters, logits and statistics stay float32.
          rngs: parameters' initial values.

        Raises:
          ValueError: a width that leaves no channels.
        """
        if int(WIDTHS[0] * width_multiplier) < 1:
            raise ValueError(
                f"WhitenedCNN: width_multiplier {width_multiplier} leaves no channels; use 1/64 or more"
            )
        self.whitening = WhiteningKernel(jnp.zeros((PATCH, PATCH, 3, _DIRECTIONS), jnp.float32))
        self.whitening_bias = nnx.Param(jnp.zeros(_DIRECTIONS, jnp.float32))
        inputs, blocks = _DIRECTIONS, []
        for width in WIDTHS:
            outputs = int(width * width_multiplier)
            blocks.append(Block(inputs, outputs, dtype=dtype, rngs=rngs))
            inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inputs, num_classes, use_bias=False, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the pre-activations in `activations`, input side first."""
        return tuple(f"conv{b}_{i}" for b, _ in enumerate(self.blocks, 1) for i in (1, 2))

    def whiten(self, images: np.ndarray | jax.Array) -> None:
        """Computes the first layer's kernel from training images [N, H, W, 3], uint8 or float32 in [0, 1].

        A few thousand images suffice.

        Raises:
          ValueError: images of another shape or type, or none.
        """
        image_checks.check_batch(images, caller="WhitenedCNN.whiten", least=1, channels=(3,))
        image_checks.check_floats_or_uint8(images, caller="WhitenedCNN.whiten")
        scale = 255 if images.dtype == np.uint8 else 1
        x = normalised(jnp.asarray(images, jnp.float32) / scale, MEAN, STD)
        self.whitening.set_value(whitening_kernel(x))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, K] float32."""
        return self.activations(images)[0]

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, K], and every convolution's values after its normalisation by name.

        `conv1_1` and `conv1_2` [B, H/2, W/2, 64] (times the width multiplier), to `conv3_2` [B, H/8, W/8, 256].

        Raises:
          ValueError: images of another shape.
        """
        image_checks.check_batch(images, caller="WhitenedCNN", channels=(3,), multiple=8)
        image_checks.check_floats(images, caller="WhitenedCNN")
        x = normalised(images, MEAN, STD)
        bias = self.whitening_bias[...].reshape(1, 1, 1, -1)
        x = conv.convolution(x, self.whitening[...]) + bias
        x = jax.nn.gelu(x).astype(self.dtype)
        pre: list[jax.Array] = []
        for block in self.blocks:
            x, found = block(x)
            pre += found
        # Divided by the number of features, so that the linear layer starts flat and takes large steps.
        logits = self.head(x.max((1, 2))).astype(jnp.float32) / x.shape[-1]
        return logits, dict(zip(self.layer_names, pre, strict=True))


def whitening_kernel(images: jax.Array) -> jax.Array:
    """The kernel [2, 2, 3, 24] that whitens the patches of images [N, H, W, 3].

    Outputs i and i + 12 are plus and minus the projection on the i-th eigenvector of the patches' covariance, over the
    square root of its eigenvalue.

    >>> import jax
    >>> from outgen_jax.models import whitened_cnn
    >>> images = jax.random.uniform(jax.random.key(0), (20, 8, 8, 3))
    >>> whitened_cnn.whitening_kernel(images).shape
    (2, 2, 3, 24)
    """
    _, h, w, c = images.shape
    places = [(i, j) for i in range(PATCH) for j in range(PATCH)]
    patches = jnp.stack(
        [images[:, i : i + h - PATCH + 1, j : j + w - PATCH + 1] for i, j in places], -2
    ).reshape(-1, len(places) * c)
    variances, directions = jnp.linalg.eigh(patches.T @ patches / len(patches))
    whitening = directions / jnp.sqrt(variances + _SMALLEST_VARIANCE)[None]
    kernel = jnp.concatenate([whitening, -whitening], 1)
    return kernel.reshape(PATCH, PATCH, c, -1)


def _initial_kernel(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Uniform values (PyTorch's default) but for the first outputs, which pass the inputs on."""
    bound = 1 / np.sqrt(9 * inputs)
    kernel = jax.random.uniform(key, (3, 3, inputs, outputs), jnp.float32, -bound, bound)
    passed = min(inputs, outputs)
    same = jnp.eye(passed, dtype=jnp.float32)
    return kernel.at[..., :passed].set(0).at[1, 1, :passed, :passed].set(same)
