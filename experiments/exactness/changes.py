"""The figure of changed images: source, then for each way to change it the image and the amplified change."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import outgen_jax as og
from outgen_jax import report
from outgen_jax.synthesis import network as networks

AMPLIFIED = 10  # times, of a change in a figure
_SHOWN_CLASSES = 2  # of a target


class Changed(NamedTuple):
    """What a way to change images gave."""

    images: np.ndarray  # [R, H, W, C] uint8 or in [0, 1]
    reached: np.ndarray  # [R, K], the network's outputs


def changes_figure(
    source: np.ndarray, targets: np.ndarray, names: Sequence[str], ways: Mapping[str, Changed]
) -> Figure:
    """A row for each image: its target, and below every changed image what the network says of the same classes.

    Below each change stands its L2, over pixels in [0, 1].

    Args:
      source: [R, H, W, C] uint8.
      targets: [R, K].
      names: of the K classes.
      ways: heading to changed images.
    """
    columns, captions = {"source": source}, {}
    for heading, changed in ways.items():
        columns[heading] = changed.images
        captions[heading] = [
            ", ".join(f"{reached[k]:.3f}" for k in shown_classes(target))
            for target, reached in zip(targets, changed.reached, strict=True)
        ]
        title = f"{heading}: change ×\N{NO-BREAK SPACE}{AMPLIFIED}"
        columns[title] = amplified(changed.images, source)
        sizes = np.asarray(og.metrics.l2_change(changed.images, source))
        captions[title] = [f"L2 {size:.2f}" for size in sizes]
    labels = [target_label(target, names) for target in targets]
    return report.image_grid_figure(columns, row_labels=labels, captions=captions)


def shown_classes(target: np.ndarray) -> list[int]:
    """The classes of a target [K] that a figure names, the largest share first.

    >>> shown_classes(np.array([0.1, 0.0, 0.9]))
    [2, 0]
    """
    order = np.argsort(-target, kind="stable")[:_SHOWN_CLASSES]
    return [int(k) for k in order if target[k] > 0]


def target_label(target: np.ndarray, names: Sequence[str]) -> str:
    r"""A target [K] in words, a line for each class shown.

    >>> target_label(np.array([0.1, 0.0, 0.9]), ("cat", "dog", "ship"))
    'ship 0.9\ncat 0.1'
    """
    return "\n".join(f"{names[k]} {target[k]:.2g}" for k in shown_classes(target))


def amplified(images: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The change of images on grey, `AMPLIFIED` times as large and clipped to [0, 1]."""
    difference = networks.as_float(images) - networks.as_float(source)
    return np.clip(0.5 + AMPLIFIED * difference, 0, 1)
