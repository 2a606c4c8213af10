"""The table of the studio's benchmark: a row per tolerance."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.harness import alternation


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds."""
    rows = [row(tolerance, found) for tolerance, found in results["runs"].items()]
    return alternation.table(rows) + "\n"


def row(tolerance: str, found: list[Mapping[str, Any]]) -> dict[str, str]:
    """The runs of one tolerance."""
    processor = [run["processor_seconds"] for run in found]
    return {
        "tolerance": tolerance,
        "targets": str(len(found)),
        "reached": str(sum(run["reached"] for run in found)),
        "processor s, median": f"{np.median(processor):.2f}",
        "largest": f"{max(processor):.2f}",
        "s by the clock, median": f"{np.median([run['seconds'] for run in found]):.2f}",
        "steps, median": f"{np.median([run['steps'] for run in found]):.0f}",
    }
