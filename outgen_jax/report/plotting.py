"""What every figure is drawn with: palette, axes placed in inches, literal text, atomic saving.

Figures are `matplotlib.figure.Figure` objects bound to no window and to no global state: there is
nothing to close, and no back end to choose.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from outgen_jax.files import write_atomic
from outgen_jax.names import printable
from outgen_jax.report.fonts import drawable
from outgen_jax.report.run import CRISP_BELOW

# Okabe and Ito (2008): told apart with any colour vision.
BLUE, VERMILION, SKY = "#0072b2", "#d55e00", "#56b4e9"
CURVES = (BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00", SKY, "#000000")
INK, GREY, FAINT = "#1a1a1a", "#5f5f5f", "#e6e6e6"

WIDTH = 9.0  # inches, of a figure that spans the page
DOTS_PER_INCH = 200  # 1,800 pixels across: sharp where a README shows 900
TITLE, TEXT, SMALL = 10.0, 9.0, 8.0  # points: of panels, of axes and keys, of ticks and notes


def blank_figure(width: float, height: float) -> Figure:
    """An empty white figure, size in inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def place_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def write_text(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    *,
    offset: tuple[float, float] = (0, 0),
    align: tuple[str, str] = ("center", "center"),
    size: float = 8,
    color: str = INK,
) -> None:
    """Text at a place in axes fractions plus an offset in points, taken literally.

    A file or a class may be called anything: dollar signs start no formula, and the fonts are those
    that have the characters.
    """
    shown, families = drawable(printable(text))
    axes.annotate(
        shown,
        at,
        offset,
        xycoords="axes fraction",
        textcoords="offset points",
        horizontalalignment=align[0],
        verticalalignment=align[1],
        fontsize=size,
        fontfamily=families,
        color=color,
        linespacing=1.1,
        parse_math=False,
    )


def write_title(axes: Axes, title: str) -> None:
    """The title of a panel, above its left end."""
    write_text(axes, title, (0, 1), offset=(0, 5), align=("left", "baseline"), size=TITLE)


def finish_axes(
    axes: Axes, *, xlabel: str = "", ylabel: str = "", grid: Literal["x", "y", "both"] = "y"
) -> None:
    """The look of every plot: faint grid, no frame at the top and right, labels of one size."""
    axes.set_xlabel(xlabel, fontsize=TEXT, color=INK)
    axes.set_ylabel(ylabel, fontsize=TEXT, color=INK)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK)


def draw_key(figure: Figure, handles: Sequence[Any]) -> None:
    """One line below the panels that says what lines and marks are."""
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        borderaxespad=0.1,
        columnspacing=1.5,
    )


def write_below(axes: Axes, note: str, *, line: int = 0) -> None:
    """A small grey note centred under the axes, one line of several."""
    offset, align = (0, -3.5 - 9.5 * line), ("center", "top")
    write_text(axes, note, (0.5, 0), offset=offset, align=align, size=7.5, color=GREY)


def show_image(axes: Axes, image: np.ndarray, *, smooth: bool = False) -> None:
    """One image [H, W, 1 or 3] without axes; one channel in grey, small images crisp or, if wanted, smooth."""
    image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    enlarged = max(image.shape[:2]) < CRISP_BELOW
    small = "bicubic" if smooth else "nearest"
    axes.imshow(image, interpolation=small if enlarged else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def figure_bytes(figure: Figure, kind: str = "png", *, dpi: int = DOTS_PER_INCH) -> bytes:
    """The figure as the content of a file of the given kind: png, pdf or svg.

    Raises:
      ValueError: matplotlib cannot write that kind.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DOTS_PER_INCH) -> None:
    """Write the figure to `path` atomically, in the format that its suffix names.

    Raises:
      ValueError: matplotlib cannot write that format, or `path` has no suffix.
      FileNotFoundError: the directory of `path` does not exist.
    """
    suffix = Path(path).suffix
    if not suffix:
        raise ValueError(
            f"save_figure: {str(path)!r} has no suffix to tell the format by; "
            "end it in .png, .pdf or .svg"
        )
    write_atomic(path, figure_bytes(figure, suffix.removeprefix("."), dpi=dpi))
