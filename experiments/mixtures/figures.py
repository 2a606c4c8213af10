"""Figures of mixtures: the images side by side, and the path from one class to another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.mixtures.starts import Mixtures
from outgen_jax.report import plotting

_LARGEST = 0.92  # inches, of an image
_GAP, _BLOCK = 0.05, 0.28  # inches: between images, between networks
_LABEL, _HEAD, _ROW_NOTE, _STRIP_HEAD = 1.2, 0.42, 0.2, 0.25


class Panel(NamedTuple):
    """The images of one network: a row for each target, a column for each source."""

    name: str
    images: np.ndarray  # [T, S, H, W, C] in [0, 1] or uint8


def mixture_label(row: int, mixtures: Mixtures, names: Sequence[str]) -> list[str]:
    """The lines that name a target.

    >>> mixture_label(0, Mixtures(np.array([[1, 0]]), np.array([[0.75, 0.25]])), ("ship", "horse"))
    ['horse: 75%', 'ship: 25%']
    """
    pairs = zip(mixtures.classes[row], mixtures.shares[row], strict=True)
    return [f"{names[k]}: {share:.0%}" for k, share in pairs if share > 0]


def mixtures_figure(
    sources: np.ndarray, panels: Sequence[Panel], labels: Sequence[Sequence[str]]
) -> Figure:
    """Sources in the first row, a row for each target below; a block of columns for each network.

    Args:
      sources: [S, H, W, C].
      panels: of the networks.
      labels: the lines that name each of the T targets.
    """
    columns = len(sources)
    side = _side(len(panels) * columns, apart=(len(panels) - 1) * _BLOCK)
    block = columns * (side + _GAP) + _BLOCK
    rows = [["source"], *labels]
    height = _HEAD + len(rows) * (side + _GAP) + _GAP
    figure = plotting.blank_figure(_LABEL + len(panels) * block - _BLOCK + _GAP, height)
    for p, panel in enumerate(panels):
        for r, lines in enumerate(rows):
            bottom = height - _HEAD - (r + 1) * (side + _GAP)
            for c in range(columns):
                left = _LABEL + p * block + c * (side + _GAP)
                axes = plotting.place_axes(figure, left, bottom, side, side)
                plotting.show_image(axes, sources[c] if r == 0 else panel.images[r - 1, c])
                if p == 0 and c == 0:
                    _write_lines(axes, lines)
                if r == 0 and c == 0:
                    _write_head(axes, panel.name, columns / 2 + (columns - 1) * _GAP / side / 2)
    return figure


def strip_figure(
    panels: Mapping[str, np.ndarray],
    notes: Mapping[str, np.ndarray],
    mixtures: Mixtures,
    names: Sequence[str],
) -> Figure:
    """A row of images for each network, whose target moves from one class to another.

    Args:
      panels: name of a row, which may have several lines, to images [T, H, W, C].
      notes: name of a row to the share of the second class that a judge finds among the two, [T].
      mixtures: the T targets, of two classes.
      names: of the classes.
    """
    steps = len(mixtures.classes)
    first, last = (names[k] for k in mixtures.classes[0])
    side = _side(steps)
    height = _STRIP_HEAD + len(panels) * (side + _ROW_NOTE + _GAP)
    figure = plotting.blank_figure(_LABEL + steps * (side + _GAP), height)
    for r, (name, images) in enumerate(panels.items()):
        bottom = height - _STRIP_HEAD - (r + 1) * side - r * (_ROW_NOTE + _GAP)
        for t, share in enumerate(mixtures.shares[:, 1]):
            left = _LABEL + t * (side + _GAP)
            axes = plotting.place_axes(figure, left, bottom, side, side)
            plotting.show_image(axes, images[t])
            plotting.write_below(axes, f"{notes[name][t]:.0%}")
            if r == 0:
                plotting.write_text(axes, f"{share:.0%}", (0.5, 1), offset=(0, 7), size=8.5)
            if t == 0:
                _write_lines(axes, name.split("\n"))
                _write_beside(axes, (0, 0), -8.5, f"judge finds {last}", plotting.GREY)
            if t == 0 and r == 0:
                _write_beside(axes, (0, 1), 7, f"{last}, rest {first}", plotting.INK)
    return figure


def _write_lines(axes: Axes, lines: Sequence[str]) -> None:
    for index, line in enumerate(lines):
        up = 11 * ((len(lines) - 1) / 2 - index)
        plotting.write_text(
            axes, line, (0, 0.5), offset=(-7, up), align=("right", "center"), size=9
        )


def _write_beside(axes: Axes, at: tuple[float, float], up: float, text: str, color: str) -> None:
    plotting.write_text(
        axes, text, at, offset=(-7, up), align=("right", "center"), size=7.5, color=color
    )


def _write_head(axes: Axes, name: str, middle: float) -> None:
    plotting.write_text(
        axes, name, (middle, 1), offset=(0, 12), align=("center", "baseline"), size=plotting.TITLE
    )


def _side(columns: int, *, apart: float = 0.0) -> float:
    """Inches of an image in a figure no wider than a page, beside labels; `apart` is left empty."""
    free = plotting.WIDTH - _LABEL - apart - _GAP
    return min(_LARGEST, free / columns - _GAP)
