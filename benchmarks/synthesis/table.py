"""The tables of the synthesis benchmark: a table per batch size, a row per side."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation
from benchmarks.harness.comparison import rows
from benchmarks.harness.workload import flops_per_update


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds: rates are from the median of the rounds."""
    flags = results["flags"]
    tables = []
    for size, found in results["batches"].items():
        flops = flops_per_update(flags["width"])
        shown = rows(
            found,
            int(size),
            rounds=flags["rounds"],
            flops=flops,
            peak_tflops=flags["peak_tflops"],
        )
        tables.append(f"Batch of {size}:\n\n{alternation.table(shown)}\n")
    return "\n".join(tables)
