"""The figure of a run: per image its source, result, amplified difference and what the network says."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from outgen_jax.names import printable
from outgen_jax.outputs.output import Form
from outgen_jax.report import wording
from outgen_jax.report.parts import Part
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
    SynthesisRun,
    check_run,
    finite_rows,
    one_image,
    pixel_change,
)
from outgen_jax.report.shown import (
    SMALLEST_SHOWN,
    TICK_FROM,
    groups,
    shown_entries,
    unit,
    value_text,
    wanted_text,
)

# Inches: the margin, one panel, the space between two, the note below, the titles, the legend.
EDGE, SIDE, GAP, NOTE, HEAD, FOOT = 0.06, 1.64, 0.08, 0.36, 0.34, 0.26
LINE, HIGHEST = 0.15, 0.235  # inches that a line needs at this text size, and that it takes at most
NAMES, NUMBERS, WIDE = 1.18, 0.98, 1.5  # inches left of the bars, and right of them; for numbers
THICK = 0.74  # of a bar, where 1 touches its neighbours
FAINT_INK = "#9a9a9a"


class _Line(NamedTuple):
    """One line beside an image: an entry of a part, or a text."""

    text: str
    part: Part | None = None
    values: np.ndarray | None = None  # wanted, before, reached
    is_heading: bool = False


def synthesis_figure(run: SynthesisRun, *, rows: Sequence[int], amplify: float = 10.0) -> Figure:
    """Source, generated image, amplified difference and what the network says, one row per image.

    Probabilities are bars, numbers are texts. Several networks or views stand one under another.

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
    forms = {part.kind.form for part in run.parts}
    shown = [_lines(one_image(run, row)) for row in rows]
    tall = SIDE * height / width
    talls = [max(tall, LINE * len(lines)) for lines in shown]
    total = HEAD + sum(talls) + NOTE * len(rows) + FOOT
    figure = blank_figure(WIDTH, total)
    top = total - HEAD
    for place, (row, lines, row_tall) in enumerate(zip(rows, shown, talls, strict=True)):
        panels = []
        for column in range(3):
            left = EDGE + column * (SIDE + GAP)
            panels.append(place_axes(figure, left, top - tall, SIDE, tall))
        left = EDGE + 3 * (SIDE + GAP) + NAMES
        right = WIDE if "numbers" in forms else NUMBERS
        deep = min(row_tall, HIGHEST * len(lines))
        bars = place_axes(figure, left, top - deep, WIDTH - left - right, deep)
        _draw_images(panels, one_image(run, row), amplify)
        _draw_lines(bars, lines, right, mixed=len(forms) > 1)
        if place == 0:
            _draw_heads(panels, bars, amplify, right, forms)
        top -= row_tall + NOTE
    if forms != {"numbers"}:
        _draw_legend(figure)
    return figure


def _lines(one: SynthesisRun) -> list[_Line]:
    """What stands beside an image."""
    shown = groups(one, 0)
    few = {"limit": 5, "complete": 10} if len(one.parts) == 1 else {"limit": 3, "complete": 5}
    lines: list[_Line] = []
    for place, group in enumerate(shown):
        if group.title:
            lines += [_Line("")] if place else []
            lines.append(_Line(f"{group.title}: {group.detail}", is_heading=True))
        names, table, note = shown_entries(group.part, 0, **few)
        lines += [
            _Line(name, group.part, values) for name, values in zip(names, table, strict=True)
        ]
        lines += [_Line(text) for text in (note, group.note) if text]
    return lines


def _draw_images(panels: Sequence[Axes], one: SynthesisRun, amplify: float) -> None:
    source, generated = one.source[0], one.generated[0]
    change = (generated.astype(np.float32) - source) / 255
    show_image(panels[0], source)
    show_image(panels[1], generated)
    show_image(panels[2], np.clip(0.5 + amplify * change, 0, 1))
    lines = textwrap.wrap(f"{wording.measure(one)} {one.distance[0]:.4f}", 28)
    kinds = {part.kind for part in one.parts}
    lines += [unit(kind) for kind in kinds if unit(kind) and len(kinds) == 1]
    lines[0] = f"{'reached' if one.converged[0] else 'missed'}, {lines[0]}"
    if not finite_rows(one)[0]:
        lines = ["the network's output is not finite"]
    write_below(panels[0], printable(one.ids[0], limit=22))
    for place, line in enumerate(lines):
        write_below(panels[1], line, line=place)
    write_below(panels[2], f"RMS {pixel_change(one)[1][0]:.1f} of 255, {one.steps[0]} steps")


def _draw_lines(axes: Axes, lines: Sequence[_Line], right: float, *, mixed: bool) -> None:
    """Entries as bars or as numbers, and texts between them."""
    bars = [
        (place, line.values)
        for place, line in enumerate(lines)
        if line.part is not None and line.part.kind.form != "numbers"
    ]
    _draw_bars(axes, np.array([b[0] for b in bars]), np.array([b[1] for b in bars]).reshape(-1, 3))
    axes.set_xlim(-0.005, 1.005)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axis("off")
    for place, line in enumerate(lines):
        y = 1 - (place + 0.5) / len(lines)
        if line.part is None or line.values is None:
            color, size = (INK, 8) if line.is_heading else (GREY, 7.5)
            text = printable(line.text, limit=70)
            offset = (-NAMES * 72 + 5, -0.5)
            write_text(
                axes, text, (0, y), offset=offset, align=("left", "center"), color=color, size=size
            )
            continue
        name = printable(line.text, limit=19)
        write_text(axes, name, (0, y), offset=(-5, -0.5), align=("right", "center"))
        wanted, before, reached = line.values
        if line.part.kind.form == "numbers":
            text = f"{'source ' if mixed else ''}{value_text(line.part, before)}"
            write_text(axes, text, (1, y), offset=(0, -0.5), align=("right", "center"))
        texts = wanted_text(line.part, wanted), value_text(line.part, reached, exact=True)
        for column, (value, text) in enumerate(zip((wanted, reached), texts, strict=True)):
            is_small = line.part.kind.form != "numbers" and value < SMALLEST_SHOWN
            color = FAINT_INK if is_small or np.isnan(value) else INK
            offset = (_number_edge(column, right), -0.5)
            write_text(axes, text, (1, y), offset=offset, align=("right", "center"), color=color)


def _draw_bars(axes: Axes, places: np.ndarray, table: np.ndarray) -> None:
    """Wanted (outline), reached (filled) and before (tick) of probabilities [n, 3]."""
    wanted, before, reached = table.T
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


def _number_edge(column: int, right: float) -> float:
    """Right edge of a column of numbers, in points to the right of the bars."""
    first = 0.43 if right == NUMBERS else 0.48
    return right * 72 * (0.96 if column else first)


def _draw_heads(
    panels: Sequence[Axes], bars: Axes, amplify: float, right: float, forms: set[Form]
) -> None:
    titles = ("source", "generated", f"difference \N{MULTIPLICATION SIGN} {amplify:g}")
    for axes, title in zip(panels, titles, strict=True):
        write_text(axes, title, (0.5, 1), offset=(0, 6), align=("center", "baseline"), size=10)
    heads = [("wanted", _number_edge(0, right)), ("reached", _number_edge(1, right))]
    if forms == {"numbers"}:
        heads.append(("source", 0))
    else:
        middle = ("center", "baseline")
        write_text(bars, "probability", (0.5, 1), offset=(0, 6), align=middle, size=10)
    for title, edge in heads:
        align = ("right", "baseline")
        write_text(bars, title, (1, 1), offset=(edge, 6), align=align, color=GREY)


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
