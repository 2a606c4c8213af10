"""The roofline, with a mark for every step that was measured."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.accelerator import roofline
from benchmarks.accelerator.parts import ARITHMETICS
from benchmarks.accelerator.table import arithmetic_of, peaks
from outgen_jax.report import plotting

_HEIGHT, _LEFT, _BELOW, _RIGHT, _HEAD = 3.6, 0.8, 0.9, 0.3, 0.3  # inches


def figure(results: Mapping[str, Any]) -> Figure | None:
    """A roof and marks of each arithmetic; None where no peak was measured."""
    parts = results["parts"]
    colours = dict(zip(ARITHMETICS, plotting.CURVES, strict=False))
    roofs = {a: found for a in ARITHMETICS if (found := peaks(parts, a)) is not None}
    if not roofs:
        return None
    drawn = plotting.blank_figure(plotting.WIDTH, _HEIGHT)
    size = plotting.WIDTH - _LEFT - _RIGHT, _HEIGHT - _BELOW - _HEAD
    axes = plotting.place_axes(drawn, _LEFT, _BELOW, *size)
    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = {name: part for name, part in parts.items() if "compile_seconds" in part}
    found = {name: roofline.intensity(p["flops"], p["bytes"]) for name, p in steps.items()}
    ridges = [roof["peak"] / roof["bandwidth"] for roof in roofs.values()]
    ends = np.array([min([*ridges, *found.values()]) / 4, max([*ridges, *found.values()]) * 4])
    handles = []
    for arithmetic, roof in roofs.items():
        x = np.sort([*ends, roof["peak"] / roof["bandwidth"]])
        y = [roofline.attainable(i, 1, **roof) / 1e12 for i in x]
        handles += axes.plot(x, y, color=colours[arithmetic], label=f"roof, {arithmetic}")
    for name, part in steps.items():
        rate = part["flops"] / statistics.median(part["seconds"]) / 1e12
        axes.plot(found[name], rate, "o", color=colours[arithmetic_of(name)])
        axes.annotate(
            name.replace("_", ", "),
            (found[name], rate),
            (6, -3),
            textcoords="offset points",
            fontsize=plotting.SMALL,
        )
    plotting.finish_axes(axes, xlabel="FLOP for each byte", ylabel="TFLOP/s", grid="both")
    plotting.draw_key(drawn, handles)
    return drawn
