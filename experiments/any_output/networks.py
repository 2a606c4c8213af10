"""The networks of this study: several labels of a canvas of digits, or several numbers of a digit.

`ten`: which digits a canvas of up to four holds. `twenty`: which digits each half of a canvas of up to sixteen smaller
ones holds. `numbers`: angle, stroke thickness and position of a digit, standardised. `train` trains them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import outgen_jax as og
from experiments.any_output import digits
from outgen_jax.data.image_source import ImageSource
from outgen_jax.models import pretrained
from outgen_jax.outputs import Output
from outgen_jax.training import objectives

KINDS = ("ten", "twenty", "numbers")
CHANNELS = {"ten": (8, 16), "twenty": (8, 16), "numbers": (16, 32)}
CELLS = {"ten": 2, "twenty": 4}  # of a canvas, a side
NEAR = 0.1  # standard deviations within which a number counts as right


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
    found = pretrained.load(path)
    if "kind" not in found.card:
        raise ValueError(
            f"networks.load: {path} must hold a network of this study, its card names no kind; "
            "train one with experiments.any_output.train"
        )
    output = og.outputs.values() if found.card["kind"] == "numbers" else og.outputs.sigmoid()
    return Loaded(*og.models.from_nnx(found.model), output, found.class_names, found.card)


def drawn(kind: str, source: ImageSource, count: int, *, seed: int) -> digits.Drawn:
    """Images of a kind with what a network should say of them; numbers in their own units."""
    if kind == "numbers":
        return digits.posed(source.images, count, seed=seed)
    if source.labels is None:
        raise ValueError(
            "networks.drawn: the source must have labels, it has none; use a tfds name or an .npz with labels"
        )
    found = digits.canvases(source.images, source.labels, count, cells=CELLS[kind], seed=seed)
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
