"""The table of the resampling benchmark: a row per layer and form."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds: times are medians of the rounds."""
    layers = results["seconds"].items()
    return alternation.table([row for name, forms in layers for row in rows(name, forms)]) + "\n"


def rows(layer: str, seconds: Mapping[str, list[float]]) -> list[dict[str, str]]:
    """The forms of a layer, with their times over those of the form that `dcgan` uses."""
    ours = statistics.median(next(iter(seconds.values())))
    return [
        {
            "layer": layer,
            "form": name,
            "ms": f"{1e3 * statistics.median(values):.1f}",
            "fastest": f"{1e3 * min(values):.1f}",
            "slowest": f"{1e3 * max(values):.1f}",
            "/ dcgan's": f"{statistics.median(values) / ours:.2f}",
        }
        for name, values in seconds.items()
    ]
