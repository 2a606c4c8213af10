"""What the scripts on targets share: images on their way, and Adam for those that have far to go."""

from typing import Any

import numpy as np
import optax
import tqdm
from jax.typing import ArrayLike

import outgen_jax as og
from outgen_jax.synthesis import slots

# A solver stops at this share of the tolerance: the judge's batches have another shape, and with it other rounding.
AIM = 0.9


def move(
    network: tuple[Any, Any],
    images: np.ndarray,
    targets: ArrayLike,
    solver: og.Solver,
    *,
    tolerance: float,
    num_slots: int | None,
) -> slots.Ended:
    """Images towards their targets, with a progress bar: those that have arrived make room at once."""
    with tqdm.tqdm(total=len(images), unit="image") as bar:
        return slots.stream(
            *network,
            images,
            targets,
            solver=solver,
            tolerance=tolerance,
            num_slots=num_slots,
            advance=bar.update,
        )


def adam(learning_rate: float, updates: int) -> og.Solver:
    """Adam on the pixels themselves, its rate falling to 0 along a cosine."""
    return og.gradient_descent(
        optax.adam(optax.cosine_decay_schedule(learning_rate, updates)),
        pixels=og.pixels.identity(),
        weight_decay=0.0,
        steps=updates,
    )
