"""The tables of the campaign: peaks, steps, whole calls, and what was left out."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.accelerator import roofline
from benchmarks.harness import alternation

_MIB = 2**20


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds; rates are from the median of the rounds."""
    parts = results["parts"]
    tables = [
        [
            _peak(name, part)
            for name, part in parts.items()
            if name.startswith(("product", "stream"))
        ],
        [_step(name, part, parts) for name, part in parts.items() if "compile_seconds" in part],
        [_call(name, part) for name, part in parts.items() if "steps" in part],
        [{"left out": name, "why": why} for name, why in results["left_out"].items()],
    ]
    return "\n\n".join(alternation.table(rows) for rows in tables if rows) + "\n"


def peaks(parts: Mapping[str, Any], arithmetic: str) -> dict[str, float] | None:
    """`peak` and `bandwidth` of an arithmetic, from the fastest rounds; None where they were not measured."""
    product, stream = parts.get(f"product_{arithmetic}"), parts.get("stream")
    if product is None or stream is None:
        return None
    return {
        "peak": product["flops"] / min(product["seconds"]),
        "bandwidth": stream["bytes"] / min(stream["seconds"]),
    }


def arithmetic_of(name: str) -> str:
    """The arithmetic that ends the name of a part."""
    return name.rsplit("_", 1)[1]


def _peak(name: str, part: Mapping[str, Any]) -> dict[str, str]:
    seconds = min(part["seconds"])
    rate = f"{part['flops'] / seconds / 1e12:,.3g}" if "flops" in part else ""
    moved = f"{part['bytes'] / seconds / 1e9:,.3g}" if "bytes" in part else ""
    return {"peak": name.replace("_", ", "), "TFLOP/s": rate, "GB/s": moved}


def _step(name: str, part: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    seconds, measured = statistics.median(part["seconds"]), peaks(parts, arithmetic_of(name))
    of_peak = of_roofline = ""
    if measured is not None:
        of_peak = f"{part['flops'] / seconds / measured['peak']:.1%}"
        of_roofline = f"{roofline.share(seconds, part['flops'], part['bytes'], **measured):.1%}"
    return {
        "step": name.replace("_", ", "),
        "image-steps/s": f"{part['images'] / seconds:,.0f}",
        "ms": f"{1e3 * seconds:,.2f}",
        "TFLOP/s": f"{part['flops'] / seconds / 1e12:,.3g}",
        "of the peak": of_peak,
        "of the roofline": of_roofline,
        "FLOP/byte": f"{roofline.intensity(part['flops'], part['bytes']):,.0f}",
        "temporary MiB": f"{part['temporary'] / _MIB:,.0f}",
        "compile s": f"{part['compile_seconds']:.1f}",
    }


def _call(name: str, part: Mapping[str, Any]) -> dict[str, str]:
    return {
        "call": name.replace("_", ", "),
        "images": f"{part['images']:,}",
        "images/s": f"{part['images'] / part['seconds']:,.3g}",
        "s": f"{part['seconds']:,.3g}",
        "steps of an image": f"{part['steps'] / part['images']:,.1f}",
        "TFLOP/s": f"{part['flops'] / part['seconds'] / 1e12:,.3g}",
        "converged": f"{part['converged']:.1%}" if "converged" in part else "",
        "distance, median": f"{part['distance']:.2g}" if "distance" in part else "",
    }
