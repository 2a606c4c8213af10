"""Paper C's six latent conditions, and numbers that describe them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WILD = 10_000.0  # standard deviation of the unfit latent vector

# z [B, T, latent] -> images [B, H, W, C] in [0, 1]
Draw = Callable[[jax.Array], np.ndarray]


class Study(NamedTuple):
    """Images [n, H, W, C] of each condition, and distances of pixels in [0, 1]."""

    random: np.ndarray  # condition 1
    zero: np.ndarray  # condition 2, all alike
    alone: list[np.ndarray]  # condition 3, by t: only z_t random
    wild: dict[
        int, np.ndarray
    ]  # conditions 4 to 6, by t counted from 1: the random images with z_t unfit
    numbers: dict[str, Any]


def wild_steps(steps: int) -> tuple[int, ...]:
    """The first, a middle and the last step, counted from 1: paper C's 1, 3 and 6 of 6."""
    return tuple(sorted({1, (steps + 1) // 2, steps}))


def study(
    draw: Draw,
    latent_shape: tuple[int, ...],
    *,
    number: int,
    key: jax.Array,
    label: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Study:
    """All six conditions with `number` images each.

    Args:
      draw: the generator.
      latent_shape: (T, latent).
      number: of images.
      key: of the latent vectors.
      label: images float in [0, 1] -> classes [n], where there is a classifier.
    """
    keys = jax.random.split(key, 3)
    shape = (number, *latent_shape)
    z, other, unfit = (jax.random.normal(k, shape) for k in keys)

    steps = latent_shape[0]
    random, zero = draw(z), draw(jnp.zeros_like(z))
    alone = [draw(jnp.zeros_like(z).at[:, t].set(z[:, t])) for t in range(steps)]
    redrawn = [draw(z.at[:, t].set(other[:, t])) for t in range(steps)]
    wild = {t: draw(z.at[:, t - 1].set(WILD * unfit[:, t - 1])) for t in wild_steps(steps)}
    numbers: dict[str, Any] = {
        "images": number,
        "spread_random": spread(random),
        "spread_zero": spread(zero),
        "spread_alone": [spread(x) for x in alone],
        "change_all_redrawn": change(random, draw(other)),
        "change_redrawn": [change(random, x) for x in redrawn],
        "change_wild": {str(t): change(random, x) for t, x in wild.items()},
    }
    if label is not None:
        before = label(random)
        numbers |= {
            "digit_changes_redrawn": [float(np.mean(label(x) != before)) for x in redrawn],
            "digit_changes_wild": {
                str(t): float(np.mean(label(x) != before)) for t, x in wild.items()
            },
        }
    return Study(random, zero, alone, wild, numbers)


def spread(images: np.ndarray) -> float:
    """How much images [n, H, W, C] differ from each other: root of the mean variance of a pixel over images."""
    return float(np.sqrt(np.mean(np.var(images, axis=0))))


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square difference of two sets of images, image by image."""
    return float(np.sqrt(np.mean((after - before) ** 2)))
