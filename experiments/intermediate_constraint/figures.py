"""Figures of the study of paper D: accuracy against level, and which neurons are on or off."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments.intermediate_constraint.comparisons import Found, seeds_of
from experiments.intermediate_constraint.study import Condition
from outgen_jax.report import plotting
from outgen_jax.report.figures import DASHES

# By 2·(on before) + (on now): off as before, turned on, turned off, on as before.
STATES = ("off, as before", "turned on", "turned off", "on, as before")
COLOURS = (plotting.FAINT, plotting.VERMILION, "#e69f00", plotting.BLUE)
_PANEL, _GAP = 1.75, 0.12  # inches


def levels_figure(
    found: Found, before: Mapping[str, Any], table: Sequence[Condition], names: Sequence[str]
) -> Figure:
    """Accuracy against the level of noise and of blur: mean over seeds, band from least to most."""
    figure = plotting.blank_figure(plotting.WIDTH, 3.7)
    for column, group in enumerate(("noise", "blur")):
        axes = plotting.place_axes(figure, 0.75 + 4.25 * column, 0.55, 3.75, 2.6)
        rows = [0, *(i for i, c in enumerate(table) if c.group == group)]
        levels = [getattr(table[i], group) for i in rows]
        curves = {"before fine-tuning": [before], **{n: seeds_of(found, n, "both") for n in names}}
        for index, (name, seeds) in enumerate(curves.items()):
            values = np.array([r["correct"][rows].mean(-1) for r in seeds])  # [seeds, levels]
            color = (
                plotting.GREY if index == 0 else plotting.CURVES[(index - 1) % len(plotting.CURVES)]
            )
            dash = (0, (1, 1)) if index == 0 else DASHES[(index - 1) % len(DASHES)]
            axes.fill_between(levels, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
            axes.plot(levels, values.mean(0), ls=dash, color=color, marker=".", lw=1.5, label=name)
        unit = "0-255 scale" if group == "noise" else "pixels"
        axes.set_xlabel(f"σ of {group}, {unit}", fontsize=10, color=plotting.INK)
        axes.set_ylabel("accuracy" if column == 0 else "", fontsize=10, color=plotting.INK)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        axes.grid(axis="y", color=plotting.FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, color=plotting.GREY, labelcolor=plotting.INK)
        if column == 0:
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="upper center",
                ncols=len(curves),
                frameon=False,
                fontsize=8,
            )
    return figure


def neurons_figure(
    found: Found,
    before: Mapping[str, Any],
    table: Sequence[Condition],
    names: Sequence[str],
    layers: Sequence[str],
) -> Figure:
    """Neurons (columns) of single images (rows) on the middle noise and blur, one panel an arm.

    The colour says whether a neuron is on or off, and whether it was so on the clean image before fine-tuning.
    """
    first = {name: seeds_of(found, name, "both")[:1] for name in names}
    arms = {"before": before, **{name: seeds[0] for name, seeds in first.items() if seeds}}
    middle = [[i for i, c in enumerate(table) if c.group == g] for g in ("noise", "blur")]
    rows = [group[len(group) // 2] for group in middle]
    left, low, head = 0.55, 0.5, 0.35
    height = low + len(rows) * (_PANEL + 0.3) + head
    figure = plotting.blank_figure(left + len(arms) * (_PANEL + _GAP), height)
    colours = ListedColormap(list(COLOURS))
    order = np.argsort(before["bits"][0].mean(0), kind="stable")  # mostly off to mostly on
    for column, (name, result) in enumerate(arms.items()):
        for row, index in enumerate(rows):
            bottom = height - head - (row + 1) * _PANEL - row * 0.3
            axes = plotting.place_axes(
                figure, left + column * (_PANEL + _GAP), bottom, _PANEL, _PANEL
            )
            bits = result["bits"][index][:, order]
            axes.imshow(
                bits, cmap=colours, vmin=-0.5, vmax=3.5, aspect="auto", interpolation="nearest"
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            plotting.write_below(axes, f"{result['agreement'][index].mean():.1%} as before")
            if row == 0:
                plotting.write_text(
                    axes, name, (0.5, 1), offset=(0, 4), align=("center", "bottom"), size=9
                )
            if column == 0:
                condition = table[index]
                text = f"{condition.group} {getattr(condition, condition.group):.3g}"
                axes.set_ylabel(text, fontsize=9, color=plotting.INK)
    handles = [figure.add_artist(_patch(figure, color)) for color in COLOURS]
    figure.legend(
        handles, STATES, loc="lower center", ncols=4, frameon=False, fontsize=8,
        title=f"neurons of {', '.join(layers)} (across) on {len(before['bits'][0])} images (down)",
        title_fontsize=8,
    )  # fmt: skip
    return figure


def _patch(figure: Figure, color: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 0, 0, facecolor=color, transform=figure.transFigure)
