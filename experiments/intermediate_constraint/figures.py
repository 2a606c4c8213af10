"""The figure of the study of paper D: accuracy and agreement at every level, and what the penalties change there."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.common.cells import label
from experiments.intermediate_constraint.comparisons import over_seeds
from experiments.intermediate_constraint.study import AUGMIX, PLAIN
from experiments.intermediate_constraint.tables import Record, Results, records_of, variants_of
from outgen_jax.report import plotting
from outgen_jax.report.figures import DASHES

Measure = Literal["accuracy", "agreement"]
_LEFT, _BETWEEN, _TALL, _STEP = 0.75, 0.45, 1.7, 2.05  # inches
_SPREAD = 0.4  # of the distance of two levels, that the arms of one level take
_BEFORE = "before fine-tuning"
_TITLES = ("accuracy", "gain in accuracy over plain", "gain in neurons as before, over plain")


def levels_figure(results: Results) -> Figure:
    """A column each for noise and blur, trained on both; needs finished jobs of plain fine-tuning.

    From the top: accuracy; its gain over plain fine-tuning, with Student's interval over seeds; the same of the neurons
    that are on or off as before. AugMix-style fine-tuning, which is far from the others, is in the first row only.

    Args:
      results: as results.json has them.
    """
    names = [name for name in variants_of(results) if records_of(results, name, "both")]
    arms = {name: records_of(results, name, "both") for name in names}
    colors = dict(zip(names, itertools.cycle(plotting.CURVES), strict=False))
    penalties = [name for name in names if name not in (PLAIN, AUGMIX)]
    figure = plotting.blank_figure(plotting.WIDTH, 3 * _STEP + 0.8)
    wide = (plotting.WIDTH - _LEFT - 0.1 - _BETWEEN) / 2
    for column, group in enumerate(("noise", "blur")):
        rows, levels = _levels(results["conditions"], group)
        left = _LEFT + column * (wide + _BETWEEN)
        axes = [
            plotting.place_axes(figure, left, 0.8 + row * _STEP, wide, _TALL) for row in (2, 1, 0)
        ]
        _draw_means(axes[0], rows, {_BEFORE: [results["before"]], **arms}, colors)
        for place, measure in zip(axes[1:], ("accuracy", "agreement"), strict=True):
            for index, name in enumerate(penalties):
                shift = _SPREAD * (index / max(1, len(penalties) - 1) - 0.5)
                pair = arms[name], arms[PLAIN]
                _draw_differences(place, rows, pair, measure, shift, colors[name])
            place.axhline(0, color=colors[PLAIN], lw=1)
        unit = "on the scale of 0 to 255" if group == "noise" else "pixels"
        for row, place in enumerate(axes):
            place.set_xticks(range(len(rows)), levels)
            place.set_xlim(-0.5, len(rows) - 0.5)
            ylabel = ("%", "points", "points")[row] if column == 0 else ""
            xlabel = f"σ of the {group}, {unit}" if row == 2 else ""
            plotting.finish_axes(place, xlabel=xlabel, ylabel=ylabel)
            place.tick_params(labelbottom=row == 2)
            plotting.write_title(place, f"{group}: {_TITLES[row]}")
    _draw_key(figure, names, colors)
    return figure


def _levels(conditions: Sequence[Sequence[Any]], group: str) -> tuple[list[int], list[str]]:
    """The conditions of a group after the clean one, and their σ in words."""
    rows = [i for i, (name, *_) in enumerate(conditions) if name in ("clean", group)]
    sigmas = [noise or blur for _, noise, blur in (conditions[i] for i in rows)]
    return rows, [f"{sigma:.3g}" if sigma else "clean" for sigma in sigmas]


def _draw_means(
    axes: Axes,
    rows: Sequence[int],
    arms: Mapping[str, Sequence[Record]],
    colors: Mapping[str, str],
) -> None:
    for index, (name, records) in enumerate(arms.items()):
        means = 100 * np.array([r["accuracy"] for r in records])[:, rows].mean(0)
        color, dash = colors.get(name, plotting.GREY), DASHES[index % len(DASHES)]
        axes.plot(range(len(rows)), means, color=color, ls=dash, marker=".", lw=1.5)


def _draw_differences(
    axes: Axes,
    rows: Sequence[int],
    pair: tuple[Sequence[Record], Sequence[Record]],
    measure: Measure,
    shift: float,
    color: str,
) -> None:
    for place, row in enumerate(rows):
        ours, theirs = ([record[measure][row] for record in records] for records in pair)
        found = over_seeds(ours, theirs)
        at = place + shift
        axes.plot([at, at], [100 * found.low, 100 * found.high], color=color, lw=1.6)
        axes.plot([at], [100 * found.difference], "o", color=color, ms=4.5)


def _draw_key(figure: Figure, names: Sequence[str], colors: Mapping[str, str]) -> None:
    shown = {_BEFORE: plotting.GREY, **colors}
    handles = [
        Line2D(
            [], [], color=shown[name], ls=DASHES[index % len(DASHES)], marker=".", label=label(name)
        )
        for index, name in enumerate((_BEFORE, *names))
    ]
    plotting.draw_key(figure, handles)
