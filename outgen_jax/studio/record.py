"""What is saved as JSON: the request, and what the image saved as PNG does."""

import math
from typing import Any

import numpy as np

from outgen_jax.names import told_apart
from outgen_jax.studio.networks import Network
from outgen_jax.studio.session import State

_MOST_CLASSES = 20


def of_state(state: State) -> dict[str, Any]:
    """The record of a state, as JSON values; of a run, the target and the tolerance that it was for."""
    network, reached = state.network, state.reached
    text, tolerance = state.asks if reached is None else state.asked
    found: dict[str, Any] = {
        "network": network.name,
        "image": {"kind": state.image_kind, "name": state.image_name},
        "output": network.kind,
        "target": text,
        "tolerance": tolerance,
    }
    if network.unit is not None:
        found["scale"] = network.unit
    found["before"] = _named(network, state.before)
    if reached is not None:
        found["reached"] = {
            "says": _named(network, reached.says),
            "distance": finite(reached.distance),
            "converged": reached.converged,
            "change_l2": reached.change,
            "steps": reached.steps,
            "seconds": reached.seconds,
        }
    if reached is not None and reached.saved is not None:
        found["reached"] |= {
            "png_says": _named(network, reached.saved.says),
            "png_distance": finite(reached.saved.distance),
        }
    return found | {"python": state.python(text, tolerance)}


def finite(distance: float) -> float | None:
    """A distance as JSON can have it: one that overflows is null."""
    return distance if math.isfinite(distance) else None


def _named(network: Network, says: np.ndarray) -> dict[str, float]:
    """Probabilities, likeliest first and at most twenty, or all numbers; the index tells names apart that are alike."""
    names = told_apart(network.class_names)
    order = np.argsort(-says, kind="stable")[:_MOST_CLASSES]
    chosen = order if network.unit is None else range(len(names))
    return {names[k]: float(says[k]) for k in chosen}
