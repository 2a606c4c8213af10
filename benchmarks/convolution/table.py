"""The table of the convolution benchmark: a row per layer and operation."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds: times are medians of the rounds."""
    names = (name.rsplit(": ", 1) for name in results["seconds"])
    found = results["seconds"].values()
    rows = (row(layer, operation, f) for (layer, operation), f in zip(names, found, strict=True))
    return alternation.table(rows) + "\n"


def row(layer: str, operation: str, found: Mapping[str, Any]) -> dict[str, str]:
    medians = {
        side: statistics.median(value) if isinstance(value, list) else None
        for side, value in found.items()
    }
    ours = medians["outgen_jax"]
    cells = {"layer": layer, "operation": operation}
    for side, median in medians.items():
        cells[f"{side} ms"] = found[side] if median is None else f"{1e3 * median:.3g}"
    for side in ("jax.lax", "PyTorch"):
        other = medians[side]
        cells[f"{side} / ours"] = "" if ours is None or other is None else f"{other / ours:.2f}"
    return cells
