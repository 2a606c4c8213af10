"""The tables of the page: what was measured, the check on CPU, memory, and times."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import alternation
from benchmarks.harness.workload import layers
from benchmarks.scale import model, scenarios

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
_MIB = 2**20

# Images of 32×32 pixels that og.synthesize takes at a time on an H200, where no size is given.
_BATCH = 8192


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds."""
    measured = results["measured"]
    parts = (_measured(measured), _check(results["check"]), _memory(results["memory"]))
    return "\n\n".join(alternation.table(rows) for rows in (*parts, _times(measured))) + "\n"


def _measured(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "image": f"{size}×{size}",
            "host, ms": f"{1e3 * measured['handing'][size]:.2f}",
            "host in a further call, ms": f"{1e3 * measured['calling']:.4f}",
            "writer, ms": f"{1e3 * writing['seconds']:.2f}",
            "bytes": f"{writing['bytes']:,.0f}",
            "images/s of a writer": f"{1 / writing['seconds']:,.0f}",
        }
        for size, writing in measured["writing"].items()
    ]


def _check(check: Mapping[str, Any]) -> list[dict[str, str]]:
    """S of an image: by the rate of SGD on a core, and as measured."""
    rows = []
    for target, found in check["targets"].items():
        predicted = found["steps"] * check["flops_of_step"] / check["flops_per_second"]
        rows.append(
            {
                "target": target,
                "steps, mean": f"{found['steps']:.1f}",
                "s, by the model": f"{predicted:.2f}",
                "s, measured": f"{found['seconds']:.2f}",
                "measured / model": f"{found['seconds'] / predicted:.2f}",
            }
        )
    return rows


def _memory(memory: Mapping[str, Any]) -> list[dict[str, str]]:
    factor = memory["temporary"] / (memory["images"] * kept(32))
    rows = []
    for size, batch in (("32", _BATCH), ("224", _BATCH * 32**2 // 224**2)):
        of_image = kept(int(size))
        rows.append(
            {
                "image": f"{size}×{size}",
                "kept for the gradient, MiB an image": f"{of_image / _MIB:,.2f}",
                "default batch": f"{batch:,}",
                "GiB, kept": f"{batch * of_image / 2**30:.1f}",
                f"GiB, times the {factor:.1f} of the CPU": f"{batch * factor * of_image / 2**30:.1f}",
            }
        )
    return rows


def kept(size: int) -> int:
    """Bytes that VGG16's forward pass keeps in an image of `size`²."""
    of_32 = [(k, side * size // 32) for block in layers(1.0) for _, k, side in block]
    return model.kept_for_backward(of_32)


def _times(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for scenario in scenarios.SCENARIOS:
        for accelerators in scenarios.ACCELERATORS:
            slow, fast = (
                model.times(
                    scenarios.work(scenario, measured),
                    scenarios.machine(scenario, accelerators, share),
                )
                for share in scenarios.SHARES
            )
            rows.append(
                {
                    "set": scenario.name,
                    "solver": f"{scenario.method}, {scenario.arithmetic}",
                    "accelerators": str(accelerators),
                    "devices, 30%": duration(slow.device),
                    "devices, 60%": duration(fast.device),
                    "of it link": duration(slow.link),
                    "host": duration(slow.host),
                    "writer": duration(slow.writer),
                    "disk": duration(slow.disk),
                    "slowest, 30%": slow.limit,
                    "slowest, 60%": fast.limit,
                }
            )
    return rows


def duration(seconds: float) -> str:
    """In the largest unit of which there is one.

    >>> duration(5400)
    '1.5 h'
    """
    for unit, length in _UNITS:
        if seconds >= length:
            return (
                f"{seconds / length:,.2g} {unit}"
                if seconds < 100 * length
                else f"{seconds / length:,.0f} {unit}"
            )
    return f"{seconds:.2g} s"
