"""The tables of the training benchmark: a table per batch size, a row per side."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation
from benchmarks.harness.comparison import rows
from benchmarks.training.sides import flops_per_image


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds: rates are from the median of the rounds."""
    flags = results["flags"]
    tables = []
    for size, found in results["batches"].items():
        shown = rows(
            found,
            int(size),
            rounds=flags["rounds"],
            rate="images/s",
            flops=flops_per_image(flags["width"]),
            peak_tflops=flags["peak_tflops"],
        )
        tables.append(f"Batch of {size}:\n\n{alternation.table(shown)}\n")
    return "\n".join(tables)
