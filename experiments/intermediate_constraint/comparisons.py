"""The statistics of paper D's study: choice of λ, paired comparisons of arms, verdict on the paper's order.

Over seeds, p-values are corrected for their number (Holm) in two families: the paper's three arms on clean, noisy and
blurred images after fine-tuning on both, and everything else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common.cells import label
from experiments.intermediate_constraint.study import MSE, PLAIN, PROPOSED, Condition, Job
from outgen_jax import report
from outgen_jax.metrics import holm, statistics

GROUPS = ("clean", "noise", "blur")
PAIRS = ((PROPOSED, PLAIN), (MSE, PLAIN), (PROPOSED, MSE))  # of the paper's arms
LEVEL_SEEDS, LEVEL_IMAGES = 0.05, 0.01  # of significance; the first of corrected p-values

Found = Mapping[Job, Mapping[str, Any]]


class OverSeeds(NamedTuple):
    """Two arms' accuracies in equal seeds: mean difference, Student's 95 % interval, paired t-test."""

    difference: float
    low: float
    high: float
    p_seeds: float | None  # None where there is one seed


class Comparison(NamedTuple):
    """Two arms on one group of conditions, over seeds and over images."""

    a: str
    b: str
    kind: str
    group: str
    difference: float  # of accuracies, a − b, mean over seeds
    low: float  # Student's interval over seeds, 95 %
    high: float
    p_seeds: float | None  # paired t-test over seeds; None where there is one
    p_images: float  # McNemar's test of the images that most seeds and levels get right
    p_corrected: float | None = None  # p_seeds, for the number of tests of its family

    @property
    def primary(self) -> bool:
        """Whether it is one of the paper's own."""
        return self.kind == "both" and (self.a, self.b) in PAIRS and self.group in GROUPS


def corrected(tests: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their p-values over seeds corrected within the two families."""
    found = list(tests)
    for primary in (True, False):
        rows = [i for i, c in enumerate(found) if c.primary == primary and c.p_seeds is not None]
        for row, p in zip(rows, holm([found[i].p_seeds for i in rows]), strict=True):
            found[row] = found[row]._replace(p_corrected=float(p))
    return found


def group_accuracy(correct: np.ndarray, table: Sequence[Condition], group: str) -> float:
    """Mean over the group's levels, as Table D1 has it; correct [conditions, N]."""
    return float(correct[[c.group == group for c in table][: len(correct)]].mean())


def chosen_weights(found: Found, table: Sequence[Condition]) -> dict[str, tuple[float, float]]:
    """Variant -> (λ, score) of the highest validation accuracy, the mean of clean, noise and blur."""
    best: dict[str, tuple[float, float]] = {}
    for job, result in found.items():
        if job.stage == "grid":
            score = validation_score(result, table)
            if job.variant not in best or score > best[job.variant][1]:
                best[job.variant] = (job.weight, score)
    return best


def validation_score(result: Mapping[str, Any], table: Sequence[Condition]) -> float:
    """The mean of the accuracies on clean, noisy and blurred images."""
    return float(np.mean([group_accuracy(result["correct"], table, g) for g in GROUPS]))


def seeds_of(found: Found, variant: str, kind: str) -> list[Mapping[str, Any]]:
    """The results of an arm, by seed."""
    jobs = [j for j in found if (j.stage, j.variant, j.kind) == ("final", variant, kind)]
    return [found[j] for j in sorted(jobs, key=lambda job: job.seed)]


def over_seeds(ours: Sequence[float], theirs: Sequence[float]) -> OverSeeds:
    """Accuracies of two arms, seed by seed -> their difference."""
    if len(ours) < 2:
        difference = ours[0] - theirs[0]
        return OverSeeds(difference, difference, difference, None)
    found = statistics.paired_t_test(ours, theirs)
    return OverSeeds(found.difference, found.low, found.high, found.p_value)


def compare(
    found: Found, a: str, b: str, kind: str, table: Sequence[Condition], group: str
) -> Comparison | None:
    """The comparison of two arms; None unless both have the same number of seeds."""
    ours, theirs = (seeds_of(found, name, kind) for name in (a, b))
    if a == b or len(ours) != len(theirs) or not ours:
        return None
    accuracies = (
        [group_accuracy(r["correct"], table, group) for r in side] for side in (ours, theirs)
    )
    chosen = [c.group == group for c in table]
    # One verdict per image: pooled over seeds and levels, images would count many times.
    mostly = [
        np.mean([r["correct"][chosen] for r in side], axis=(0, 1)) > 0.5 for side in (ours, theirs)
    ]
    p_images = statistics.mcnemar(*mostly).p_value
    return Comparison(a, b, kind, group, *over_seeds(*accuracies), p_images)


def comparisons(found: Found, table: Sequence[Condition]) -> list[Comparison]:
    """Everything against plain, and the constraints against MSE."""
    done = dict.fromkeys((j.variant, j.kind) for j in found if j.stage == "final")
    pairs = [(name, PLAIN, kind) for name, kind in done if name != PLAIN]
    pairs += [(name, MSE, kind) for name, kind in done if name not in (PLAIN, MSE)]
    groups = list(dict.fromkeys(c.group for c in table))
    tried = (compare(found, a, b, kind, table, g) for a, b, kind in pairs for g in groups)
    return [c for c in tried if c is not None]


def verdict(tests: Iterable[Comparison], names: Iterable[str]) -> str:
    """A table: whether the paper's order holds, and whether any variant beats plain; of `corrected` tests."""
    both = {(c.a, c.b, c.group): c for c in tests if c.kind == "both"}
    rows = [
        [f"{label(a)} > {label(b)}", *(_stands(both.get((a, b, g))) for g in GROUPS)]
        for a, b in PAIRS
    ]
    better = [label(n) for n in names if n != PLAIN and _beats_plain(both, n)]
    claim = "better than plain on noise and blur, with no significant loss of clean accuracy"
    rows.append([claim, ", ".join(better) or "none of those tried", *[""] * (len(GROUPS) - 1)])
    return report.markdown_table(("the paper's order", *GROUPS), rows)


def _stands(c: Comparison | None) -> str:
    if c is None or c.p_corrected is None:
        return "not tested"
    if c.p_corrected < LEVEL_SEEDS and c.p_images < LEVEL_IMAGES:
        return "confirmed" if c.difference > 0 else "refuted"
    return "open"


def _beats_plain(both: Mapping[tuple[str, str, str], Comparison], name: str) -> bool:
    clean = both.get((name, PLAIN, "clean"))
    gains = [_stands(both.get((name, PLAIN, g))) == "confirmed" for g in ("noise", "blur")]
    return all(gains) and clean is not None and clean.high >= 0
