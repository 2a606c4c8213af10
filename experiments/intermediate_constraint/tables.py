"""What the study of paper D says: choice of λ, Table D1 with intervals, paired tests, and the verdict."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.intermediate_constraint.study import MAIN, MSE, PLAIN, PROPOSED, Condition, Job
from outgen_jax import report
from outgen_jax.metrics import statistics

PAPER = {
    PLAIN: (0.6744, 0.5660, 0.5073),
    MSE: (0.6713, 0.5740, 0.5119),
    PROPOSED: (0.6769, 0.5769, 0.5129),
}
GROUPS = ("clean", "noise", "blur")
LEVEL = 0.01  # of significance

Found = Mapping[Job, Mapping[str, Any]]


class Comparison(NamedTuple):
    """Two arms on one group of conditions, over seeds and over images."""

    a: str
    b: str
    kind: str
    group: str
    difference: float  # of accuracies, a − b, mean over seeds
    low: float  # bootstrap over seeds, 95 %
    high: float
    p_seeds: float | None  # paired t-test over seeds; None where there is one
    p_images: float  # McNemar's test of the images that most seeds and levels get right


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
    return float(np.mean([group_accuracy(result["correct"], table, g) for g in GROUPS]))


def seeds_of(found: Found, variant: str, kind: str) -> list[Mapping[str, Any]]:
    jobs = [j for j in found if (j.stage, j.variant, j.kind) == ("final", variant, kind)]
    return [found[j] for j in sorted(jobs, key=lambda job: job.seed)]


def compare(
    found: Found, a: str, b: str, kind: str, table: Sequence[Condition], group: str
) -> Comparison | None:
    """None unless both have the same seeds."""
    ours, theirs = (seeds_of(found, name, kind) for name in (a, b))
    if a == b or len(ours) != len(theirs) or not ours:
        return None
    accuracy = [
        np.array([group_accuracy(r["correct"], table, group) for r in side])
        for side in (ours, theirs)
    ]
    difference = accuracy[0] - accuracy[1]
    mean = float(difference.mean())
    low, high, p_seeds = mean, mean, None
    if len(ours) > 1:
        _, low, high = statistics.bootstrap_interval(np.mean, difference)
        p_seeds = statistics.paired_t_test(*accuracy).p_value
    chosen = [c.group == group for c in table]
    # One verdict per image: pooled over seeds and levels, images would count many times.
    mostly = [
        np.mean([r["correct"][chosen] for r in side], axis=(0, 1)) > 0.5 for side in (ours, theirs)
    ]
    return Comparison(
        a,
        b,
        kind,
        group,
        mean,
        float(low),
        float(high),
        p_seeds,
        statistics.mcnemar(*mostly).p_value,
    )


def comparisons(found: Found, table: Sequence[Condition]) -> list[Comparison]:
    """Everything against plain, and the constraints against MSE."""
    done = dict.fromkeys((j.variant, j.kind) for j in found if j.stage == "final")
    pairs = [(name, PLAIN, kind) for name, kind in done if name != PLAIN]
    pairs += [(name, MSE, kind) for name, kind in done if name not in (PLAIN, MSE)]
    groups = list(dict.fromkeys(c.group for c in table))
    tried = (compare(found, a, b, kind, table, g) for a, b, kind in pairs for g in groups)
    return [c for c in tried if c is not None]


def verdict(tests: Iterable[Comparison], names: Iterable[str]) -> str:
    """Whether the paper's order holds, and whether any variant beats plain fine-tuning."""
    both = {(c.a, c.b, c.group): c for c in tests if c.kind == "both"}
    pairs = [(PROPOSED, MSE), (MSE, PLAIN)]
    parts = []
    for a, b in pairs:
        said = [_stands(both.get((a, b, g))) for g in GROUPS]
        parts.append(
            f"{a} > {b}: " + ", ".join(f"{g} {s}" for g, s in zip(GROUPS, said, strict=True))
        )
    better = [n for n in names if n != PLAIN and _beats_plain(both, n)]
    parts.append(
        "Better than plain on noise and blur without losing clean accuracy: "
        + (", ".join(better) if better else "none of those tried")
    )
    rule = f"confirmed: McNemar p < {LEVEL} and the interval over seeds above 0; refuted: both the other way"
    return f"The paper's order ({rule}). " + ". ".join(parts) + ".\n"


def _stands(c: Comparison | None) -> str:
    if c is None:
        return "not tested"
    if c.p_images < LEVEL and c.low > 0:
        return "confirmed"
    return "refuted" if c.p_images < LEVEL and c.high < 0 else "open"


def _beats_plain(both: Mapping[tuple[str, str, str], Comparison], name: str) -> bool:
    clean = both.get((name, PLAIN, "clean"))
    gains = [_stands(both.get((name, PLAIN, g))) == "confirmed" for g in ("noise", "blur")]
    return all(gains) and clean is not None and clean.high >= 0


def table_d1(
    found: Found,
    before: Mapping[str, Any],
    table: Sequence[Condition],
    weights: Mapping[str, float],
) -> str:
    """Mean over seeds with Student's interval, per kind of distortion trained on."""
    groups = list(dict.fromkeys(c.group for c in table))
    headings = [
        "trained on",
        "arm",
        "λ",
        "seeds",
        *groups,
        "neurons as before",
        "paper (clean / noise / blur)",
    ]
    rows = [["-", "before fine-tuning", "", "", *(_cells([before], table, groups)), ""]]
    for kind in dict.fromkeys(j.kind for j in found if j.stage == "final"):
        for name in dict.fromkeys(j.variant for j in found if j.stage == "final"):
            if seeds := seeds_of(found, name, kind):
                paper = (
                    " / ".join(f"{v:.2%}" for v in PAPER[name])
                    if name in PAPER and kind == "both"
                    else ""
                )
                shown = f"{weights[name]:g}" if weights[name] else ""
                rows.append(
                    [kind, name, shown, f"{len(seeds)}", *_cells(seeds, table, groups), paper]
                )
    return report.markdown_table(headings, rows)


def _cells(
    results: Sequence[Mapping[str, Any]], table: Sequence[Condition], groups: Sequence[str]
) -> list[str]:
    columns = [[group_accuracy(r["correct"], table, g) for r in results] for g in groups]
    distorted = [c.group in ("noise", "blur") for c in table]
    columns.append([float(r["agreement"][distorted].mean()) for r in results])
    return [_with_interval(column) for column in columns]


def _with_interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2%}"
    mean, low, _ = statistics.mean_interval(values)
    return f"{mean:.2%} ± {mean - low:.2%}"


def table_tests(tests: Iterable[Comparison]) -> str:
    headings = (
        "trained on",
        "a − b",
        "images",
        "difference",
        "bootstrap 95 %",
        "t-test p",
        "McNemar p",
    )
    return report.markdown_table(
        headings,
        [
            [
                c.kind,
                f"{c.a} − {c.b}",
                c.group,
                f"{c.difference:+.2%}",
                f"{c.low:+.2%} to {c.high:+.2%}",
            ]
            + ["" if p is None else f"{p:.2g}" for p in (c.p_seeds, c.p_images)]
            for c in tests
        ],
    )


def table_grid(found: Found, table: Sequence[Condition]) -> str:
    """Every λ and variant tried, on the validation images."""
    rows = [
        [j.variant, f"{j.weight:g}"]
        + [f"{group_accuracy(r['correct'], table, g):.2%}" for g in GROUPS]
        + [f"{validation_score(r, table):.2%}"]
        for j, r in found.items()
        if j.stage == "grid"
    ]
    return report.markdown_table(("variant", "λ", *GROUPS, "mean"), rows)


def table_hardness(found: Found, before: Mapping[str, Any]) -> str:
    """Exact targets on the tuned networks: the medians over images, their mean over seeds."""
    rows = [["-", "before fine-tuning", *_hardness_cells([before])]]
    for kind in ("both", "targeted"):
        for name in dict.fromkeys(j.variant for j in found if j.stage == "final"):
            seeds = [r for r in seeds_of(found, name, kind) if "target_distance" in r]
            if seeds:
                rows.append([kind, name, *_hardness_cells(seeds)])
    return report.markdown_table(
        ("trained on", "arm", "total variation, median", "L2, median", "within 0.001"), rows
    )


def _hardness_cells(results: Sequence[Mapping[str, Any]]) -> list[str]:
    measures = [
        [float(np.median(r[key])) for r in results] for key in ("target_distance", "target_l2")
    ]
    reached = [float(r["target_reached"].mean()) for r in results]
    numbers = [
        f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" for values in measures
    ]
    return [*numbers, f"{np.mean(reached):.1%}"]


def page(
    found: Found,
    before: Mapping[str, Any],
    table: Sequence[Condition],
    weights: Mapping[str, float],
) -> str:
    """The whole of table.md."""
    tests = comparisons(found, table)
    names = dict.fromkeys(j.variant for j in found if j.stage == "final")
    parts = [table_d1(found, before, table, weights), verdict(tests, names)]
    parts += ["Paired tests:\n", table_tests(tests)] if tests else []
    if any(j.stage == "grid" for j in found):
        parts += ["Tried on validation images, one seed:\n", table_grid(found, table)]
    if "target_distance" in before:
        parts += [
            "Exact targets (random class 0.9, own 0.1) on these networks, after 30 Jacobians:\n",
            table_hardness(found, before),
        ]
    return "\n".join(parts)


__all__ = ["MAIN", "comparisons", "page"]
