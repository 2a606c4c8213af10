"""The table of the fine-tuning benchmark: ratios, agreement, failures."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation

OURS, PYTORCH = "outgen_jax", "PyTorch"
TOLERANCE = 0.02  # of the first loss: float32's rounding times α = 100 on the neurons near 0


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds."""
    return alternation.table(rows(results["arms"])) + "\n"


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the table shows of each arm; times are medians of the rounds."""
    middle = {
        (arm, name): statistics.median(side["seconds"])
        for arm, sides in found.items()
        for name, side in sides.items()
        if side["failure"] is None and side["seconds"]
    }
    shown = []
    for arm, sides in found.items():
        base = "plain, distorting" if arm.endswith("distorting") else "plain"
        ours, theirs = middle.get((arm, OURS)), middle.get((arm, PYTORCH))
        cells = {"arm": arm, "ms/update": _shown(ours, 1e3)}
        plain = middle.get((base, OURS))
        cells["× plain"] = f"{ours / plain:.2f}" if ours and plain else ""
        cells["PyTorch ms"] = _shown(theirs, 1e3)
        cells["× PyTorch's speed"] = f"{theirs / ours:.2f}" if ours and theirs else ""
        cells["first losses"] = agreement(sides)
        shown.append(cells)
    return shown


def agreement(sides: Mapping[str, Any]) -> str:
    """How far the first losses differ, or what failed."""
    if failures := [f"{name} {s['failure']}" for name, s in sides.items() if s["failure"]]:
        return "; ".join(failures)
    losses = [side["first_loss"] for side in sides.values()]
    if len(losses) < 2:
        return ""
    difference = abs(losses[0] - losses[1]) / abs(losses[0])
    return f"{'agree' if difference <= TOLERANCE else 'differ'} by {difference:.1g}"


def _shown(seconds: float | None, scale: float) -> str:
    return "" if seconds is None else f"{seconds * scale:,.1f}"
