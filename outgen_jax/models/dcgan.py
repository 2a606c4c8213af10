"""The deep convolutional GAN for square images, with which paper B's training sets are compared.

Images [B, size, size, channels] float32 in [0, 1], size a power of two from 16 (paper B: 128); logits [B].

Source: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", 2016: no pooling; batch normalisation in both networks but next to the image and in the logit;
ReLU and a last tanh in the generator, LeakyReLU of slope 0.2 in the discriminator; weights N(0, 0.02²); Adam of rate
2e-4 and β₁ 0.5 goes with them. The scales of batch normalisation begin as N(1, 0.02²), as in the authors' program.
The paper's generator for 64×64 is `width=128`. Layers that are not normalised have biases.

One thing differs: the generator doubles the sides by a 3×3 convolution to four times the channels and a pixel
shuffle (Shi et al. 2016), not by transposed convolutions. The four sub-kernels start equal (Aitken et al.,
"Checkerboard artifact free sub-pixel convolution", 2017), so that the first images have no checkerboards, and on CPU
the gradients take a fraction of the time (`benchmarks/upsampling`).
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.models import conv

_SEED_SIDE = 4  # pixels: the side of the map next to the latent vector, and to the logit
_SMALLEST = 16
_WIDEST = 1024  # channels: where the doubling ends, the widest layer of the paper

_normal = jax.nn.initializers.normal(0.02)


class Generator(nnx.Module):
    """Latent vector -> 4×4 map -> doublings of the sides, each with half the channels -> image through a tanh."""

    def __init__(
        self,
        *,
        size: int = 64,
        width: int = 64,
        latent: int = 100,
        channels: int = 3,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network.

        Args:
          size: side of the images, a power of two from 16.
          width: channels of the layer next to the image; every halving of the side doubles them, up to 1,024.
          latent: length of z.
          channels: of the images.
          rngs: initial values.

        Raises:
          ValueError: a size that is not such a power of two, a width outside 1..1024, `latent` or `channels` below 1.
        """
        widths = _widths("Generator", size, width, channels)[::-1]
        if latent < 1:
            raise ValueError(f"dcgan.Generator: latent must be at least 1, got {latent}")
        self.latent_shape = (latent,)
        self.project = nnx.Linear(
            latent, _SEED_SIDE**2 * widths[0], use_bias=False, kernel_init=_normal, rngs=rngs
        )
        self.norm = _batch_norm(widths[0], rngs)
        self.hidden = nnx.List(
            [
                Upsampling(inputs, outputs, norm=True, rngs=rngs)
                for inputs, outputs in itertools.pairwise(widths)
            ]
        )
        self.pixels = Upsampling(widths[-1], channels, norm=False, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Latent vectors [B, latent], z ~ N(0, 1) -> images [B, size, size, channels] in [0, 1].

        In training, batch normalisation takes the statistics of the batch and remembers them; in evaluation
        (`generator.eval()`) the remembered ones, so that an image does not depend on its batch.

        Raises:
          ValueError: latent vectors of another shape.
        """
        if z.ndim != 2 or z.shape[1:] != self.latent_shape:
            raise ValueError(
                f"dcgan.Generator: z must be [B, {self.latent_shape[0]}], got {list(z.shape)}; "
                "add the batch axis with z[None], or build the generator with another `latent`"
            )
        x = self.project(z).reshape(len(z), _SEED_SIDE, _SEED_SIDE, -1)  # [B, 4, 4, widest]
        x = jax.nn.relu(self.norm(x))
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))  # [B, 2h, 2w, c / 2]
        return (jnp.tanh(self.pixels(x)) + 1) / 2


class Discriminator(nnx.Module):
    """Image -> halvings of the sides by 4×4 convolutions of stride 2, each with twice the channels -> logit."""

    def __init__(
        self, *, size: int = 64, width: int = 64, channels: int = 3, rngs: nnx.Rngs
    ) -> None:
        """Builds the network; `size`, `width` and `channels` as the `Generator`'s.

        Raises:
          ValueError: as the `Generator`.
        """
        widths = _widths("Discriminator", size, width, channels)
        self.image_shape = (size, size, channels)
        self.hidden = nnx.List(
            [
                Downsampling(inputs, outputs, norm=i > 0, rngs=rngs)
                for i, (inputs, outputs) in enumerate(
                    zip((channels, *widths[:-1]), widths, strict=True)
                )
            ]
        )
        self.logit = nnx.Linear(_SEED_SIDE**2 * widths[-1], 1, kernel_init=_normal, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, size, size, channels] in [0, 1] -> logits [B].

        In training the logits depend on the whole batch, through batch normalisation: call it on real and on generated
        images apart.

        Raises:
          ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"dcgan.Discriminator: images must be [B, {', '.join(map(str, self.image_shape))}], got "
                f"{list(images.shape)}; add the batch axis with images[None], resize, or build it for their shape"
            )
        image_checks.check_floats(images, caller="dcgan.Discriminator")
        x = 2 * images - 1
        for layer in self.hidden:
            x = jax.nn.leaky_relu(layer(x), 0.2)  # [B, h / 2, w / 2, 2c]
        return self.logit(x.reshape(len(x), -1))[:, 0]


class Upsampling(nnx.Module):
    """Twice the sides: a 3×3 convolution to four times the channels, then a pixel shuffle."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool, rngs: nnx.Rngs) -> None:
        """`norm`: batch normalisation; otherwise a bias."""
        alike = _normal(rngs.params(), (3, 3, inputs, outputs), jnp.float32)
        self.kernel = nnx.Param(jnp.tile(alike, 4))  # of the four pixels that one becomes
        self.finish = _batch_norm(outputs, rngs) if norm else Bias(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> pre-activation [B, 2H, 2W, outputs]."""
        return self.finish(pixel_shuffle(conv.convolution(x, self.kernel[...])))


class Downsampling(nnx.Module):
    """Half the sides: a 4×4 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool, rngs: nnx.Rngs) -> None:
        """`norm`: batch normalisation; otherwise a bias."""
        self.kernel = nnx.Param(_normal(rngs.params(), (4, 4, inputs, outputs), jnp.float32))
        self.finish = _batch_norm(outputs, rngs) if norm else Bias(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> pre-activation [B, H/2, W/2, outputs]."""
        return self.finish(conv.convolution(x, self.kernel[...], strides=2))


class Bias(nnx.Module):
    """Adds a number to each channel."""

    def __init__(self, channels: int) -> None:
        """Zeros at first."""
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> the same."""
        return x + self.bias[...].reshape(1, 1, 1, -1)


def pixel_shuffle(x: jax.Array) -> jax.Array:
    """Every pixel's channels as the 2×2 pixels that it becomes (Shi et al. 2016): [B, H, W, 4C] -> [B, 2H, 2W, C].

    The channels of the upper left pixel come first, then upper right, lower left, lower right.
    """
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def _batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, scale_init=_near_1, rngs=rngs)


def _near_1(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return 1 + _normal(key, shape, dtype)


def _widths(caller: str, size: int, width: int, channels: int) -> list[int]:
    """Channels of the maps of sides size/2, size/4, ..., 4."""
    if size < _SMALLEST or size & (size - 1):
        raise ValueError(
            f"dcgan.{caller}: size must be a power of two from {_SMALLEST} on, got {size}; "
            "resize the images to 64 or 128"
        )
    if not 1 <= width <= _WIDEST or channels < 1:
        raise ValueError(
            f"dcgan.{caller}: width must be from 1 to {_WIDEST} and channels at least 1, got {width} and {channels}; "
            "64 and 3 are usual"
        )
    halvings = (size // _SEED_SIDE).bit_length() - 1
    return [min(width << i, _WIDEST) for i in range(halvings)]
