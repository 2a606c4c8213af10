"""The tables of the networks' benchmark: against PyTorch's best mode, the goals, and all sides."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.harness import alternation
from benchmarks.harness.comparison import PYTORCH_MODES, REFERENCE, rows
from benchmarks.networks.workload import EFFICIENTNET, NETWORKS, RESNET20, VGG16

Sides = Mapping[str, Mapping[str, Any]]  # what `comparison.measure` returns


class Goal(NamedTuple):
    """The speed of a side, as a multiple of another's; None: of PyTorch's best mode."""

    network: str
    side: str
    other: str | None
    least: float


GOALS = (
    Goal(VGG16, "flax.nnx", REFERENCE, 0.9),
    Goal(VGG16, "Equinox", REFERENCE, 0.9),
    Goal(RESNET20, REFERENCE, None, 1.0),
    Goal(EFFICIENTNET, REFERENCE, None, 2.0),
)
MOST_DIFFERENCE = 1e-4  # of a pixel, between an image alone and in a batch


def table(results: Mapping[str, Any]) -> str:
    """Markdown of what `results.json` holds; what has not been measured has no row."""
    cases, rounds = results["cases"].values(), results["flags"]["rounds"]
    speeds = [row for case in cases for row in _speeds(case)]
    goals = [row for goal in GOALS for case in cases for row in _goal(goal, case)]
    if results["alone"] is not None:
        goals.append(_alone(results["alone"]))
    parts = [alternation.table(shown) for shown in (speeds, goals) if shown]
    for case in cases:
        shown = alternation.table(rows(case["sides"], case["batch_size"], rounds=rounds))
        parts.append(f"{_title(case)}:\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def best_mode(sides: Sides) -> str | None:
    """The PyTorch side with the lowest median, among those that took all turns."""
    medians = {
        name: statistics.median(sides[name]["seconds_per_update"])
        for name in PYTORCH_MODES
        if name in sides and _timed(sides[name])
    }
    return min(medians, key=lambda name: medians[name], default=None)


def ratios(sides: Sides, side: str, other: str | None) -> list[float]:
    """The speed of a side as a multiple of another's, round by round; empty where one has failed."""
    if other is None or not _timed(sides[side]) or not _timed(sides[other]):
        return []
    theirs, ours = (sides[name]["seconds_per_update"] for name in (other, side))
    return [b / a for a, b in zip(ours, theirs, strict=True)]


def _timed(side: Mapping[str, Any]) -> bool:
    return side["failure"] is None and bool(side["seconds_per_update"])


def _speeds(case: Mapping[str, Any]) -> list[dict[str, str]]:
    sides = case["sides"]
    best, shown = best_mode(sides), []
    for name, written_in in NETWORKS[case["network"]].written.items():
        multiples = ratios(sides, name, best)
        shown.append(
            {
                "network": f"{NETWORKS[case['network']].name}, {written_in}",
                "batch": str(case["batch_size"]),
                "image-updates/s": sides[name]["failure"] or _rate(case, name),
                "× PyTorch's best": _median(multiples),
                "over the rounds": _range(multiples),
                "PyTorch's image-updates/s": "" if best is None else _rate(case, best),
                "PyTorch's best mode": "none" if best is None else best.removeprefix("PyTorch "),
            }
        )
    return shown


def _goal(goal: Goal, case: Mapping[str, Any]) -> list[dict[str, str]]:
    if case["network"] != goal.network:
        return []
    other = best_mode(case["sides"]) if goal.other is None else goal.other
    found = ratios(case["sides"], goal.side, other)
    written_in = NETWORKS[goal.network].written[goal.side]
    than = "PyTorch's best" if goal.other is None else "the package's VGG16"
    return [
        {
            "goal": f"{_title(case)}, {written_in}, × {than}",
            "wanted": f"≥ {goal.least}",
            "found": _median(found) or "failed",
            "over the rounds": _range(found),
            "reached": _yes(bool(found) and statistics.median(found) >= goal.least),
        }
    ]


def _alone(alone: Mapping[str, Any]) -> dict[str, str]:
    network, found = NETWORKS[RESNET20].name, alone["differences"]
    return {
        "goal": f"{network}, largest difference of a pixel: {len(found)} images alone, and in a batch of "
        f"{alone['batch_size']}, after {alone['updates']} updates",
        "wanted": f"≤ {MOST_DIFFERENCE:.0e}",
        "found": f"{max(found):.1e}",
        "over the rounds": "",
        "reached": _yes(max(found) <= MOST_DIFFERENCE),
    }


def _title(case: Mapping[str, Any]) -> str:
    return f"{NETWORKS[case['network']].name}, batch of {case['batch_size']}"


def _rate(case: Mapping[str, Any], side: str) -> str:
    seconds = statistics.median(case["sides"][side]["seconds_per_update"])
    return f"{case['batch_size'] / seconds:,.1f}"


def _median(multiples: Sequence[float]) -> str:
    return f"{statistics.median(multiples):.2f}" if multiples else ""


def _range(multiples: Sequence[float]) -> str:
    return f"{min(multiples):.2f} to {max(multiples):.2f}" if multiples else ""


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
