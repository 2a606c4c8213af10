"""Figures B5 to B12 of paper B for every subject, scores over the updates, and the worst single images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

import outgen_jax as og
from experiments.augmented_gan.presets import CONTROL, DOUBLED, MIXED, PARTS, SCHEMES, SINGLE
from outgen_jax.report import figures, image_grids, plotting

_WORST, _SHOWN = 4, 12  # images of a set
_SIDE = 0.6  # inches of an image in a grid, drawn pixel by pixel
_LEGIBLE = 100  # dots per inch that the names need
_MEASURES = (
    ("inception_score", "IS", 1),
    ("fid", "FID", 0),
)  # score, its short name, its least value
_LABELS = {"flip_left_right": "flip left-right", "flip_up_down": "flip up-down"}


class Group(NamedTuple):
    """The sets of one figure, and the numbers of the paper's figures for its two subjects."""

    name: str
    arms: tuple[str, ...]
    samples: tuple[str, str]
    bars: tuple[str, str]


GROUPS = (
    Group("single", (CONTROL, *SINGLE), ("fig_b5", "fig_b9"), ("fig_b6", "fig_b10")),
    Group("mixed", (CONTROL, *MIXED, *DOUBLED), ("fig_b7", "fig_b11"), ("fig_b8", "fig_b12")),
    Group("discriminator", (CONTROL, *SCHEMES, *PARTS), ("samples",) * 2, ("bars",) * 2),
)


def label(arm: str) -> str:
    """A set's name in words, over several lines."""
    kinds, _, multiple = arm.partition("@")
    lines = [_LABELS.get(kind, kind) for kind in kinds.split("+")]
    return " +\n".join(lines).replace("=", ":\n") + (f"\n× {multiple}" if multiple else "")


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
        for group in GROUPS:
            arms = [arm for arm in group.arms if arm in subject["sets"]]
            if not set(arms) - {CONTROL}:
                continue
            ending = f"_{name}.png" if "fig" in group.bars[0] else f"_{group.name}_{name}.png"
            at = min(index, 1)
            bars(directory / f"{group.bars[at]}{ending}", subject, arms, title)
            sample_grids(
                directory / f"{group.samples[at]}{ending}", originals[name], samples[name], arms
            )
            worst(directory / f"worst_{group.name}_{name}.png", subject, samples[name], arms)


def sample_grids(
    path: Path, originals: np.ndarray, samples: Mapping[str, np.ndarray], arms: Sequence[str]
) -> None:
    """Figs B5, B7, B9 and B11: images of every GAN of the group, under originals."""
    panels = {f"{len(originals):,} originals": _grid(originals)}
    panels |= {label(arm): _grid(samples[arm]) for arm in arms}
    figure = image_grids.grids_figure(panels, inches=_SIDE)
    plotting.save_figure(figure, path, dpi=max(_LEGIBLE, round(originals.shape[1] / _SIDE)))


def bars(
    path: Path, subject: Mapping[str, Any], arms: Sequence[str], title: tuple[str, str]
) -> None:
    """Figs B6, B8, B10 and B12: scores of every GAN, and of the set that it was trained on."""
    width = 1.2 + 0.75 * len(arms)
    figure = plotting.blank_figure(2 * width + 0.6, 3.5)
    for column, (key, short, least) in enumerate(_MEASURES):
        axes = plotting.place_axes(figure, 0.75 + column * (width + 0.3), 0.7, width - 0.6, 2.2)
        for x, arm in enumerate(arms):
            runs = subject["sets"][arm]
            _bar(axes, x, [run["scores"][key]["estimate"] for run in runs], first=x == 0)
            own = float(np.mean([run["augmented"][key] for run in runs]))
            axes.plot(
                x, own, "D", color=plotting.VERMILION, ms=5, label=_once("set itself", x), zorder=4
            )
        real = subject["real"] if key == "inception_score" else subject["held_out"]
        if real:
            what = "originals" if key == "inception_score" else "other real images"
            value = real["scores"][key]["estimate"]
            axes.axhline(value, color=plotting.INK, lw=1, ls="--", label=what)
        axes.set_xticks(range(len(arms)), [label(arm) for arm in arms], fontsize=7.5)
        number = subject["sets"][arms[0]][0]["scores"]["images"]
        axes.set_ylim(bottom=least)
        _finish(axes, f"{short}[{title[1]}]")
        axes.set_title(
            f"{short} of {number:,} images, {title[0]}", fontsize=9, color=plotting.INK, pad=18
        )
        axes.legend(
            frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 0.98)
        )
    plotting.save_figure(figure, path)


def curves(path: Path, subject: Mapping[str, Any], title: tuple[str, str]) -> None:
    """Scores over the updates: mean over seeds, band from least to most."""
    groups = [
        (CONTROL, *SINGLE),
        (CONTROL, *MIXED),
        (CONTROL, *DOUBLED),
        (CONTROL, *SCHEMES, *PARTS),
    ]
    present = [[arm for arm in group if arm in subject["sets"]] for group in groups]
    present = [arms for arms in present if set(arms) - {CONTROL}] or [list(subject["sets"])]
    figure = plotting.blank_figure(1.0 + 2.6 * len(present), 5.6)
    for row, (key, short, _) in enumerate(_MEASURES):
        shared = None
        for column, arms in enumerate(present):
            left, bottom = 0.95 + 2.6 * column, 2.65 - 2.15 * row
            axes = plotting.place_axes(figure, left, bottom, 2.15, 1.8)
            for index, arm in enumerate(arms):
                _curve(axes, subject["sets"][arm], key, label(arm).replace("\n", " "), index)
            if shared is not None:
                axes.sharey(shared)
            shared = axes
            points = subject["sets"][arms[0]][0]["points"]
            name = f"{short}[{title[1]}]\nof {points[0]['images']:,} images\n{title[0]}"
            _finish(axes, name if column == 0 else "")
            axes.set_xlabel("updates" if row == 1 else "", fontsize=9, color=plotting.INK)
            axes.set_xticks([point["updates"] for point in points])
            if row == 0:
                axes.legend(
                    frameon=False, fontsize=6.5, loc="lower left", bbox_to_anchor=(-0.05, 1.0)
                )
    plotting.save_figure(figure, path)


def worst(
    path: Path, subject: Mapping[str, Any], samples: Mapping[str, np.ndarray], arms: Sequence[str]
) -> None:
    """The images whose classes are least like those of the originals, with their top classes."""
    columns, captions = {}, {}
    for arm in arms:
        listed = subject["sets"][arm][0]["worst"][:_WORST]
        name = label(arm).replace("\n", " ")
        columns[name] = samples[arm][[entry["image"] for entry in listed]]
        captions[name] = [_caption(entry) for entry in listed]
    rows = [f"{subject['originals']:,} originals", *[""] * (len(listed) - 1)]
    plotting.save_figure(
        figures.image_grid_figure(columns, row_labels=rows, captions=captions), path
    )


def _caption(entry: Mapping[str, Any]) -> str:
    name, probability = entry["classes"][0], entry["probs"][0]
    return f"{name if len(name) < 17 else name[:15] + '…'} {probability:.2f}"


def _bar(axes: Axes, x: int, values: Sequence[float], *, first: bool) -> None:
    axes.bar(x, np.mean(values), 0.62, color=plotting.GREY if first else plotting.SKY, zorder=2)
    if len(values) > 1:
        mean, low, high = og.metrics.mean_interval(values)
        ends = [[mean - low], [high - mean]]
        axes.errorbar(x, mean, ends, color=plotting.INK, lw=1, capsize=3, zorder=3)
    axes.plot(
        [x] * len(values), values, ".", color=plotting.INK, ms=4, label=_once("seeds", x), zorder=3
    )


def _once(text: str, x: int) -> str:
    return text if x == 0 else "_nolegend_"


def _curve(axes: Axes, runs: Sequence[Mapping[str, Any]], key: str, name: str, index: int) -> None:
    updates = [point["updates"] for point in runs[0]["points"]]
    values = np.array([[point[key] for point in run["points"]] for run in runs])
    color = plotting.GREY if index == 0 else plotting.CURVES[(index - 1) % len(plotting.CURVES)]
    dash = figures.DASHES[index % len(figures.DASHES)]
    axes.fill_between(updates, values.min(0), values.max(0), color=color, alpha=0.12, lw=0)
    axes.plot(updates, values.mean(0), color=color, ls=dash, marker=".", lw=1.4, label=name)


def _finish(axes: Axes, ylabel: str) -> None:
    axes.set_ylabel(ylabel, fontsize=8.5, color=plotting.INK)
    axes.grid(axis="y", color=plotting.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7.5, color=plotting.GREY, labelcolor=plotting.INK)


def _grid(images: np.ndarray) -> np.ndarray:
    """The first images as two rows."""
    columns = min(_SHOWN, len(images) // 2)
    return images[: 2 * columns].reshape(2, columns, *images.shape[1:])
