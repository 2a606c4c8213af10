"""The GAN of Goodfellow et al. 2014 for MNIST, two multi-layer perceptrons: paper C's baseline.

Images [B, H, W, C] float32 in [0, 1]. Sizes, initial values and dropout are those of the authors' own settings
(github.com/goodfeli/adversarial, `mnist.yaml`, for pylearn2): weights uniform in ±0.05 (generator) or ±0.005
(discriminator), biases 0 but for the generator's last, which gives the training set's mean image. Of that file's
versions one has uniform latent vectors (in ±√3), another normal ones; paper C's are normal.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from outgen_jax import image_checks
from outgen_jax.models.first_canvas import image_logits

_CLIP = 1e-7  # of the mean image, as in pylearn2's `init_sigmoid_bias_from_marginals`


class Generator(nnx.Module):
    """latent -> 1,200 ReLU -> 1,200 ReLU -> image through a sigmoid."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        *,
        mean_image: ArrayLike | None = None,
        latent: int = 100,
        hidden: int = 1200,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network.

        Args:
          image_shape: (H, W, C).
          mean_image: mean of the training images, [H, W, C] in [0, 1], whose logits are the last bias's initial value;
            None: zeros, a grey image.
          latent: length of z.
          hidden: units of each of the two hidden layers.
          rngs: initial values.

        Raises:
          ValueError: a size below 1, or a mean image that does not fit.
        """
        _check_options("mlp_gan.Generator", image_shape, latent=latent, hidden=hidden)
        self.image_shape, self.latent_shape = tuple(image_shape), (latent,)
        self.hidden_1 = _linear(latent, hidden, 0.05, rngs)
        self.hidden_2 = _linear(hidden, hidden, 0.05, rngs)
        self.pixels = _linear(hidden, math.prod(image_shape), 0.05, rngs)
        if mean_image is not None:
            bias = image_logits(mean_image, image_shape, clip=_CLIP)
            self.pixels.bias = nnx.Param(bias.ravel())

    def __call__(self, z: jax.Array) -> jax.Array:
        """Latent vectors [B, latent], z ~ N(0, 1) -> images [B, H, W, C] in [0, 1].

        Raises:
          ValueError: latent vectors of another shape.
        """
        if z.ndim != 2 or z.shape[1:] != self.latent_shape:
            raise ValueError(
                f"mlp_gan.Generator: z must be [B, {self.latent_shape[0]}], got {z.shape}; "
                "add the batch axis with z[None], or build the generator with another `latent`"
            )
        h = jax.nn.relu(self.hidden_1(z))
        h = jax.nn.relu(self.hidden_2(h))
        return jax.nn.sigmoid(self.pixels(h)).reshape(-1, *self.image_shape)


class Maxout(nnx.Module):
    """Each unit is the largest of several linear maps of its input (Goodfellow et al., "Maxout Networks", 2013)."""

    def __init__(self, inputs: int, units: int, pieces: int, *, rngs: nnx.Rngs) -> None:
        """`pieces` linear maps for each of `units`, weights uniform in ±0.005."""
        self.linear = _linear(inputs, units * pieces, 0.005, rngs)
        self.pieces = pieces

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, inputs] -> [B, units]."""
        return self.linear(x).reshape(len(x), -1, self.pieces).max(-1)


class Discriminator(nnx.Module):
    """Image -> 240 maxout units of 5 pieces -> 240 of 5 -> logit, with dropout before each of the three layers.

    In training a fifth of the pixels and half of each hidden layer's units are dropped, the rest scaled up, also
    where the discriminator trains the generator.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        *,
        units: int = 240,
        pieces: int = 5,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network: `units` in each of two maxout layers, each the maximum of `pieces` linear maps.

        Raises:
          ValueError: a size below 1.
        """
        _check_options("mlp_gan.Discriminator", image_shape, units=units, pieces=pieces)
        self.image_shape = tuple(image_shape)
        self.maxout_1 = Maxout(math.prod(image_shape), units, pieces, rngs=rngs)
        self.maxout_2 = Maxout(units, units, pieces, rngs=rngs)
        self.head = _linear(units, 1, 0.005, rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Images [B, H, W, C] in [0, 1] -> logits [B].

        Args:
          images: of the shape the network was built for.
          key: of the dropout in training; None: no dropout.

        Raises:
          ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"mlp_gan.Discriminator: images must be [B, {', '.join(map(str, self.image_shape))}], "
                f"got {images.shape}; add the batch axis with images[None], resize, or build it for their shape"
            )
        image_checks.check_floats(images, caller="mlp_gan.Discriminator")
        keys: tuple[jax.Array | None, ...] = (None,) * 3
        if key is not None:
            keys = tuple(jax.random.split(key, 3))
        x = _dropout(images.reshape(len(images), -1), 0.2, keys[0])
        x = _dropout(self.maxout_1(x), 0.5, keys[1])
        x = _dropout(self.maxout_2(x), 0.5, keys[2])
        return self.head(x)[:, 0]


def _linear(inputs: int, outputs: int, reach: float, rngs: nnx.Rngs) -> nnx.Linear:
    """Weights uniform in ±reach, no bias at first."""

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -reach, reach)

    return nnx.Linear(inputs, outputs, kernel_init=uniform, rngs=rngs)


def _dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if key is None:
        return x
    # In float32, as `nnx.Dropout` draws where 64-bit types are off: the same units are dropped.
    kept = jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def _check_options(caller: str, image_shape: tuple[int, ...], **sizes: int) -> None:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"{caller}: image_shape must be (H, W, C), got {image_shape}; MNIST's is (28, 28, 1)"
        )
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{caller}: {name} must be at least 1, got {size}")
