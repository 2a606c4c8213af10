"""Arms of a study, one a row: every seed as a dot, the mean and its interval, one panel a measure."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from outgen_jax.report import plotting

_LEFT, _BETWEEN, _HEAD, _AXIS, _KEY = 1.75, 0.2, 0.3, 0.3, 0.34  # inches
_ROW = 0.3  # inches a row
_LETTERS = 26  # of a line of a name
_SEEDS_BELOW = 0.3  # of a row


class Interval(NamedTuple):
    """A mean, and an interval where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None


class Panel(NamedTuple):
    """One measure of all rows."""

    heading: str
    seeds: Sequence[Sequence[float]]  # of each row
    intervals: Sequence[Interval]  # of each row
    line: float | None = None  # dashed, of what is compared with
    marks: Sequence[float] = ()  # of each row, a diamond


def dots_figure(
    rows: Sequence[str],
    panels: Sequence[Panel],
    *,
    columns: int = 3,
    line: str = "",
    marks: str = "",
    reference: Sequence[int] = (0,),
) -> Figure:
    """Panels of dots and intervals, with a key below them.

    Args:
      rows: names, from the top.
      panels: what to draw, row by row.
      columns: panels beside each other.
      line: what the dashed line is, for the key.
      marks: what the diamonds are, for the key.
      reference: rows that are drawn in black, since the others are compared with them.

    Raises:
      ValueError: no panels, or one that has not a value for each row.
    """
    lengths = {len(values) for p in panels for values in (p.seeds, p.intervals)}
    lengths |= {len(p.marks) for p in panels if p.marks}
    if lengths != {len(rows)} or not rows:
        raise ValueError(
            f"dots_figure: needs panels with seeds and intervals for each of {len(rows)} rows, "
            f"got {len(panels)} panels of {sorted(lengths)}"
        )
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    tall = _ROW * len(rows)
    wide = (plotting.WIDTH - _LEFT - 0.1) / columns - _BETWEEN
    step = _HEAD + tall + _AXIS
    figure = plotting.blank_figure(plotting.WIDTH, lines * step + _KEY)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left = _LEFT + column * (wide + _BETWEEN)
        bottom = _KEY + (lines - 1 - row) * step + _AXIS
        axes = plotting.place_axes(figure, left, bottom, wide, tall)
        for place in range(len(rows)):
            color = plotting.INK if place in reference else plotting.BLUE
            _draw_row(axes, panel, place, color)
        if panel.line is not None:
            axes.axvline(panel.line, color=plotting.GREY, lw=1, ls=(0, (4, 3)))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        plotting.finish_axes(axes, grid="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        plotting.write_title(axes, panel.heading)
        if column == 0:
            axes.set_yticks(range(len(rows)), [textwrap.fill(name, _LETTERS) for name in rows])
    _draw_key(figure, panels, line, marks)
    return figure


def _draw_row(axes: Axes, panel: Panel, place: int, color: str) -> None:
    interval, seeds = panel.intervals[place], panel.seeds[place]
    below = np.full(len(seeds), place + _SEEDS_BELOW)
    axes.plot(seeds, below, ".", color=plotting.SKY, ms=4, zorder=2)
    if interval.low is not None and interval.high is not None:
        axes.plot([interval.low, interval.high], [place] * 2, color=color, lw=1.6, zorder=3)
    axes.plot([interval.mean], [place], "o", color=color, ms=4.5, zorder=3)
    if panel.marks:
        axes.plot([panel.marks[place]], [place], "D", color=plotting.VERMILION, ms=5, zorder=4)


def _draw_key(figure: Figure, panels: Sequence[Panel], line: str, marks: str) -> None:
    handles = [
        Line2D([], [], color=plotting.BLUE, marker="o", ms=4.5, label="mean, 95% interval"),
        Line2D([], [], color=plotting.SKY, marker=".", ls="", label="one seed"),
    ]
    if any(panel.line is not None for panel in panels):
        handles.append(Line2D([], [], color=plotting.GREY, ls=(0, (4, 3)), label=line))
    if any(panel.marks for panel in panels):
        handles.append(
            Line2D([], [], color=plotting.VERMILION, marker="D", ms=5, ls="", label=marks)
        )
    plotting.draw_key(figure, handles)
