"""Tables of paper C's study from `results`, as results.json has them."""

from typing import Any

import numpy as np

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


def table(results: dict[str, Any]) -> str:
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
    return "\n".join(parts) or "Nothing was scored.\n"


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


def summary(values: list[float], digits: int) -> str:
    """Mean over seeds and, where there are several, the lowest and the highest."""
    shown = [f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values))]
    return shown[0] if len(values) < 2 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _one(scores: dict[str, Any], key: str, factor: float, digits: int) -> str:
    return f"{_estimate(scores[key]) * factor:.{digits}f}"


def _estimate(score: Any) -> float:
    return float(score["estimate"] if isinstance(score, dict) else score)
