"""The tables of the ablation, from its results."""

from typing import Any

import numpy as np

from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import report
from outgen_jax.metrics import statistics

REFERENCE = "all parts"  # the variant that the others are compared with


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`, as results.json has them: one for each solver, kind of target and tolerance."""
    return "\n".join(
        _one_table(f"{solver}: {kind}, {float(tolerance):g}", variants)
        for solver, by_kind in results["found"].items()
        for kind, by_tolerance in by_kind.items()
        for tolerance, variants in by_tolerance.items()
    )


def _one_table(title: str, variants: dict[str, Any]) -> str:
    rows = []
    reference = variants[REFERENCE]
    for name, numbers in variants.items():
        within, l2, steps = (np.array(numbers[key]) for key in ("within", "l2", "steps"))
        rows.append(
            [
                *(name, str(len(within)), f"{within.mean():.1%}"),
                *(f"{np.percentile(steps, q):.0f}" for q in (50, 95)),
                *percentiles(l2[within], 50, 95),
                "1" if name == REFERENCE else _ratio(numbers, reference),
                f"{numbers['seconds'] / len(within):.2f}",
            ]
        )
    headings = (
        *(title, "images", "within"),
        *percentile_headings("steps", 50, 95),
        *percentile_headings("L2", 50, 95),
        *("L2, over that of all parts", "s per image"),
    )
    return report.markdown_table(headings, rows)


def _ratio(numbers: dict[str, Any], reference: dict[str, Any]) -> str:
    """The geometric mean of the ratio of L2 to that of the reference, with its 95 % interval over images."""
    ours, theirs = np.array(numbers["l2"]), np.array(reference["l2"])
    both = np.array(numbers["within"]) & np.array(reference["within"])
    if both.sum() < 2:
        return "-"
    found = statistics.mean_interval(np.log(ours[both] / theirs[both]))
    mean, low, high = np.exp([found.estimate, found.low, found.high])
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"
