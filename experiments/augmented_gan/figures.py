"""Figures B5, B6, B8 to B10 and B12 of paper B for every subject, and FID over the updates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

import outgen_jax as og
from experiments.augmented_gan.presets import CONTROL, DOUBLED, MIXED, PARTS, SCHEMES, SINGLE
from outgen_jax.report import dot_plots, figures, image_grids, plotting

_SHOWN = 6  # images of a set
_SIDE = 1.2  # inches of an image in a grid
_LEGIBLE = 100  # dots per inch
_MEASURES = (
    ("inception_score", "IS", "higher: better"),
    ("fid", "FID", "lower: better"),
)
_LABELS = {"flip_left_right": "flip left-right", "flip_up_down": "flip up-down"}


class Group(NamedTuple):
    """The sets of one figure, and the numbers of the paper's figures for its two subjects."""

    name: str
    arms: tuple[str, ...]
    samples: tuple[str, str]
    scores: tuple[str, str]


GROUPS = (
    Group("single", (CONTROL, *SINGLE), ("fig_b5", "fig_b9"), ("fig_b6", "fig_b10")),
    Group("mixed", (CONTROL, *MIXED, *DOUBLED), ("fig_b7", "fig_b11"), ("fig_b8", "fig_b12")),
    Group("discriminator", (CONTROL, *SCHEMES, *PARTS), ("samples",) * 2, ("scores",) * 2),
)


def label(arm: str) -> str:
    """A set's name in words."""
    kinds, _, multiple = arm.partition("@")
    words = " + ".join(_LABELS.get(kind, kind) for kind in kinds.split("+"))
    return words.replace("=", ": ") + (f" × {multiple}" if multiple else "")


def save_all(
    directory: Path,
    results: Mapping[str, Any],
    originals: Mapping[str, np.ndarray],
    samples: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Draws all figures for which there are finished jobs.

    Args:
      directory: where to.
      results: as results.json has them.
      originals: of each subject, uint8 [N, H, W, C].
      samples: of each subject and set, of its first finished seed.
    """
    for index, (name, subject) in enumerate(results["subjects"].items()):
        if not subject["sets"]:
            continue
        title = (f"{name}, {subject['originals']:,} originals", results["network"])
        curves(directory / f"curves_{name}.png", subject, title)
        groups = [(g, [a for a in g.arms if a in subject["sets"]]) for g in GROUPS]
        groups = [(group, arms) for group, arms in groups if set(arms) - {CONTROL}]
        at = min(index, 1)
        for place, (group, arms) in enumerate(groups):
            ending = f"_{name}.png" if "fig" in group.scores[0] else f"_{group.name}_{name}.png"
            path = directory / f"{group.scores[at]}{ending}"
            scores(path, subject, arms, results["network"])
            if place == 0:  # the samples of the other groups look the same
                path = directory / f"{group.samples[at]}{ending}"
                sample_grids(path, originals[name], samples[name], arms)


def sample_grids(
    path: Path, originals: np.ndarray, samples: Mapping[str, np.ndarray], arms: Sequence[str]
) -> None:
    """Figs B5 and B9: a row of images of every GAN of the group, under originals."""
    panels = {f"{len(originals):,} originals": _row(originals)}
    panels |= {_wrapped(arm): _row(samples[arm]) for arm in arms}
    figure = image_grids.grids_figure(panels, inches=_SIDE)
    plotting.save_figure(figure, path, dpi=_LEGIBLE)


def scores(path: Path, subject: Mapping[str, Any], arms: Sequence[str], network: str) -> None:
    """Figs B6, B8, B10 and B12: scores of every GAN, and of the set that it was trained on."""
    panels = []
    for key, short, direction in _MEASURES:
        seeds = [[run["scores"][key]["estimate"] for run in subject["sets"][a]] for a in arms]
        own = [float(np.mean([run["augmented"][key] for run in subject["sets"][a]])) for a in arms]
        real = subject["real"] if key == "inception_score" else subject["held_out"]
        value = real["scores"][key]["estimate"] if real else None
        heading = f"{short}[{network}] ({direction})"
        panels.append(dot_plots.Panel(heading, seeds, [_interval(s) for s in seeds], value, own))
    figure = dot_plots.dots_figure(
        [label(arm) for arm in arms], panels, line="real images", marks="training set itself"
    )
    plotting.save_figure(figure, path)


def curves(path: Path, subject: Mapping[str, Any], title: tuple[str, str]) -> None:
    """FID over the updates: mean over seeds, band from least to most."""
    groups = [(CONTROL, *arms) for arms in (SINGLE, MIXED, DOUBLED, (*SCHEMES, *PARTS))]
    present = [[arm for arm in group if arm in subject["sets"]] for group in groups]
    present = [arms for arms in present if set(arms) - {CONTROL}] or [list(subject["sets"])]
    columns = min(2, len(present))
    rows = -(-len(present) // columns)
    tall, wide = 2.3, (plotting.WIDTH - 0.75) / columns - 0.3
    figure = plotting.blank_figure(plotting.WIDTH, rows * (tall + 0.45) + 0.35)
    highest = max(p["fid"] for runs in subject["sets"].values() for r in runs for p in r["points"])
    for index, arms in enumerate(present):
        row, column = divmod(index, columns)
        left, bottom = 0.75 + column * (wide + 0.3), 0.5 + (rows - 1 - row) * (tall + 0.45)
        axes = plotting.place_axes(figure, left, bottom, wide, tall)
        for place, arm in enumerate(arms):
            _curve(axes, subject["sets"][arm], "fid", label(arm), place)
        points = subject["sets"][arms[0]][0]["points"]
        plotting.finish_axes(
            axes,
            xlabel=f"updates, {title[0]}" if row == rows - 1 else "",
            ylabel=f"FID[{title[1]}]" if column == 0 else "",
        )
        axes.set_ylim(0, 1.05 * highest)
        axes.set_xticks([point["updates"] for point in points])
        axes.legend(frameon=False, fontsize=plotting.SMALL, loc="upper right")
    plotting.save_figure(figure, path)


def _interval(values: Sequence[float]) -> dot_plots.Interval:
    """One seed has no interval."""
    if len(values) < 2:
        return dot_plots.Interval(float(values[0]))
    found = og.metrics.mean_interval(values)
    return dot_plots.Interval(*(float(x) for x in (found.estimate, found.low, found.high)))


def _curve(axes: Axes, runs: Sequence[Mapping[str, Any]], key: str, name: str, index: int) -> None:
    updates = [point["updates"] for point in runs[0]["points"]]
    values = np.array([[point[key] for point in run["points"]] for run in runs])
    color = plotting.GREY if index == 0 else plotting.CURVES[(index - 1) % len(plotting.CURVES)]
    dash = figures.DASHES[index % len(figures.DASHES)]
    axes.fill_between(updates, values.min(0), values.max(0), color=color, alpha=0.12, lw=0)
    axes.plot(updates, values.mean(0), color=color, ls=dash, marker=".", lw=1.4, label=name)


def _wrapped(arm: str) -> str:
    """The name of a set over several lines."""
    return label(arm).replace(" + ", " +\n").replace(": ", ":\n").replace(" × ", "\n× ")


def _row(images: np.ndarray) -> np.ndarray:
    """The first images as one row."""
    return images[None, :_SHOWN]
