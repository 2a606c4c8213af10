"""Presets of paper C's study: networks, their training, and which of them are compared."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from outgen_jax.models import draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Networks and their training."""

    network: Literal["attention", "perceptrons"]
    epochs: int
    learning_rate: float  # of Adam, both networks
    beta1: float
    first_canvas: Literal["sample", "mean"] = "sample"  # of the training images
    cell: draw.Cell = "sigmoid"
    points: int = 5  # N
    steps: int = 6  # T
    units: int = 256  # recurrent, or hidden ones of the perceptrons' generator
    batch_size: int = 100
    average_decay: float = 0.0
    penalty: float = 0.0  # γ of R₁ at first
    grown_penalty: float | None = None  # to which γ grows steadily; None: it stays
    first_read: draw.Glance = draw.DRAW_GLANCE
    first_write: draw.Glance = draw.DRAW_GLANCE
    attention_rate: float = 1.0  # of the learning rate, for the layers that say where to look
    last_rate: float = 1.0  # of the learning rate, to which it falls as a cosine
    end: float = 0.0  # share of the updates, the last, in which the rate stays
    end_penalty: float = 0.0  # γ in that end, where it had grown
    save_every: int = 5  # epochs


# Paper C, Section 3.2. The perceptrons' last bias is the logit of the mean, as in their authors' settings.
_ATTENTION = Preset(network="attention", epochs=49, learning_rate=3.75e-4, beta1=0.75)
_ATTENTION_N4 = dataclasses.replace(_ATTENTION, epochs=71, learning_rate=5e-4, beta1=0.9, points=4)
_BASELINE = Preset(
    network="perceptrons",
    epochs=99,
    learning_rate=1e-3,
    beta1=0.5,
    first_canvas="mean",
    units=1200,
)

_END = 18 / 117  # of the training: with less of R₁ the shapes improve
# What differs from the paper's settings in `attention_plus`, and why. A name such as "attention+cell+r1" has some.
CHANGES: dict[str, dict[str, Any]] = {
    # The first filters are in the middle of the image, overlap, and write strongly enough that every step counts.
    "glance": {
        "first_read": draw.Glance(stride=4.0, sigma=2.0),
        "first_write": draw.Glance(stride=4.0, sigma=2.0, intensity=30.0),
    },
    "cell": {"cell": "tanh"},
    # R₁ keeps the discriminator from winning. It grows, so that the digits stay equally frequent.
    "r1": {"penalty": 0.5, "grown_penalty": 3.0, "end": _END, "end_penalty": 1.0},
    "average": {"average_decay": 0.999},
    # The layers that place the filters learn more slowly, since Adam moves all weights of h at once.
    "rates": {
        "learning_rate": 1e-3,
        "beta1": 0.5,
        "attention_rate": 0.1,
        "last_rate": 0.2,
        "end": _END,
    },
    "mean": {"first_canvas": "mean"},
}


def _changed(preset: Preset, *names: str, **more: Any) -> Preset:
    fields: dict[str, Any] = {}
    for name in names:
        fields |= CHANGES[name]
    return dataclasses.replace(preset, **fields | more)


_PLUS = _changed(_ATTENTION, *CHANGES, epochs=117)
PRESETS = {
    "attention": _ATTENTION,
    "attention_n4": _ATTENTION_N4,
    "baseline": _BASELINE,
    "attention_plus": _PLUS,
    "attention_plus_n4": dataclasses.replace(_PLUS, points=4),
    # What of these changes a GAN of perceptrons can have: averaging, R₁, the decaying rate and the length. Its rate and
    # β₁ are those already. Nothing of it was tuned for the perceptrons.
    "baseline_plus": _changed(_BASELINE, "average", "r1", epochs=117, last_rate=0.2),
    # All changes, at the paper's length.
    "attention_plus_49": dataclasses.replace(_PLUS, epochs=49),
    # Photographs in colour: with a stronger R₁ the discriminator learns nothing; fainter first strokes.
    "attention_colour": dataclasses.replace(
        _PLUS,
        epochs=100,
        penalty=0.01,
        grown_penalty=None,
        end=0.0,
        first_write=draw.Glance(stride=4.0, sigma=2.0, intensity=3.0),
    ),
    # For continuous integration.
    "smoke": Preset(
        network="attention",
        epochs=2,
        learning_rate=1e-3,
        beta1=0.5,
        cell="tanh",
        points=3,
        steps=2,
        units=8,
        batch_size=16,
        average_decay=0.5,
    ),
}
# Names for several presets.
GROUPS = {
    "paper": ("attention", "attention_n4", "baseline"),
    "plus": ("attention_plus", "attention_plus_n4"),
    "aids": ("baseline_plus", "attention_plus"),
    "ablation": ("attention", *(f"attention+{name}" for name in CHANGES), "attention_plus_49"),
}


def preset(name: str) -> Preset:
    """The preset of a name, with the `CHANGES` that follow it, such as "attention_n4+cell+r1".

    Raises:
      ValueError: an unknown preset or change.
    """
    base, *changes = name.split("+")
    if base not in PRESETS:
        raise ValueError(f"--presets: no preset {base!r}; use some of {', '.join(PRESETS)}")
    if unknown := [change for change in changes if change not in CHANGES]:
        raise ValueError(
            f"--presets: {name!r} has no change {unknown[0]!r}; use some of {', '.join(CHANGES)}"
        )
    return _changed(PRESETS[base], *changes)


def noted(settings: Mapping[str, Any]) -> Preset:
    """The preset that `scores.json` notes as `settings`."""
    glances = {name: draw.Glance(*settings[name]) for name in ("first_read", "first_write")}
    return Preset(**{**settings, **glances})


def names_of(wanted: list[str]) -> list[str]:
    """The presets' names, those of groups in their place; each once."""
    return list(dict.fromkeys(n for name in wanted for n in GROUPS.get(name, (name,))))
