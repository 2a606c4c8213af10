"""The table of the attention GAN's benchmark."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.draw_gan.sides import Workload, flops_per_update
from benchmarks.harness import alternation


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds: times are medians of the rounds."""
    flags = results["flags"]
    workload = Workload(batch_size=flags["batch_size"], units=flags["units"])
    return alternation.table(rows(results["sides"], flops_per_update(workload))) + "\n"


def rows(found: Mapping[str, Mapping[str, Any]], flops: float) -> list[dict[str, str]]:
    medians = {
        name: statistics.median(side["seconds_per_update"])
        for name, side in found.items()
        if side["failure"] is None
    }
    shown = []
    for name, side in found.items():
        cells = {"side": name, "updates/s": side["failure"] or "", "ms/update": "", "GFLOP/s": ""}
        cells |= {"× PyTorch": "", "compile s": "", "relative difference": ""}
        if name in medians:
            seconds, other = medians[name], medians.get("PyTorch eager")
            cells |= {
                "updates/s": f"{1 / seconds:,.1f}",
                "ms/update": f"{1e3 * seconds:,.2f}",
                "GFLOP/s": f"{flops / seconds / 1e9:,.0f}",
                "× PyTorch": f"{other / seconds:.2f}" if other else "",
                "compile s": f"{side['compile_seconds']:.1f}",
                "relative difference": f"{side['difference']:.1g}",
            }
        shown.append(cells)
    return shown
