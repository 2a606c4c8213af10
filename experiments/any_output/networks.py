"""The networks of this study: several labels of a canvas of digits, or several numbers of a digit.

`ten`: which digits a canvas of up to sixteen holds. `twenty`: which digits each half of it holds. `numbers`: angle,
stroke thickness and position of a digit, standardised. `train` trains them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import outgen_jax as og
from experiments.any_output import digits
from outgen_jax.data.image_source import ImageSource
from outgen_jax.models import conv, lenet, pretrained
from outgen_jax.outputs import Output
from outgen_jax.training import objectives

KINDS = ("ten", "twenty", "numbers")
NEAR = 0.1  # standard deviations within which a number counts as right
_CHANNELS = (16, 32)  # of the network for numbers
_MEAN, _STD = 0.15, 0.3  # of the canvases' pixels, roughly


class CanvasNetwork(nnx.Module):
    """Which digits each part of a canvas holds: evidence of every digit at every place, summed up over the part.

    Images [B, H, W, 1] in [0, 1], H and W multiples of 4; logits [B, parts · 10], those of the left half first. Three
    convolutions, the first two with 2×2 pooling, then a linear layer at every place; a part's logits are the
    log-sum-exp over its places, a smooth "or".
    """

    def __init__(self, parts: int, *, rngs: nnx.Rngs) -> None:
        """`parts` 1: the whole canvas; 2: its halves."""
        self.parts = parts
        self.conv1 = lenet.Convolution(1, 8, rngs=rngs)
        self.conv2 = lenet.Convolution(8, 16, rngs=rngs)
        self.conv3 = lenet.Convolution(16, 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 1] -> logits [B, parts · 10]."""
        x = jax.nn.relu(conv.max_pool(self.conv1((images - _MEAN) / _STD)))
        x = jax.nn.relu(conv.max_pool(self.conv2(x)))
        evidence = self.head(jax.nn.relu(self.conv3(x)))  # [B, H/4, W/4, 10]
        parts = jnp.stack(
            jnp.split(evidence, self.parts, axis=2), 1
        )  # [B, parts, H/4, W/4/parts, 10]
        return jax.nn.logsumexp(parts, (2, 3)).reshape(len(images), -1)


def empty(kind: str, *, seed: int = 0) -> nnx.Module:
    """A network of a kind before its training."""
    rngs = nnx.Rngs(seed)
    if kind == "numbers":
        return og.models.LeNet(len(digits.NUMBERS), _CHANNELS, rngs=rngs)
    return CanvasNetwork({"ten": 1, "twenty": 2}[kind], rngs=rngs)


def entries_for_the_package(kind: str, wanted: np.ndarray) -> dict[str, Any]:
    """What `pretrained.load` and the studio read of a card. Only the network for numbers is one of the package.

    `wanted` [N, M] are the numbers that it has learnt, standardised.
    """
    if kind != "numbers":
        return {}
    return {
        "network": "LeNet",
        "channels": list(_CHANNELS),
        "class_names": output_names(kind),
        "output_scale": 1.0,
        "output_range": np.stack([wanted.min(0), wanted.max(0)], 1).tolist(),
    }


class Loaded(NamedTuple):
    """A network of this study as `og.synthesize` takes it."""

    apply_fn: Any
    variables: Any
    output: Output
    names: tuple[str, ...]  # of the outputs
    card: dict[str, Any]


def load(path: str) -> Loaded:
    """The network in an .npz that `train` wrote.

    Raises:
      FileNotFoundError: no such file, or no card beside it.
      ValueError: a file of another script.
    """
    model, card = pretrained.restore(path, lambda card: empty(_kind_of(card, path)))
    return Loaded(*og.models.from_nnx(model), output_of(card["kind"]), tuple(card["names"]), card)


def _kind_of(card: Mapping[str, Any], path: str) -> str:
    if card.get("kind") not in KINDS:
        raise ValueError(
            f"networks.load: {path} must hold a network of this study, but its card names none; train one with "
            "experiments.any_output.train"
        )
    return str(card["kind"])


def output_of(kind: str) -> Output:
    """What the outputs of a kind mean; numbers are standardised."""
    return og.outputs.values() if kind == "numbers" else og.outputs.sigmoid()


def drawn(kind: str, source: ImageSource, count: int, *, seed: int) -> digits.Drawn:
    """Images of a kind with what a network should say of them; numbers in their own units."""
    if kind == "numbers":
        return digits.posed(source.images, count, seed=seed)
    if source.labels is None:
        raise ValueError(
            "networks.drawn: the source must have labels, it has none; use a tfds name or an .npz with labels"
        )
    found = digits.canvases(source.images, source.labels, count, seed=seed)
    return found._replace(wanted=digits.anywhere(found.wanted)) if kind == "ten" else found


def output_names(kind: str) -> list[str]:
    """What the outputs of a kind are called."""
    figures = [str(digit) for digit in range(10)]
    halves = [f"{digit} {side}" for side in ("left", "right") for digit in figures]
    return {"ten": figures, "twenty": halves, "numbers": list(digits.NUMBERS)}[kind]


def labels_objective() -> objectives.Objective:
    """The cross-entropies of independent labels, summed; labels are [N, L] in [0, 1]."""

    def loss(logits: jax.Array, wanted: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits, wanted).sum(-1).mean()

    def correct(logits: jax.Array, wanted: jax.Array) -> jax.Array:
        return ((logits > 0) == (wanted > 0.5)).mean()

    return objectives.Objective(_as_it_is, loss, correct=correct)


def numbers_objective() -> objectives.Objective:
    """The squared errors of standardised numbers [N, M], summed."""

    def loss(outputs: jax.Array, wanted: jax.Array) -> jax.Array:
        return ((outputs - wanted) ** 2).sum(-1).mean()

    def correct(outputs: jax.Array, wanted: jax.Array) -> jax.Array:
        return (jnp.abs(outputs - wanted) < NEAR).mean()

    return objectives.Objective(_as_it_is, loss, correct=correct)


def _as_it_is(
    key: jax.Array, state: Any, images: jax.Array, given: objectives.Supervision
) -> tuple[jax.Array, Any]:
    return images, given.labels


def scores(kind: str, said: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """How good a network is: of labels the share that is right, of numbers the root mean square error of each."""
    if kind == "numbers":
        return {"rms_error": np.sqrt(((said - wanted) ** 2).mean(0)).tolist()}
    right = (said > 0.5) == (wanted > 0.5)
    return {"labels_right": float(right.mean()), "images_right": float(right.all(1).mean())}
