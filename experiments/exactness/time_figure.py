"""The figure of `time_to_target`: how close each solver is after a given time, and what rounding leaves of it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.cells import label
from outgen_jax.report import figures, plotting

_FLOOR = 1e-7  # of the figure's logarithmic axes
# Name in the key to marker, and key of the total variations.
_SAVED = {
    "float32": ("o", "float"),
    "og.quantize": ("D", "quantize"),
    "nearest 8-bit": ("s", "nearest"),
}


def time_figure(results: dict[str, Any]) -> Figure:
    """A column for each target: median and 95th percentile against seconds, and the saved images at the end.

    Args:
      results: by target and solver, as results.json has them.
    """
    wide, tall, left = (plotting.WIDTH - 1.35) / len(results) - 0.3, 1.75, 1.35
    low = 0.17 * max(map(len, results.values())) + 0.2
    drawn = plotting.blank_figure(plotting.WIDTH, 2 * (tall + 0.3) + low + 1.35)
    for column, (target, solvers) in enumerate(results.items()):
        across = left + column * (wide + 0.3)
        axes = plotting.place_axes(drawn, across, 0.75, wide, low)
        _draw_saved(axes, solvers, named=column == 0)
        for row, (key, name) in enumerate((("p95", "95th percentile"), ("median", "median"))):
            up = 0.75 + low + 0.55 + row * (tall + 0.3)
            axes = plotting.place_axes(drawn, across, up, wide, tall)
            for index, found in enumerate(solvers.values()):
                seconds, values = ([p[k] for p in found["curve"]] for k in ("seconds", key))
                color, dash = plotting.CURVES[index], figures.DASHES[index]
                axes.plot(seconds, np.maximum(values, _FLOOR), color=color, ls=dash, lw=1.6)
            axes.set_yscale("log")
            axes.set_ylim(_FLOOR, 2)
            ylabel = f"TV, {name}" if column == 0 else ""
            plotting.finish_axes(axes, xlabel="seconds" if row == 0 else "", ylabel=ylabel)
            axes.tick_params(labelleft=column == 0)
            if row == 1:
                plotting.write_title(axes, f"target: {label(target)}")
    handles = [
        Line2D([], [], color=plotting.CURVES[index], ls=figures.DASHES[index], label=label(name))
        for index, name in enumerate(next(iter(results.values())))
    ]
    handles += [
        Line2D([], [], color=plotting.GREY, marker=marker, ms=5, ls="", label=name)
        for name, (marker, _) in _SAVED.items()
    ]
    plotting.draw_key(drawn, handles)
    return drawn


def _draw_saved(axes: Axes, solvers: dict[str, Any], *, named: bool) -> None:
    """A row for each solver: the median of its images in float32, and saved in two ways."""
    for index, found in enumerate(solvers.values()):
        rows = {"float": found["total_variation"], **found["total_variation_8bit"]}
        places = [max(float(np.median(rows[key])), _FLOOR) for _, key in _SAVED.values()]
        axes.plot([min(places), max(places)], [index] * 2, color=plotting.FAINT, lw=3, zorder=1)
        for place, (marker, _) in zip(places, _SAVED.values(), strict=True):
            axes.plot([place], [index], marker, color=plotting.CURVES[index], ms=5, zorder=2)
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR, 2)
    axes.set_ylim(len(solvers) - 0.5, -0.5)
    axes.set_yticks(range(len(solvers)), [label(name) for name in solvers] if named else [])
    plotting.finish_axes(axes, xlabel="TV at the end, median", grid="x")
    axes.tick_params(which="minor", length=0)
    axes.tick_params(axis="y", length=0)
