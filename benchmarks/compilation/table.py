"""The table of the compilation benchmark: a row per state of the cache."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds."""
    rows = [
        {
            "compilation cache": name,
            "first call, processor s": f"{first:.1f}",
            "second call": f"{second:.1f}",
        }
        for name, (first, second) in results["processor_seconds"].items()
    ]
    return alternation.table(rows) + "\n"
