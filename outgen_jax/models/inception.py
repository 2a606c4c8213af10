"""Inception v3 as the Inception Score and the FID take it: the network of TensorFlow's graph `inception-2015-12-05`.

Images [B, H, W, 3] float32 in [0, 1], any H and W; logits [B, 1008] float32; features [B, 2048]. The network resizes to
299×299 itself, as TensorFlow 1 did (`inception_blocks.resize`), and maps the pixels to (255 x − 128) / 128.

It is not the Inception v3 of classification: 1,008 logits, of which the Inception Score leaves out the biases (so
did the authors' program; see `features`); averages at the borders count the pixels that there are; the last block
takes maxima where the paper takes averages; batch normalisation adds 1e-3 to variances.

Sources: Szegedy et al. 2016; Salimans et al. 2016 (score); Heusel et al. 2017 (FID). The weights are pytorch-fid's
conversion of that graph, `pt_inception-2015-12-05-6726825d.pth` (github.com/mseitzer/pytorch-fid, release
`fid_weights`; torch-fidelity's `weights-inception-2015-12-05-6726825d.pth` is the same file), Apache-2.0. Nothing
here downloads it.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.models import inception_blocks as parts
from outgen_jax.models.inception_blocks import Layer
from outgen_jax.models.pytorch import torch_file, torch_weights

FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299  # pixels
CLASSES = 1008

# The convolutions before the blocks: name, layer, padding; None is a maximum of 3×3 pixels with stride 2.
_STEM: tuple[tuple[str, Layer, str] | None, ...] = (
    ("Conv2d_1a_3x3", Layer(32, (3, 3), 2), "VALID"),
    ("Conv2d_2a_3x3", Layer(32, (3, 3)), "VALID"),
    ("Conv2d_2b_3x3", Layer(64, (3, 3)), "SAME"),
    None,
    ("Conv2d_3b_1x1", Layer(80), "VALID"),
    ("Conv2d_4a_3x3", Layer(192, (3, 3)), "VALID"),
    None,
)
_BLOCKS: dict[str, tuple[parts.Branch, ...]] = {
    "Mixed_5b": parts.block_a(32),
    "Mixed_5c": parts.block_a(64),
    "Mixed_5d": parts.block_a(64),
    "Mixed_6a": parts.block_b(),
    "Mixed_6b": parts.block_c(128),
    "Mixed_6c": parts.block_c(160),
    "Mixed_6d": parts.block_c(160),
    "Mixed_6e": parts.block_c(192),
    "Mixed_7a": parts.block_d(),
    "Mixed_7b": parts.block_e("average"),
    "Mixed_7c": parts.block_e("max"),
}


class InceptionV3(nnx.Module):
    """Five convolutions, eleven blocks, the mean over the last map, and a linear layer."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        """`rngs`: initial values."""
        stem, inputs = {}, 3
        for step in _STEM:
            if step is not None:
                name, layer, padding = step
                stem[name] = parts.Convolution(inputs, layer, padding=padding, rngs=rngs)
                inputs = layer.outputs
        self.stem = nnx.Dict(stem)
        blocks = {}
        for name, branches in _BLOCKS.items():
            blocks[name] = parts.Block(inputs, branches, rngs=rngs)
            inputs = blocks[name].outputs
        self.blocks = nnx.Dict(blocks)
        self.fc = nnx.Linear(inputs, CLASSES, rngs=rngs)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of `activations`, input side first: `Conv2d_1a_3x3`, ..., `Mixed_7c`, `pool`."""
        return (*(step[0] for step in _STEM if step is not None), *_BLOCKS, "pool")

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, 1008], biases included."""
        return self.activations(images)[0]

    def features(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, 3] in [0, 1] -> logits [B, 1008] without biases, features [B, 2048]: what scores take."""
        pool = self.activations(images)[1]["pool"]
        return pool @ self.fc.kernel[...], pool

    def activations(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [B, 1008], and what every layer gives after its ReLU, [B, h, w, C]; `pool` is [B, 2048].

        Raises:
          ValueError: images of another shape than [B, H, W, 3].
        """
        image_checks.check_batch(images, caller="InceptionV3", channels=(3,))
        image_checks.check_floats(images, caller="InceptionV3")
        found = {}
        x = (parts.resize(255 * images, SIDE) - 128) / 128
        for step in _STEM:
            if step is None:
                x = parts.pooled(x, "max, stride 2")
            else:
                found[step[0]] = x = self.stem[step[0]](x)
        for name in _BLOCKS:
            found[name] = x = self.blocks[name](x)
        found["pool"] = x.mean((1, 2))
        return self.fc(found["pool"]), found


def load_fid(path: str | os.PathLike[str], *, sha256: str | None = FID_SHA256) -> InceptionV3:
    """The network with the weights of a local `pt_inception-2015-12-05-6726825d.pth`, in evaluation mode.

    Args:
      path: pytorch-fid's file; read without PyTorch and without calling what the pickle names.
      sha256: of the file, checked before anything in it is interpreted; by default that of pytorch-fid's.
        Give your own file's; None checks nothing.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another SHA-256, a file that is not a state dictionary, or another network's.
    """
    model = from_torch(torch_file.read(path, sha256=sha256), source=str(Path(path)))
    model.eval()
    return model


def from_torch(state: Mapping[str, np.ndarray], *, source: str = "the dictionary") -> InceptionV3:
    """The network with the weights of pytorch-fid's state dictionary, in training mode.

    Args:
      state: `Conv2d_1a_3x3.conv.weight` [32, 3, 3, 3], `Conv2d_1a_3x3.bn.running_mean`, ...,
        `Mixed_7c.branch_pool.bn.bias`, `fc.weight` [1008, 2048], `fc.bias`.
      source: what error messages call it.

    Raises:
      ValueError: missing or unexpected names, or a tensor of another shape.
    """
    # Shapes only: drawing initial values to throw them away would take most of the time.
    model = nnx.eval_shape(lambda: InceptionV3(rngs=nnx.Rngs(0)))
    torch_weights.assign(
        dict(_torch_names(model)),
        state,
        caller="inception.from_torch",
        source=source,
        network="pytorch-fid's Inception v3, which torchvision's own is not",
    )
    return model


def _torch_names(model: InceptionV3) -> Iterator[tuple[str, Any]]:
    """Every variable of the network with the name that the state dictionary gives it."""
    layers = dict(model.stem.items())
    for name, block in model.blocks.items():
        layers |= {f"{name}.{branch}": layer for branch, layer in block.layers.items()}
    for name, layer in layers.items():
        yield f"{name}.conv.weight", layer.kernel
        yield f"{name}.bn.weight", layer.norm.scale
        yield f"{name}.bn.bias", layer.norm.bias
        yield f"{name}.bn.running_mean", layer.norm.mean
        yield f"{name}.bn.running_var", layer.norm.var
    yield "fc.weight", model.fc.kernel
    yield "fc.bias", model.fc.bias
