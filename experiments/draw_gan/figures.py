"""Figures C3 to C10 of paper C, and the animation of canvases being drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.draw_gan.latent import Study
from outgen_jax import files
from outgen_jax.models import draw
from outgen_jax.report import image_grids
from outgen_jax.report.plotting import save_figure

_ROWS, _COLUMNS = 10, 10  # of a sheet of samples, all arms together
_STEP_ROWS = 5
_SIDE = 0.5  # inches
_FRAME, _LAST = 450, 2000  # milliseconds
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def grid(images: np.ndarray, rows: int, columns: int = _COLUMNS) -> np.ndarray:
    """The first rows · columns images as a grid, fewer rows where there are fewer images."""
    columns = min(columns, len(images))
    rows = max(1, min(rows, len(images) // columns))
    return images[: rows * columns].reshape(rows, columns, *images.shape[1:])


def samples(path: Path, arms: Mapping[str, np.ndarray], notes: Sequence[str]) -> None:
    """Figs C3, C4, C5 and C7 on one sheet: the first images of every arm, with a note beside each."""
    rows = max(2, _ROWS // len(arms))
    panels = {name: grid(images, rows) for name, images in arms.items()}
    save_figure(image_grids.grids_figure(panels, notes=notes, inches=_SIDE), path)


def note(run: Mapping[str, Any]) -> str:
    """The scores of a run as they stand beside its samples; nothing where there are none."""
    if "scores" not in run:
        return ""
    fid, recall = (run["scores"][key]["estimate"] for key in ("fid", "recall"))
    return f"FID {fid:.2f}\nrecall {recall:.2f}"


def boxes(attention: draw.Attention, points: int) -> image_grids.Boxes:
    """Attentions [R, C] -> the square that the outermost filters of the grid span."""
    center_x, center_y, stride, sigma, _ = (np.asarray(a) for a in attention)
    return image_grids.Boxes(center_x, center_y, (points - 1) * stride, sigma)


def canvases(path: Path, drawing: draw.Drawing, points: int) -> None:
    """Fig. C6: images step by step, with a box around what is attended to."""
    images = _pixels(drawing)[:_STEP_ROWS]
    first = jax.tree.map(lambda a: a[:_STEP_ROWS], drawing.attention)
    titles = [f"step {t}" for t in range(1, images.shape[1] + 1)]
    save_figure(image_grids.attention_figure(images, boxes(first, points), titles=titles), path)


def animation(path: Path, drawing: draw.Drawing, points: int, rows: int = 4) -> None:
    """Images being drawn, one frame a step; the last frame has no boxes."""
    images = _pixels(drawing)
    columns = min(_COLUMNS, len(images))
    rows = max(1, min(rows, len(images) // columns))
    number, steps = rows * columns, images.shape[1]
    figures = []
    for t in (*range(steps), steps):
        at = min(t, steps - 1)
        now = jax.tree.map(partial(_at_step, at, rows, columns), drawing.attention)
        shown = images[:number, at].reshape(rows, columns, *images.shape[2:])
        found = boxes(now, points) if t < steps else None
        heading = step_heading(t, steps)
        figures.append(image_grids.attention_figure(shown, found, heading=heading, inches=_SIDE))
    durations = [_FRAME] * steps + [_LAST]
    files.write_atomic(path, image_grids.animation_bytes(figures, milliseconds=durations))


def step_heading(t: int, steps: int) -> str:
    """What stands above frame t of an animation, counted from 0; the last is the finished image.

    >>> step_heading(0, 6)
    'step 1 of 6: the box is where the generator writes'
    """
    if t == steps:
        return f"after step {steps}"
    return f"step {t + 1} of {steps}: the box is where the generator writes"


def latent(directory: Path, name: str, study: Study) -> None:
    """Figs C8 to C10: the six conditions, with numbers beside each."""
    numbers: dict[str, Any] = study.numbers
    panels = {"all z random": grid(study.random, 1), "all z zero": grid(study.zero, 1)}
    notes = [f"spread {numbers['spread_random']:.3f}", f"spread {numbers['spread_zero']:.3f}"]
    digits = numbers.get("digit_changes_redrawn")
    for t, images in enumerate(study.alone, 1):
        panels[f"only {_z(t)} random"] = grid(images, 1)
        note = f"spread {numbers['spread_alone'][t - 1]:.3f}"
        if digits is not None:
            note += f"\nredrawn: {digits[t - 1]:.0%} other digits"
        notes.append(note)
    figure = image_grids.grids_figure(panels, notes=notes, inches=_SIDE)
    save_figure(figure, directory / f"fig_c8_c9_{name}.png")

    panels = {"all z random": grid(study.random, 2)}
    notes = [f"all redrawn:\nchange {numbers['change_all_redrawn']:.3f}"]
    for t, images in study.wild.items():
        panels[f"the same, {_z(t)}\nof σ = 10,000"] = grid(images, 2)
        note = f"change {numbers['change_wild'][str(t)]:.3f}"
        if "digit_changes_wild" in numbers:
            note += f"\n{numbers['digit_changes_wild'][str(t)]:.0%} other digits"
        notes.append(note)
    figure = image_grids.grids_figure(panels, notes=notes, inches=_SIDE)
    save_figure(figure, directory / f"fig_c10_{name}.png")


def _at_step(step: int, rows: int, columns: int, values: jax.Array) -> jax.Array:
    return values[: rows * columns, step].reshape(rows, columns)


def _z(t: int) -> str:
    return "z" + str(t).translate(_SUBSCRIPTS)


def _pixels(drawing: draw.Drawing) -> np.ndarray:
    """Canvases as images in [0, 1], [B, T, H, W, C]."""
    return 1 / (1 + np.exp(-np.asarray(drawing.canvases, np.float64)))
