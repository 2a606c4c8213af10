"""The figure of a run: per image its source, result, amplified difference and probabilities."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from outgen_jax.report.plotting import (
    GREY,
    INK,
    SKY,
    VERMILION,
    WIDTH,
    blank_figure,
    place_axes,
    show_image,
    write_below,
    write_text,
)
from outgen_jax.report.run import (
    SMALLEST_SHOWN,
    TICK_FROM,
    SynthesisRun,
    check_run,
    pixel_change,
    printable,
    probability,
    shown_probabilities,
)

# Inches: the margin, one panel, the space between two, the note below, the titles, the legend.
EDGE, SIDE, GAP, NOTE, HEAD, FOOT = 0.06, 1.64, 0.08, 0.36, 0.34, 0.26
LOWEST = 1.5  # inches that ten bars need at this text size
NAMES, NUMBERS = 1.18, 0.98  # inches to the left and to the right of the bars
THICK = 0.74  # of a bar, where 1 touches its neighbours


def synthesis_figure(run: SynthesisRun, *, rows: Sequence[int], amplify: float = 10.0) -> Figure:
    """Source, generated image, amplified difference and probabilities, one row per image.

    Args:
        run: the run's arrays.
        rows: indices of the images to show, top to bottom.
        amplify: the difference is shown as 0.5 + amplify * (generated - source), clipped.

    Raises:
        ValueError: the run's fields disagree, or `rows` is empty or out of range.
    """
    check_run(run, caller="synthesis_figure")
    number, height, width, _ = run.source.shape
    if not len(rows) or not all(0 <= row < number for row in rows):
        raise ValueError(
            f"synthesis_figure: rows must be indices from 0 to {number - 1}, at least one; "
            f"got {list(rows)}"
        )
    tall = SIDE * height / width
    bars_tall = max(tall, LOWEST)
    total = HEAD + (bars_tall + NOTE) * len(rows) + FOOT
    figure = blank_figure(WIDTH, total)
    for place, row in enumerate(rows):
        top = total - HEAD - place * (bars_tall + NOTE)
        panels = []
        for column in range(3):
            left = EDGE + column * (SIDE + GAP)
            panels.append(place_axes(figure, left, top - tall, SIDE, tall))
        left = EDGE + 3 * (SIDE + GAP) + NAMES
        bars = place_axes(figure, left, top - bars_tall, WIDTH - left - NUMBERS, bars_tall)
        _draw_images(panels, run, row, amplify)
        _draw_bars(bars, run, row)
        if place == 0:
            _draw_heads(panels, bars, amplify)
    _draw_legend(figure)
    return figure


def _draw_images(panels: Sequence[Axes], run: SynthesisRun, row: int, amplify: float) -> None:
    one = run._replace(source=run.source[[row]], generated=run.generated[[row]])
    change = (run.generated[row].astype(np.float32) - run.source[row]) / 255
    show_image(panels[0], run.source[row])
    show_image(panels[1], run.generated[row])
    show_image(panels[2], np.clip(0.5 + amplify * change, 0, 1))
    outcome = f"total variation {run.total_variation[row]:.4f}"
    if np.isnan(run.reached[row]).any():
        outcome = "the network's output is not finite"
    elif run.converged[row]:
        outcome = f"reached, {outcome}"
    else:
        outcome = f"missed, {outcome}"
    write_below(panels[0], printable(run.ids[row], limit=22))
    write_below(panels[1], outcome)
    write_below(panels[2], f"RMS {pixel_change(one)[1][0]:.1f} of 255, {run.steps[row]} steps")


def _draw_bars(axes: Axes, run: SynthesisRun, row: int) -> None:
    """Wanted (outline), reached (filled) and before (tick), with the first two as numbers."""
    names, table = shown_probabilities(run, row, limit=5)
    wanted, before, reached = table.T
    places = np.arange(len(names))
    axes.barh(places, 1.0, height=THICK, color="#f2f2f2")
    axes.barh(places, np.nan_to_num(reached), height=THICK, color=SKY)
    outlined = wanted >= SMALLEST_SHOWN
    axes.barh(
        places[outlined],
        wanted[outlined],
        height=THICK,
        facecolor="none",
        edgecolor=INK,
        linewidth=1.1,
    )
    ticked = before >= TICK_FROM
    axes.vlines(
        before[ticked], places[ticked] - 0.46, places[ticked] + 0.46, color=VERMILION, linewidth=1.8
    )
    axes.set_xlim(-0.005, 1.005)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axis("off")
    for place, name in enumerate(names):
        y = 1 - (place + 0.5) / len(names)
        name = printable(name, limit=19)
        write_text(axes, name, (0, y), offset=(-5, -0.5), align=("right", "center"))
        for column, value in enumerate((wanted[place], reached[place])):
            color = INK if value >= SMALLEST_SHOWN else "#9a9a9a"
            offset = (_number_edge(column), -0.5)
            align = ("right", "center")
            write_text(axes, probability(value), (1, y), offset=offset, align=align, color=color)


def _number_edge(column: int) -> float:
    """Right edge of a column of numbers, in points to the right of the bars."""
    return NUMBERS * 72 * (0.43 + 0.53 * column)


def _draw_heads(panels: Sequence[Axes], bars: Axes, amplify: float) -> None:
    titles = ("source", "generated", f"difference \N{MULTIPLICATION SIGN} {amplify:g}")
    for axes, title in zip(panels, titles, strict=True):
        write_text(axes, title, (0.5, 1), offset=(0, 6), align=("center", "baseline"), size=10)
    write_text(bars, "probability", (0.5, 1), offset=(0, 6), align=("center", "baseline"), size=10)
    for column, title in enumerate(("wanted", "reached")):
        offset = (_number_edge(column), 6)
        write_text(bars, title, (1, 1), offset=offset, align=("right", "baseline"), color=GREY)


def _draw_legend(figure: Figure) -> None:
    handles = (
        Patch(facecolor="none", edgecolor=INK, linewidth=1.1, label="wanted"),
        Patch(facecolor=SKY, label="reached by the saved image"),
        Line2D([], [], color=VERMILION, linewidth=1.8, label="source"),
    )
    figure.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 0),
        borderaxespad=0.2,
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.3,
    )
