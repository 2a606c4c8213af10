"""The image as it is saved: 8 bits a value, for which the network says almost what it says of the result."""

from typing import NamedTuple

import numpy as np

from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.report import parts
from outgen_jax.studio.networks import Network
from outgen_jax.synthesis.quantize import quantize

# Side of the largest images that `quantize` rounds. Each of its rounds computes a Jacobian, as a step of the solver
# does; with larger images and more classes, a run would end long after its last step.
LARGEST = 64


class Saved(NamedTuple):
    """An image of 8 bits, and what the network says of it."""

    image: np.ndarray  # [H, W, C] uint8
    says: np.ndarray  # [K] in the units of targets
    distance: float  # to the target, in the output's own measure


def corrects(network: Network) -> bool:
    """Whether the rounding of a network's images is corrected; else each value gets the nearest level."""
    return network.size <= LARGEST


def saved(
    network: Network, image: np.ndarray, wanted: np.ndarray, *, tolerance: float, converged: bool
) -> Saved:
    """Rounds an image [H, W, C] in [0, 1] to 8 bits, by `og.quantize` where `corrects` says so and it has converged.

    Args:
      network: the network to ask.
      image: the result of a run.
      wanted: the target [K] of the run, in the units of targets; a masked entry is free.
      tolerance: distance at which the rounded image is good enough.
      converged: whether `image` meets the target; otherwise there is nothing to keep.
    """
    levels = to_uint8(image)
    if converged and corrects(network):
        levels = quantize(
            network.apply_fn,
            network.variables,
            image[None],
            wanted,
            output=network.output,
            tolerance=tolerance,
        )[0]
    says = network.says(levels)
    goal = np.ma.filled(np.ma.asarray(wanted, dtype=np.float64), np.nan)[None]
    part = parts.Part(network.class_names, goal, says[None], says[None], network.output)
    return Saved(levels, says, float(parts.distances(part, says[None])[0]))
