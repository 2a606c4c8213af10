"""Accuracy by pairs of seeds: which differences the runs exclude, and how many runs paper A's gain would need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outgen_jax import report
from outgen_jax.metrics import power, statistics

PAPER_GAIN = 0.00084  # Table A1: 92.560 % with 30 % replaced, 92.476 % with none
_HEADINGS = (
    "arm",
    "minus",
    "pairs",
    "accuracy, points",
    "95% interval",
    "p",
    "excluded outside of",
    "deviation of a pair",
    "pairs for the paper's gain",
)


def differences(jobs: Sequence[Mapping[str, Any]], arm: str, baseline: str) -> np.ndarray:
    """Accuracy of an arm minus that of another, [n] over the seeds that both have."""
    accuracy = {(job["arm"], job["seed"]): job["measures"]["accuracy"] for job in jobs}
    seeds = sorted(seed for name, seed in accuracy if name == arm and (baseline, seed) in accuracy)
    return np.array([accuracy[arm, seed] - accuracy[baseline, seed] for seed in seeds])


def table(jobs: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> str:
    """Markdown: a row for each pair of arms with two seeds or more in common, in points of accuracy.

    Two one-sided tests (Schuirmann 1987), each at 5 %, exclude true differences outside of the 90 % interval. The last
    column has the pairs with which a paired t-test at 5 % finds paper A's gain with a probability of 80 %.
    """
    rows = []
    for arm, baseline in pairs:
        found = 100 * differences(jobs, arm, baseline)
        if len(found) < 2:
            continue
        nothing = np.zeros_like(found)
        test = statistics.paired_t_test(found, nothing)
        excluded = statistics.paired_t_test(found, nothing, confidence=0.9)
        deviation = float(found.std(ddof=1))
        needed = power.pairs_needed(100 * PAPER_GAIN, deviation) if deviation else 2
        rows.append(
            [
                arm,
                baseline,
                str(len(found)),
                f"{test.difference:+.2f}",
                _span(test),
                f"{test.p_value:.2g}",
                _span(excluded),
                f"{deviation:.2f}",
                f"{needed:,}",
            ]
        )
    return report.markdown_table(_HEADINGS, rows) if rows else ""


def _span(test: statistics.PairedTTest) -> str:
    return f"{test.low:+.2f} to {test.high:+.2f}"
