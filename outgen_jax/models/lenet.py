"""A LeNet with batch normalisation for 28×28 grey digits (after LeCun et al. 1998, LeNet-5).

Images [B, 28, 28, 1] float32 in [0, 1]; logits [B, num_classes] float32. LeNet-5's layers, with 3×3 kernels, more
channels, ReLU and maximum pooling. It is used for scores of generated digits: FID compares its `features`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.models import conv

_SIDE = 28
_MEAN, _STD = 0.1307, 0.3081  # of MNIST's training pixels


class Convolution(nnx.Module):
    """A 3×3 convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        """Kernel [3, 3, inputs, outputs] by He's rule."""
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), (3, 3, inputs, outputs), jnp.float32))
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> pre-activation [B, H, W, outputs]."""
        return self.norm(conv.convolution(x, self.kernel[...]))


class Linear(nnx.Module):
    """A linear layer without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        """Kernel [inputs, outputs] by He's rule."""
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), (inputs, outputs), jnp.float32))
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, inputs] -> pre-activation [B, outputs]."""
        return self.norm(x @ self.kernel[...])


class LeNet(nnx.Module):
    """Two convolutions, each with 2×2 pooling, two hidden linear layers of 120 and 84 units, and the logits."""

    layer_names = ("conv1", "conv2", "fc1", "fc2")

    def __init__(
        self, num_classes: int = 10, channels: tuple[int, int] = (16, 32), *, rngs: nnx.Rngs
    ) -> None:
        """Builds the network: `channels` of the two convolutions (LeNet-5: 6 and 16).

        Raises:
          ValueError: no classes or no channels.
        """
        if num_classes < 1 or len(channels) != 2 or min(channels) < 1:
            raise ValueError(
                f"LeNet: needs at least one class and two numbers of channels, got {num_classes} and {channels}; "
                "LeNet-5 has (6, 16)"
            )
        first, second = channels
        self.conv1 = Convolution(1, first, rngs=rngs)
        self.conv2 = Convolution(first, second, rngs=rngs)
        self.fc1 = Linear(7 * 7 * second, 120, rngs=rngs)
        self.fc2 = Linear(120, 84, rngs=rngs)
        self.head = nnx.Linear(84, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, 28, 28, 1] in [0, 1] -> logits [B, K] float32."""
        return self.activations(images)[0]

    def features(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits [B, K], and the penultimate features [B, 84]: `fc2` after its ReLU."""
        logits, layers = self.activations(images)
        return logits, jax.nn.relu(layers["fc2"])

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, K], and every layer's values before its ReLU by name.

        `conv1` [B, 28, 28, 16], `conv2` [B, 14, 14, 32] (in the default width), `fc1` [B, 120], `fc2` [B, 84].

        Raises:
          ValueError: images of another shape.
        """
        image_checks.check_batch(images, caller="LeNet", size=(_SIDE, _SIDE), channels=(1,))
        image_checks.check_floats(images, caller="LeNet")
        conv1 = self.conv1((images - _MEAN) / _STD)
        # Pooling before the ReLU gives the same values from a quarter of the elements.
        conv2 = self.conv2(jax.nn.relu(conv.max_pool(conv1)))
        x = jax.nn.relu(conv.max_pool(conv2))
        fc1 = self.fc1(x.reshape(len(x), -1))
        fc2 = self.fc2(jax.nn.relu(fc1))
        logits = self.head(jax.nn.relu(fc2)).astype(jnp.float32)
        return logits, dict(zip(self.layer_names, (conv1, conv2, fc1, fc2), strict=True))
