"""Grids of generated images: samples by the dozen, canvases with the attended region, and animations of them.

Images are uint8 or float in [0, 1], [R, C, H, W, 1 or 3]: rows and columns of a grid.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from outgen_jax.report.plotting import GREY, INK, VERMILION, blank_figure, place_axes, write_text

_GAP = 2  # pixels of an image, between images
_PAPER = 0.85  # grey between images
_THICKEST = 2.5  # pixels of an image, that the line of a box may have


class Boxes(NamedTuple):
    """Attended regions, [R, C] each, in pixels counted from 0; or a single one, of numbers."""

    center_x: Any
    center_y: Any
    extent: Any  # side of the square
    sigma: Any  # blur, shown as the line's thickness


def grids_figure(
    panels: Mapping[str, np.ndarray], *, notes: Sequence[str] = (), inches: float = 0.42
) -> Figure:
    """Grids of images one below the other, each with its name to the left and a note to the right.

    Args:
      panels: name (may be empty or have several lines) to images [R, C, H, W, 1 or 3].
      notes: one for each panel, or none at all.
      inches: side of one image.

    Raises:
      ValueError: no panels, images of another rank, or another number of notes.
    """
    if not panels or (notes and len(notes) != len(panels)):
        raise ValueError(
            f"grids_figure: needs panels, and a note for each or none, got {len(panels)} panels and {len(notes)} notes"
        )
    tiles = {name: _tile(images, _GAP, "grids_figure") for name, images in panels.items()}
    scale = inches / max(images.shape[2] for images in panels.values())  # inches a pixel
    left = 1.35 if any(panels) else 0.06
    right = 1.9 if any(notes) else 0.06
    widest = max(tile.shape[1] for tile in tiles.values()) * scale
    heights = [tile.shape[0] * scale for tile in tiles.values()]
    figure = blank_figure(left + widest + right, sum(heights) + 0.1 * (len(heights) + 1))
    bottom = figure.get_size_inches()[1]
    for index, (name, tile) in enumerate(tiles.items()):
        bottom -= heights[index] + 0.1
        axes = place_axes(figure, left, bottom, tile.shape[1] * scale, heights[index])
        _show(axes, tile)
        _write_lines(axes, name, (0, 0.5), -6, "right")
        if notes:
            _write_lines(axes, notes[index], (1, 0.5), 6, "left")
    return figure


def attention_figure(
    images: np.ndarray,
    boxes: Boxes | None,
    *,
    titles: Sequence[str] = (),
    heading: str = "",
    inches: float = 0.62,
) -> Figure:
    """Canvases with a box around the attended region of each, whose thickness shows its blur (Fig. C6).

    The line is as thick as σ, up to 2.5 pixels of the image. Each image has a margin, at whose outer edge a box that
    reaches farther is cut.

    Args:
      images: [R, C, H, W, 1 or 3].
      boxes: of each image; None: no boxes.
      titles: of the columns, or none.
      heading: above the whole, at the left, or none.
      inches: side of one image with its margin.

    Raises:
      ValueError: images of another rank, boxes or titles that are not one for each, or a heading
          as well as titles.
    """
    margin = max(2, images.shape[2] // 7) if images.ndim == 5 else 0
    gap = 2 * margin + 2
    tile = _tile(images, gap, "attention_figure")
    rows, columns, height, width, _ = images.shape
    shapes = {np.shape(values) for values in boxes or ()}
    if shapes - {(rows, columns)} or (titles and len(titles) != columns):
        raise ValueError(
            f"attention_figure: boxes must be [{rows}, {columns}] and titles one for each of {columns} columns, got "
            f"{sorted(shapes)} and {len(titles)} titles"
        )
    if heading and titles:
        raise ValueError(
            f"attention_figure: got a heading, {heading!r}, and titles, which stand in its place; "
            "give one of them"
        )
    scale = inches / (width + gap)
    head = 0.24 if titles or heading else 0
    shape = tile.shape[1] * scale, tile.shape[0] * scale
    figure = blank_figure(shape[0], shape[1] + head)
    axes = place_axes(figure, 0, 0, *shape)
    _show(axes, tile)
    for row, column in np.ndindex(rows, columns) if boxes else ():
        assert boxes is not None
        origin = (gap + column * (width + gap), gap + row * (height + gap))
        box = Boxes(*(float(values[row, column]) for values in boxes))
        _draw_box(axes, box, origin, (width, height), margin, 72 * scale)
    for column, title in enumerate(titles):
        across = (gap + column * (width + gap) + width / 2) / tile.shape[1]
        write_text(axes, title, (across, 1), offset=(0, 4), align=("center", "bottom"), size=9)
    if heading:
        write_text(axes, heading, (0, 1), offset=(4, 5), align=("left", "bottom"), size=9)
    return figure


def animation_bytes(figures: Sequence[Figure], *, milliseconds: Sequence[int]) -> bytes:
    """Figures of one size as an endless GIF, each shown for so long.

    Raises:
      ValueError: no figures, or another number of durations.
    """
    if not figures or len(figures) != len(milliseconds):
        raise ValueError(
            f"animation_bytes: needs figures and a duration for each, got {len(figures)} and {len(milliseconds)}"
        )
    frames = []
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # One palette of all frames: colours that change with the frame would flicker.
    palette = Image.fromarray(np.concatenate([np.asarray(f) for f in frames])).quantize(128)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=list(milliseconds),
        loop=0,
    )
    return buffer.getvalue()


def _tile(images: np.ndarray, gap: int, caller: str) -> np.ndarray:
    """[R, C, H, W, 1 or 3] -> one picture [.., .., 3] in [0, 1], with gaps between and around the images."""
    if images.ndim != 5 or 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{caller}: images must be [R, C, H, W, 1 or 3], got {list(images.shape)}; "
            "images.reshape(rows, columns, *images.shape[1:]) makes a grid of a batch"
        )
    rows, columns, height, width, _ = images.shape
    values = images / 255 if images.dtype == np.uint8 else images
    tile = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), _PAPER)
    for row, column in np.ndindex(rows, columns):
        y, x = gap + row * (height + gap), gap + column * (width + gap)
        tile[y : y + height, x : x + width] = values[row, column]
    return tile


def _show(axes: Axes, tile: np.ndarray) -> None:
    axes.imshow(np.clip(tile, 0, 1), interpolation="nearest", aspect="auto")
    axes.set_axis_off()


def _write_lines(axes: Axes, text: str, at: tuple[float, float], shift: float, align: str) -> None:
    lines = text.split("\n")
    for index, line in enumerate(lines):
        offset = (shift, 11 * ((len(lines) - 1) / 2 - index))
        color = GREY if align == "left" else INK
        write_text(axes, line, at, offset=offset, align=(align, "center"), size=8.5, color=color)


def _draw_box(
    axes: Axes,
    box: Boxes,
    origin: tuple[int, int],
    size: tuple[int, int],
    margin: int,
    points: float,
) -> None:
    """`origin` of the image in the grid and its `size`, (x, y) in pixels; `points` a pixel."""
    corners = []
    for center, start, length in zip((box.center_x, box.center_y), origin, size, strict=True):
        ends = np.array([center - box.extent / 2, center + box.extent / 2])
        # Pixel i covers i − 0.5 to i + 0.5.
        corners.append(start + np.clip(ends, -margin - 0.5, length - 0.5 + margin))
    (left, right), (top, bottom) = corners
    line = min(max(box.sigma, 0.2), _THICKEST) * points
    axes.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=VERMILION, linewidth=line
        )
    )
