"""Figures of a study from bare arrays: images side by side, and losses against updates.

Images are uint8 or float in [0, 1], [R, H, W, C] with C = 1 or 3.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from outgen_jax.names import printable
from outgen_jax.report.fonts import set_text
from outgen_jax.report.plotting import (
    CURVES,
    INK,
    SMALL,
    WIDTH,
    blank_figure,
    finish_axes,
    place_axes,
    show_image,
    write_below,
    write_text,
)

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), "-.", (0, (7, 1.5, 1, 1.5, 1, 1.5)))


def image_grid_figure(
    columns: Mapping[str, np.ndarray],
    *,
    row_labels: Sequence[str] = (),
    captions: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Images side by side: one column per method, one row per class (the layout of Fig. A1, A3-A5).

    Args:
      columns: title to images [R, H, W, C], all of the same R.
      row_labels: R names written to the left of the rows; a long one is broken, unless it has
          lines of its own.
      captions: title to R short texts written under that column's images; any subset of columns.

    Raises:
      ValueError: no columns or no rows; captions, labels or columns of different lengths;
          captions of a column that is not there.

    >>> import numpy as np
    >>> from outgen_jax import report
    >>> type(report.image_grid_figure({"digits": np.zeros((2, 8, 8, 1))})).__name__
    'Figure'
    """
    captions = captions or {}
    rows = _count_rows(columns, row_labels, captions)
    gap = 0.07  # inches, as all below
    labels = [_label_lines(label) for label in row_labels]
    longest = max((len(line) for lines in labels for line in lines), default=0)
    label = max(1.0, 0.15 + 0.075 * longest) if labels else gap
    below = 0.22 if captions else gap
    side = min(1.25, (WIDTH - label) / len(columns) - gap)
    tall = max(side * images.shape[1] / images.shape[2] for images in columns.values())
    titles = [
        textwrap.fill(printable(title), round(side * 12), break_on_hyphens=False)
        for title in columns
    ]
    head = 0.1 + 0.17 * max(title.count("\n") + 1 for title in titles)
    total = head + rows * (tall + below)
    figure = blank_figure(label + len(columns) * (side + gap), total)
    for column, (name, images) in enumerate(columns.items()):
        left = label + column * (side + gap)
        for row, image in enumerate(images):
            axes = place_axes(figure, left, total - head - row * (tall + below) - tall, side, tall)
            show_image(axes, image)
            if row == 0:
                lines = titles[column].split("\n")
                for index, line in enumerate(reversed(lines)):
                    align = ("center", "baseline")
                    write_text(
                        axes, line, (0.5, 1), offset=(0, 5 + 12 * index), align=align, size=9
                    )
            if name in captions:
                write_below(axes, captions[name][row])
            if column == 0 and labels:
                for index, line in enumerate(labels[row]):
                    up, align = 12 * ((len(labels[row]) - 1) / 2 - index), ("right", "center")
                    write_text(axes, line, (0, 0.5), offset=(-6, up), align=align, size=9)
    return figure


def _label_lines(label: str) -> list[str]:
    """The lines of a row's label."""
    given = label.split("\n")
    width = 12 if len(given) == 1 else 16  # letters
    return [line for part in given for line in textwrap.wrap(printable(part, limit=36), width)]


def _count_rows(
    columns: Mapping[str, np.ndarray],
    row_labels: Sequence[str],
    captions: Mapping[str, Sequence[str]],
) -> int:
    lengths = {f"column {title!r}": len(images) for title, images in columns.items()}
    lengths |= {f"captions of {title!r}": len(texts) for title, texts in captions.items()}
    lengths |= {"row_labels": len(row_labels)} if len(row_labels) else {}
    if not columns or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            "image_grid_figure: columns, row_labels and captions must have one entry per row, and "
            f"at least one row; got {lengths or 'no columns'}"
        )
    if unknown := sorted(set(captions) - set(columns)):
        raise ValueError(
            f"image_grid_figure: captions for {unknown}, not among the columns; "
            f"columns: {', '.join(columns)}"
        )
    return len(next(iter(columns.values())))


def history_figure(
    curves: Mapping[str, np.ndarray],
    *,
    ylabel: str = "KL(wanted ‖ reached), nats",
    floor: float = 1e-8,
) -> Figure:
    """Loss against updates on a log scale: the median over images, with its 5-95 % band.

    Args:
      curves: name to losses [steps] or [N, steps]; entry t is the loss after t updates. An image
          that stopped early holds its last value, or the median would be of the stragglers only.
          Values that are not finite are left out, and the legend says of how many images.
      ylabel: what the values are.
      floor: smaller values, zero included, are drawn here, since a logarithm cannot show them.

    Raises:
      ValueError: no curves, or one that is empty or not of one or two dimensions.

    >>> import numpy as np
    >>> from outgen_jax import report
    >>> type(report.history_figure({"plain": np.array([1.0, 0.5, 0.25])})).__name__
    'Figure'
    """
    if not curves:
        raise ValueError("history_figure: no curves to draw; give at least one")
    figure = blank_figure(6.4, 3.8)
    axes = place_axes(figure, 0.78, 0.52, 5.46, 3.12)
    for index, (name, losses) in enumerate(curves.items()):
        _draw_curve(axes, name, np.asarray(losses, np.float64), index, floor)
    axes.set_yscale("log")
    finish_axes(axes, xlabel="updates")
    set_text(axes.yaxis.label, printable(ylabel))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.01)
    axes.tick_params(which="minor", length=0)
    legend = axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=2.6)
    for text in legend.get_texts():
        set_text(text, text.get_text())
    return figure


def _draw_curve(axes: Axes, name: str, losses: np.ndarray, index: int, floor: float) -> None:
    values = np.atleast_2d(losses)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"history_figure: curve {name!r} must be [steps] or [N, steps], and not empty; it is "
            f"{list(losses.shape)}. Give losses over the updates, one row an image"
        )
    finite = np.isfinite(values)
    # Where no value is finite the curve has a gap.
    columns = [
        column[ok] if ok.any() else [np.nan] for column, ok in zip(values.T, finite.T, strict=True)
    ]
    low, middle, high = np.transpose([np.quantile(c, [0.05, 0.5, 0.95]) for c in columns])
    low, middle, high = (np.maximum(curve, floor) for curve in (low, middle, high))
    broken = int(np.sum(~finite.all(1)))
    updates = np.arange(values.shape[1])
    color, dash = CURVES[index % len(CURVES)], DASHES[index % len(DASHES)]
    if len(values) > 1:
        axes.fill_between(updates, low, high, color=color, alpha=0.16, linewidth=0)
    # A label that starts with an underscore would be left out of the legend.
    label = printable(name).lstrip("_") or "curve"
    if broken:
        label += f" ({broken} of {len(values)} not finite)"
    axes.plot(updates, middle, color=color, linestyle=dash, linewidth=1.8, label=label)
