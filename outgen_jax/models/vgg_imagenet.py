"""VGG16 as published, without batch normalisation, and torchvision's ImageNet weights for it.

Images [B, H, W, 3] float32 in [0, 1], H and W those the network was built for (224×224 for the
weights); logits [B, num_classes] float32. The network normalises its input itself, by torchvision's
channel means and deviations.

Sources: Simonyan and Zisserman, 2015, configuration D, the network of paper D; the weights are those
of torchvision's `VGG16_Weights.IMAGENET1K_V1`, file `vgg16-397923af.pth`. Nothing here downloads it.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from outgen_jax import image_checks
from outgen_jax.models import conv, vgg
from outgen_jax.models.pytorch import torch_file, torch_weights
from outgen_jax.models.vgg import BLOCKS

_MEAN = (0.485, 0.456, 0.406)  # ImageNet, per channel
_STD = (0.229, 0.224, 0.225)
TORCHVISION_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"


class Convolution(nnx.Module):
    """A 3×3 convolution with bias."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        """Kernel [3, 3, inputs, outputs] by He's rule, float32; the computation is in `dtype`."""
        he = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(he(rngs.params(), (3, 3, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> pre-activation [B, H, W, outputs]."""
        convolved = conv.convolution(x.astype(self.dtype), self.kernel.astype(self.dtype))
        return convolved + self.bias.astype(self.dtype).reshape(1, 1, 1, -1)


class ImageNetVGG16(nnx.Module):
    """Thirteen convolutions and three linear layers; `fc1` and `fc2` are layers 14 and 15 of paper D."""

    def __init__(
        self,
        num_classes: int = 1000,
        width_multiplier: float = 1.0,
        *,
        hidden: int = 4096,
        image_size: int = 224,
        dropout: float = 0.5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network.

        Args:
          num_classes: number of logits K.
          width_multiplier: scales every convolution's channels (64 becomes 32 at 0.5).
          hidden: units of `fc1` and of `fc2`.
          image_size: side of the square images.
          dropout: rate after `fc1` and `fc2` in training.
          dtype: type of the computation; parameters and logits stay float32.
          rngs: parameters' initial values, and dropout.

        Raises:
          ValueError: a size or width that leaves no pixels or channels.
        """
        if image_size < 32 or image_size % 32 or int(64 * width_multiplier) < 1 or hidden < 1:
            raise ValueError(
                "ImageNetVGG16: image_size must be a multiple of 32, width_multiplier at least "
                f"1/64 and hidden at least 1; got {image_size}, {width_multiplier} and {hidden}"
            )
        widths = [[int(c * width_multiplier) for c in block] for block in BLOCKS]
        layer = functools.partial(Convolution, dtype=dtype, rngs=rngs)
        self.blocks, channels = vgg.convolution_blocks(widths, layer)
        features = channels * (image_size // 32) ** 2
        self.hidden = nnx.List(
            [nnx.Linear(n, hidden, dtype=dtype, rngs=rngs) for n in (features, hidden)]
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(hidden, num_classes, dtype=dtype, rngs=rngs)
        self.image_size = image_size
        self.dtype = dtype

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the pre-activations in `activations`, input side first."""
        return vgg.layer_names(self.blocks, self.hidden)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, K] float32."""
        return self.activations(images)[0]

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, K], and every layer's values before its ReLU by name.

        `conv1_1` [B, H, W, 64] (times the width multiplier) ... `conv5_3` [B, H/16, W/16, 512],
        `fc1` and `fc2` [B, hidden].

        Raises:
          ValueError: images of another shape.
        """
        size = (self.image_size, self.image_size)
        image_checks.check_batch(images, caller="ImageNetVGG16", size=size, channels=(3,))
        image_checks.check_floats(images, caller="ImageNetVGG16")
        x = vgg.normalised(images, _MEAN, _STD).astype(self.dtype)
        x, convolved = vgg.through_blocks(self.blocks, x)
        x = x.reshape(x.shape[0], -1)  # [B, (H/32)·(W/32)·512]
        x, hidden = vgg.through_hidden(self.hidden, self.dropout, x)
        logits = self.head(x).astype(jnp.float32)
        return logits, dict(zip(self.layer_names, convolved + hidden, strict=True))


def load_torchvision(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = TORCHVISION_SHA256,
    dtype: DTypeLike = jnp.float32,
) -> ImageNetVGG16:
    """The network with the weights of a local `vgg16-397923af.pth`, in evaluation mode.

    Args:
      path: what `torch.save(torchvision.models.vgg16(...).state_dict(), path)` or torchvision's
        download left; read without PyTorch and without calling what the pickle names.
      sha256: of the file, checked before anything in it is interpreted; by default that of
        torchvision's. Give your own file's; None checks nothing.
      dtype: of the computation.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another SHA-256, a file that is not a state dictionary, or another network's.
    """
    model = from_torch(torch_file.read(path, sha256=sha256), dtype=dtype, source=str(Path(path)))
    model.eval()
    return model


def from_torch(
    state: Mapping[str, np.ndarray],
    *,
    dtype: DTypeLike = jnp.float32,
    source: str = "the dictionary",
) -> ImageNetVGG16:
    """The network with the weights of a torchvision VGG16's state dictionary, in training mode.

    Args:
      state: `features.0.weight` [64, 3, 3, 3], ..., `classifier.6.bias` [K]; number of classes,
        hidden units, widths and image size are read from the shapes.
      dtype: of the computation.
      source: what error messages call it.

    Raises:
      ValueError: missing or unexpected names, or shapes that do not fit together.
    """
    model = _empty(state, dtype, source)
    torch_weights.assign(
        dict(_torch_names(model)),
        state,
        caller="vgg_imagenet.from_torch",
        source=source,
        network="VGG16 without batch normalisation",
        to_jax_layout=functools.partial(_to_jax_layout, side=model.image_size // 32),
    )
    return model


def _empty(state: Mapping[str, np.ndarray], dtype: DTypeLike, source: str) -> ImageNetVGG16:
    """The network that the shapes describe, without values."""
    try:
        channels = len(state["features.0.weight"])
        last = len(state[f"features.{sum(2 * len(b) + 1 for b in BLOCKS) - 3}.weight"])
        hidden, flat = state["classifier.0.weight"].shape
        num_classes = len(state["classifier.6.bias"])
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"vgg_imagenet.from_torch: {source} is not of VGG16 without batch normalisation: "
            f"no usable {error}. Expected torchvision's names, features.0.weight to classifier.6.bias"
        ) from None

    def build() -> ImageNetVGG16:
        side = round((flat / last) ** 0.5)
        return ImageNetVGG16(
            num_classes,
            channels / 64,
            hidden=hidden,
            image_size=32 * side,
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )

    model = nnx.eval_shape(build)  # drawing values to throw them away would take most of the time
    model.dropout = nnx.Dropout(model.dropout.rate, rngs=nnx.Rngs(0))
    return model


def _to_jax_layout(name: str, array: np.ndarray, *, side: int) -> np.ndarray:
    """As `torch_weights.to_jax_layout`; and the inputs of fc1, a map flattened as C, H, W, become H, W, C."""
    if name == "classifier.0.weight" and array.shape[1] % side**2 == 0:
        maps = array.reshape(len(array), -1, side, side)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(array))
    return torch_weights.to_jax_layout(name, array)


def _torch_names(model: ImageNetVGG16) -> Iterator[tuple[str, Any]]:
    """Every parameter with the name that torchvision's state dictionary gives it."""
    place = 0  # in nn.Sequential, which counts ReLUs and poolings too
    for block in model.blocks:
        for layer in block:
            yield f"features.{place}.weight", layer.kernel
            yield f"features.{place}.bias", layer.bias
            place += 2
        place += 1
    for place, linear in zip((0, 3, 6), (*model.hidden, model.head), strict=True):
        yield f"classifier.{place}.weight", linear.kernel
        yield f"classifier.{place}.bias", linear.bias
