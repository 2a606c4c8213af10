"""The tables of paper D's study, from `results` as results.json has them.

The accuracies there are those of each job and condition, so that means and intervals over seeds are computed here.
McNemar's p-values need every image's outcome and are taken as they stand.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.cells import label
from experiments.intermediate_constraint.comparisons import (
    GROUPS,
    PAIRS,
    Comparison,
    corrected,
    over_seeds,
    verdict,
)
from experiments.intermediate_constraint.study import MSE, PLAIN, PROPOSED
from outgen_jax import report
from outgen_jax.metrics import statistics

# Accuracies of the paper's Table D1: clean, noise, blur.
PAPER = {
    PLAIN: (0.6744, 0.5660, 0.5073),
    MSE: (0.6713, 0.5740, 0.5119),
    PROPOSED: (0.6769, 0.5769, 0.5129),
}

Results = Mapping[str, Any]
Record = Mapping[str, Any]  # of a job


def table(results: Results) -> str:
    """The whole of table.md."""
    tests = tests_of(results)
    names = variants_of(results)
    parts = [table_d1(results), verdict(tests, names)]
    parts += ["Paired tests:\n", table_tests(tests)] if tests else []
    parts += table_levels(results)
    if any(job["stage"] == "grid" for job in results["jobs"]):
        parts += ["Tried on validation images, one seed:\n", table_grid(results)]
    if "target_distance" in results["before"]:
        parts += [
            "Exact targets (random class 0.9, own 0.1) on these networks, after 30 Jacobians:\n",
            table_hardness(results),
        ]
    return "\n".join(parts)


def tests_of(results: Results) -> list[Comparison]:
    """The comparisons, their differences and intervals computed from the accuracies of the jobs."""
    found = []
    for c in results["comparisons"]:
        ours, theirs = (
            [_accuracy(job, results, c["group"]) for job in records_of(results, name, c["kind"])]
            for name in (c["a"], c["b"])
        )
        seeds = over_seeds(ours, theirs)
        found.append(Comparison(c["a"], c["b"], c["kind"], c["group"], *seeds, c["p_images"]))
    return corrected(found)


def table_d1(results: Results) -> str:
    """Mean over seeds with Student's interval, per kind of distortion trained on."""
    groups = list(dict.fromkeys(group for group, *_ in results["conditions"]))
    headings = ["trained on", "arm", "λ", "seeds", *groups]
    headings += ["neurons as before", "paper (clean / noise / blur)"]
    rows = [["-", "before fine-tuning", "", "", *_cells([results["before"]], results, groups), ""]]
    final = _final(results)
    for kind in dict.fromkeys(job["kind"] for job in final):
        for name in variants_of(results):
            seeds = records_of(results, name, kind)
            if not seeds:
                continue
            values = PAPER.get(name, ()) if kind == "both" else ()
            paper = " / ".join(f"{value:.2%}" for value in values)
            weight = results["chosen_weights"][name]
            shown = f"{weight:g}" if weight else ""
            rows.append(
                [kind, label(name), shown, f"{len(seeds)}", *_cells(seeds, results, groups), paper]
            )
    return report.markdown_table(headings, rows)


def table_tests(tests: Iterable[Comparison]) -> str:
    """A row for each comparison, with its p-values."""
    headings = ("trained on", "a − b", "images", "difference", "95% interval", "paper")
    rows = [
        [
            c.kind,
            f"{label(c.a)} − {label(c.b)}",
            c.group,
            f"{c.difference:+.2%}",
            f"{c.low:+.2%} to {c.high:+.2%}",
            _paper(c),
            *("" if p is None else f"{p:.2g}" for p in (c.p_seeds, c.p_corrected, c.p_images)),
        ]
        for c in tests
    ]
    number = sum(c.primary for c in tests)
    note = (
        "\nStudent's intervals over seeds. Corrected: Holm, apart for the tests that the paper has numbers for "
        f"({number}) and for all others ({len(rows) - number}). McNemar's test is over images.\n"
    )
    text = report.markdown_table((*headings, "t-test p", "corrected", "McNemar p"), rows)
    return text + note


def table_levels(results: Results) -> list[str]:
    """The paper's arms at every level, trained on both distortions: differences over seeds; [] with one seed."""
    arms = {name: records_of(results, name, "both") for name in PAPER}
    if min(map(len, arms.values())) < 2 or len({len(jobs) for jobs in arms.values()}) > 1:
        return []
    rows = []
    for index, (group, noise, blur) in enumerate(results["conditions"]):
        if group not in GROUPS:
            continue
        values = {name: [job["accuracy"][index] for job in jobs] for name, jobs in arms.items()}
        found = [over_seeds(values[a], values[b]) for a, b in PAIRS]
        level = f"{group} {noise or blur:.3g}" if noise or blur else group
        first = results["before"]["accuracy"][index]
        cells = (f"{x.difference:+.2%} ({x.low:+.2%} to {x.high:+.2%})" for x in found)
        rows.append([level, f"{first:.2%}", _with_interval(values[PLAIN]), *cells])
    pairs = (f"{label(a)} − {label(b)}" for a, b in PAIRS)
    headings = ("images, σ", "before fine-tuning", "plain", *pairs)
    note = "\nStudent's 95% intervals over seeds, each for one comparison.\n"
    return ["By level:\n", report.markdown_table(headings, rows) + note]


def _paper(c: Comparison) -> str:
    """The paper's own difference, where it has one."""
    if not c.primary:
        return ""
    at = GROUPS.index(c.group)
    return f"{PAPER[c.a][at] - PAPER[c.b][at]:+.2%}"


def table_grid(results: Results) -> str:
    """Every λ and variant tried, on the validation images."""
    rows = []
    for job in results["jobs"]:
        if job["stage"] == "grid":
            values = [_accuracy(job, results, group) for group in GROUPS]
            shown = (f"{value:.2%}" for value in (*values, np.mean(values)))
            rows.append([label(job["variant"]), f"{job['weight']:g}", *shown])
    return report.markdown_table(("variant", "λ", *GROUPS, "mean"), rows)


def table_hardness(results: Results) -> str:
    """Exact targets on the tuned networks: the medians over images, their mean over seeds."""
    rows = [["-", "before fine-tuning", *_hardness_cells([results["before"]])]]
    for kind in ("both", "targeted"):
        for name in variants_of(results):
            seeds = [job for job in records_of(results, name, kind) if "target_distance" in job]
            if seeds:
                rows.append([kind, label(name), *_hardness_cells(seeds)])
    return report.markdown_table(
        ("trained on", "arm", "TV, median", "L2, median", "within 0.001"), rows
    )


def _final(results: Results) -> list[Record]:
    return [job for job in results["jobs"] if job["stage"] == "final"]


def variants_of(results: Results) -> list[str]:
    """The arms with finished jobs, in the order of the run."""
    return list(dict.fromkeys(job["variant"] for job in _final(results)))


def records_of(results: Results, variant: str, kind: str) -> list[Record]:
    """The finished jobs of an arm that was trained on that kind of image, by seed."""
    jobs = [job for job in _final(results) if (job["variant"], job["kind"]) == (variant, kind)]
    return sorted(jobs, key=lambda job: job["seed"])


def _accuracy(job: Record, results: Results, group: str) -> float:
    """Mean over the group's levels, as Table D1 has it; a job of the grid saw the first conditions only."""
    pairs = zip(results["conditions"], job["accuracy"], strict=False)
    return float(np.mean([value for (name, *_), value in pairs if name == group]))


def _cells(jobs: Sequence[Record], results: Results, groups: Sequence[str]) -> list[str]:
    columns = [[_accuracy(job, results, group) for job in jobs] for group in groups]
    distorted = [name in ("noise", "blur") for name, *_ in results["conditions"]]
    columns.append([float(np.mean(np.array(job["agreement"])[distorted])) for job in jobs])
    return [_with_interval(column) for column in columns]


def _with_interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2%}"
    mean, low, _ = statistics.mean_interval(values)
    return f"{mean:.2%} ± {mean - low:.2%}"


def _hardness_cells(jobs: Sequence[Record]) -> list[str]:
    measures = [
        [float(np.median(j[key])) for j in jobs] for key in ("target_distance", "target_l2")
    ]
    reached = [float(np.mean(job["target_reached"])) for job in jobs]
    numbers = [
        f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" for values in measures
    ]
    return [*numbers, f"{np.mean(reached):.1%}"]
