"""Tables of paper C's study from `results`, as results.json has them."""

from typing import Any

import numpy as np

from experiments.draw_gan import comparisons
from outgen_jax import report

# Heading, key of a score, factor, digits after the point.
COLUMNS = (
    ("classifier score", "classifier_score", 1, 2),
    ("FID", "fid", 1, 2),
    ("KID × 1000", "kid", 1000, 1),
    ("precision", "precision", 1, 3),
    ("recall", "recall", 1, 3),
    ("density", "density", 1, 3),
    ("coverage", "coverage", 1, 3),
    ("digits generated", "digits", 1, 1),
    ("KL to uniform", "kl_to_uniform", 1, 3),
    ("realism", "realism", 1, 3),
    ("share with realism ≥ 1", "realistic_share", 1, 3),
    ("distance to training set", "nearest_training_distance", 1, 2),
    ("Laplacian variance", "laplacian_variance", 1, 3),
    ("greyness", "greyness", 1, 4),
)
# Results from before the settings were noted: what these presets are called now.
_EARLIER = {"attention": "attention+mean", "attention_n4": "attention_n4+mean"}
# A run draws digits: all ten appear, and it is nearer to real digits than any collapsed run was (FID above 40).
_DRAWS_FID = 10.0


def table(results: dict[str, Any]) -> str:
    """The whole of table.md."""
    compared = [
        c._replace(a=name_of(c.a, results["presets"][c.a]), b=name_of(c.b, results["presets"][c.b]))
        for c in comparisons.comparisons(results["presets"])
    ]
    named = {name_of(name, seeds): seeds for name, seeds in results["presets"].items()}
    results = {**results, "presets": named}
    parts = [_scores(results)] if _scored(results) else []
    parts += _by_step(results, "realism of the canvas after step t", "scores", "realism_by_step")
    parts += _by_step(
        results, "change of the image when z_t alone is redrawn", "latent", "change_redrawn"
    )
    parts += _by_step(results, "spread when z_t alone is random", "latent", "spread_alone")
    parts += _by_step(
        results,
        "share of samples whose digit changes when z_t alone is redrawn",
        "latent",
        "digit_changes_redrawn",
    )
    parts += _wild(results)
    if _scored(results):
        parts += [_kinds(results), *_comparisons(compared), *_ablation(results)]
    return "\n".join(parts) or "Nothing was scored.\n"


def name_of(name: str, seeds: list[dict[str, Any]]) -> str:
    """What a preset is called in tables and figures, from its finished runs."""
    return name if "settings" in seeds[0] else _EARLIER.get(name, name)


def _scored(results: dict[str, Any]) -> bool:
    return any("scores" in run for seeds in results["presets"].values() for run in seeds)


def _scores(results: dict[str, Any]) -> str:
    rows = []
    if results["real"]:
        rows.append(["real images, unseen", *(_one(results["real"], *c[1:]) for c in COLUMNS)])
    for name, seeds in results["presets"].items():
        cells = (
            summary([_estimate(run["scores"][key]) * factor for run in seeds], digits)
            for _, key, factor, digits in COLUMNS
        )
        rows.append([f"{name} ({len(seeds)} seeds)", *cells])
    one = next(iter(results["presets"].values()))[0]["scores"]
    note = (
        f"\n{one['images']:,} generated against {one['real_images']:,} real test images; KID, precision, recall, "
        f"density and coverage in parts of {one['block_images']:,}. Mean over seeds (lowest to highest).\n"
    )
    return report.markdown_table(["", *(heading for heading, *_ in COLUMNS)], rows) + note


def _by_step(results: dict[str, Any], title: str, group: str, key: str) -> list[str]:
    """A table of a value for every step t, presets that have it; none: no table."""
    rows, steps = [], 0
    for name, seeds in results["presets"].items():
        values = [run[group][key] for run in seeds if key in run.get(group, {})]
        if values:
            steps = max(steps, len(values[0]))
            rows.append([name, *(summary(list(v), 3) for v in zip(*values, strict=True))])
    headings = [title, *(f"t = {t}" for t in range(1, steps + 1))]
    return (
        [report.markdown_table(headings, [row + [""] * (len(headings) - len(row)) for row in rows])]
        if rows
        else []
    )


def _wild(results: dict[str, Any]) -> list[str]:
    rows = []
    for name, seeds in results["presets"].items():
        numbers = [run["latent"] for run in seeds if "latent" in run]
        for t in numbers[0]["change_wild"] if numbers else ():
            change = summary([n["change_wild"][t] for n in numbers], 3)
            whole = summary([n["change_all_redrawn"] for n in numbers], 3)
            digits = [n["digit_changes_wild"][t] for n in numbers if "digit_changes_wild" in n]
            rows.append([name, t, change, whole, summary(digits, 3) if digits else ""])
    headings = [
        "z_t with σ = 10,000",
        "t",
        "change of the image",
        "change if all z are redrawn",
        "share of samples whose digit changes",
    ]
    if not any(row[-1] for row in rows):  # no digits
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    return [report.markdown_table(headings, rows)] if rows else []


def _kinds(results: dict[str, Any]) -> str:
    """Kinds of digit, by seed with its bootstrap interval over images."""
    rows = []
    real = [("real images, unseen", [results["real"]])] if results["real"] else []
    scored = {
        name: [run["scores"] for run in seeds if "scores" in run]
        for name, seeds in results["presets"].items()
    }
    for name, runs in [*real, *scored.items()]:
        found = [comparisons.kinds_interval(scores["digit_histogram"]) for scores in runs]
        by_seed = "; ".join(f"{x.estimate:.2f} ({x.low:.2f} to {x.high:.2f})" for x in found)
        rows.append([name, summary([x.estimate for x in found], 2), by_seed])
    note = (
        "\nKinds of digit: e to the entropy of the digits' frequencies, 10 where all are equally frequent. In the last "
        "column the seeds, with 95% bootstrap intervals over the images.\n"
    )
    return report.markdown_table(["", "kinds of digit", "by seed"], rows) + note


def _comparisons(found: list[comparisons.Comparison]) -> list[str]:
    rows = [
        [
            f"{c.a} − {c.b}",
            c.measure,
            f"{c.seeds[0]} and {c.seeds[1]}",
            f"{c.difference:+.{c.digits}f}",
            f"{c.low:+.{c.digits}f} to {c.high:+.{c.digits}f}",
            f"{c.p_value:.2g}",
            f"{c.p_corrected:.2g}",
        ]
        for c in found
    ]
    headings = ("a − b", "measure", "seeds", "difference", "95% interval", "p", "p, corrected")
    note = f"\nWelch's t-tests over seeds; p corrected by Holm for these {len(found)} tests.\n"
    return [report.markdown_table(headings, rows) + note] if rows else []


def _ablation(results: dict[str, Any]) -> list[str]:
    """What each change from `attention` does by itself; none: no table."""
    names = [n for n in results["presets"] if n == "attention" or n.startswith("attention+")]
    if len(names) < 3:
        return []
    rows = []
    for name in [*names, *(n for n in results["presets"] if n == "attention_plus_49")]:
        runs = results["presets"][name]
        drawn = [_draws(run["scores"]) for run in runs]
        losses = [run["history"][-1]["discriminator_loss"] for run in runs]
        fid = summary([run["scores"]["fid"]["estimate"] for run in runs], 2)
        kinds = summary([comparisons.kinds(r["scores"]["digit_histogram"]) for r in runs], 2)
        rows.append([name, f"{sum(drawn)} of {len(drawn)}", fid, kinds, summary(losses, 2)])
    headings = ["change", "seeds that draw digits", "FID", "kinds of digit"]
    headings.append("discriminator's loss at the end")
    note = (
        "\nA seed draws digits if each of the ten makes up 1% or more of its samples and FID is below "
        f"{_DRAWS_FID:g}.\n"
    )
    return [report.markdown_table(headings, rows) + note]


def _draws(scores: dict[str, Any]) -> bool:
    return scores["digits"] == 10 and _estimate(scores["fid"]) < _DRAWS_FID


def summary(values: list[float], digits: int) -> str:
    """Mean over seeds and, where there are several, the lowest and the highest."""
    shown = [f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values))]
    return shown[0] if len(values) < 2 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _one(scores: dict[str, Any], key: str, factor: float, digits: int) -> str:
    return f"{_estimate(scores[key]) * factor:.{digits}f}"


def _estimate(score: Any) -> float:
    return float(score["estimate"] if isinstance(score, dict) else score)
