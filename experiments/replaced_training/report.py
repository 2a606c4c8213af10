"""Table and figure, from the numbers of the finished jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.replaced_training import paired
from experiments.replaced_training.arms import parse
from outgen_jax import report
from outgen_jax.metrics import statistics
from outgen_jax.report import dot_plots

# Key of a job's measures: heading, factor to what is shown, digits shown.
MEASURES = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL, nats", 1, 3),
    "ece": ("ECE, %", 100, 2),
    "noise": ("on noise, %", 100, 1),
    "blur": ("on blur, %", 100, 1),
    "robust": ("under attack, %", 100, 1),
    "agreement": ("agreement, %", 100, 1),
    "boundary_agreement": ("at the boundary, %", 100, 1),
}
_FIGURE = ("accuracy", "nll", "ece", "noise", "blur", "robust")
_LOWER_IS_BETTER = ("nll", "ece")
_BASELINE = "plain"

Jobs = Sequence[Mapping[str, Any]]


def summarise(jobs: Jobs, set_cost: Mapping[str, float]) -> dict[str, Any]:
    """For every arm: means and 95 % intervals over seeds, cost, and tests against the plain arms.

    Arms are sorted by fraction. Only what all jobs have measured is reported.

    Args:
      jobs: what the jobs wrote.
      set_cost: by method, seconds to generate one image before training.
    """
    arms = _by_arm(jobs)
    measured = [key for key in MEASURES if all(key in job["measures"] for job in jobs)]
    plain = arms.get(_BASELINE)
    unit = _training_seconds(plain) if plain else None
    baselines = [name for name in arms if name.split("@")[0] == _BASELINE]
    return {
        name: {
            "seeds": [job["seed"] for job in found],
            "epochs": found[0]["epochs"],
            "measures": {key: _interval(_values(found, key)) for key in measured},
            "cost": _cost(found, set_cost, unit),
            "against": {
                baseline: tests
                for baseline in baselines
                if baseline != name and (tests := _tests(found, arms[baseline], measured))
            },
        }
        for name, found in arms.items()
    }


def table(results: Mapping[str, Any]) -> str:
    """Markdown of `results.json`: means ± half of the 95 % interval; paired differences; what accuracies exclude."""
    summary = results["arms"]
    shown = _measured(summary)
    headings = ["arm", "seeds", "epochs", "cost", *(MEASURES[key][0] for key in shown)]
    rows = []
    for name, arm in summary.items():
        cost = "" if arm["cost"] is None else f"{arm['cost']:.2f}"
        cells = [name, str(len(arm["seeds"])), str(arm["epochs"]), cost]
        cells += [_cell(arm["measures"][key], key) for key in shown]
        rows.append(cells)
    frozen = results["jobs"][0].get("frozen_accuracy")
    if frozen is not None:
        accuracy = f"{100 * frozen:.2f}"
        rows.append(["frozen network", "1", "", "", accuracy, *[""] * (len(shown) - 1)])
    parts = [report.markdown_table(headings, rows), _differences(summary)]
    parts.append(paired.table(results["jobs"], list(summary), _BASELINE))
    return "\n".join(part for part in parts if part)


def _differences(summary: Mapping[str, Any]) -> str:
    """A row per arm and plain arm: differences of paired seeds in all measures, with their p-values."""
    pairs = [
        (name, baseline, tests)
        for name, arm in summary.items()
        for baseline, tests in arm["against"].items()
        if name != _BASELINE  # the other plain arms have a row for this pair
    ]
    if not pairs:
        return ""
    headings = ["arm", "minus", *(MEASURES[key][0] for key in pairs[0][2])]
    rows = []
    for name, baseline, tests in pairs:
        cells = [name, baseline]
        for key, test in tests.items():
            _, factor, digits = MEASURES[key]
            cells.append(f"{factor * test['difference']:+.{digits}f} (p {test['p_value']:.2g})")
        rows.append(cells)
    return report.markdown_table(headings, rows)


def figure(summary: Mapping[str, Any], jobs: Jobs) -> Figure:
    """A panel per measure: every seed as a dot, mean and 95 % interval of every arm, a line at `plain`."""
    panels = [_panel(key, summary, jobs) for key in _FIGURE if key in _measured(summary)]
    plain = [place for place, name in enumerate(summary) if name.startswith(_BASELINE)]
    return dot_plots.dots_figure(
        list(summary), panels, line=f"mean of {_BASELINE}", reference=plain
    )


def _panel(key: str, summary: Mapping[str, Any], jobs: Jobs) -> dot_plots.Panel:
    heading, factor, _ = MEASURES[key]

    def scaled(value: float | None) -> float | None:
        return None if value is None else factor * value

    measures = [arm["measures"][key] for arm in summary.values()]
    seeds = [_values([job for job in jobs if job["arm"] == name], key) for name in summary]
    return dot_plots.Panel(
        f"{heading} ({'lower' if key in _LOWER_IS_BETTER else 'higher'}: better)",
        [[factor * value for value in values] for values in seeds],
        [
            dot_plots.Interval(factor * m["mean"], scaled(m["low"]), scaled(m["high"]))
            for m in measures
        ],
        line=factor * summary[_BASELINE]["measures"][key]["mean"] if _BASELINE in summary else None,
    )


def save(path: Any, summary: Mapping[str, Any], jobs: Jobs) -> None:
    report.save_figure(figure(summary, jobs), path)


def _by_arm(jobs: Jobs) -> dict[str, list[Mapping[str, Any]]]:
    """Jobs by arm: arms of a method and length together, where the first of them stands, by fraction."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for job in jobs:
        arms.setdefault(job["arm"], []).append(job)
    kinds = list(dict.fromkeys(map(_kind, arms)))
    by_fraction = sorted(arms, key=lambda name: (kinds.index(_kind(name)), _fraction(name)))
    return {name: arms[name] for name in by_fraction}


def _kind(name: str) -> tuple[str, float]:
    arm = parse(name)
    return arm.method, arm.multiple


def _fraction(name: str) -> float:
    return parse(name).fraction


def _measured(summary: Mapping[str, Any]) -> list[str]:
    return list(next(iter(summary.values()))["measures"])


def _values(jobs: Jobs, key: str) -> list[float]:
    return [job["measures"][key] for job in jobs]


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """One seed has a mean and no interval."""
    if len(values) < 2:
        return {"mean": float(values[0]), "low": None, "high": None}
    found = statistics.mean_interval(values)
    return {"mean": float(found.estimate), "low": float(found.low), "high": float(found.high)}


def _tests(jobs: Jobs, baseline: Jobs, measured: Sequence[str]) -> dict[str, dict[str, float]]:
    """Paired t-tests over the seeds that both have; none for fewer than two."""
    by_seed = {job["seed"]: job for job in baseline}
    pairs = [(job, by_seed[job["seed"]]) for job in jobs if job["seed"] in by_seed]
    if len(pairs) < 2:
        return {}
    ours, theirs = zip(*pairs, strict=True)
    found = {
        key: statistics.paired_t_test(_values(ours, key), _values(theirs, key)) for key in measured
    }
    # The statistic is infinite where all differences are alike, which JSON cannot say.
    wanted = ("difference", "low", "high", "p_value")
    return {key: {name: getattr(test, name) for name in wanted} for key, test in found.items()}


def _cost(jobs: Jobs, set_cost: Mapping[str, float], unit: float | None) -> float | None:
    """Seconds of training, compilation left out, and of generating the replaced images, over plain training's."""
    if unit is None:
        return None
    generated = set_cost.get(jobs[0]["method"], 0.0) * jobs[0]["replaced_images"]
    return (_training_seconds(jobs) + generated) / unit


def _training_seconds(jobs: Jobs) -> float:
    """Of the fastest seed: the first one may have compiled."""
    return min(job["seconds_per_epoch"] * job["epochs"] for job in jobs)


def _cell(found: Mapping[str, float | None], key: str) -> str:
    _, factor, digits = MEASURES[key]
    mean, high = found["mean"], found["high"]
    assert mean is not None
    text = f"{factor * mean:.{digits}f}"
    return text if high is None else f"{text} ± {factor * (high - mean):.{digits}f}"
