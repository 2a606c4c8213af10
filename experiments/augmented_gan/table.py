"""Tables of paper B's study from `results`, as results.json has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import outgen_jax as og
from experiments.augmented_gan import claims, leaks
from experiments.augmented_gan.presets import CONTROL
from outgen_jax import report

# Heading, key of a score, factor, digits after the point.
COLUMNS = (
    ("IS", "inception_score", 1, 2),
    ("FID", "fid", 1, 2),
    ("KID × 1000", "kid", 1000, 1),
    ("precision", "precision", 1, 2),
    ("recall", "recall", 1, 2),
    ("density", "density", 1, 2),
    ("coverage", "coverage", 1, 2),
)
LEAKS = (("detected as inverted, %", "invert"), ("detected as upside down, %", "flip_up_down"))


def table(results: Mapping[str, Any]) -> str:
    """The whole of table.md."""
    parts = [_subject(results, name) for name in results["subjects"]]
    parts += [_claims(results), _schemes(results), _detectors(results)]
    return "\n".join(part for part in parts if part)


def _subject(results: Mapping[str, Any], name: str) -> str:
    subject, network = results["subjects"][name], results["network"]
    headings = [name, *(f"{c[0]}[{network}]" for c in COLUMNS), f"IS[{network}] of the set itself"]
    headings += [heading for heading, _ in LEAKS] + ["surprise, nats", "most frequent classes"]
    rows = []
    if real := subject["real"]:
        # Of the originals against themselves, only the Inception Score says something.
        cells = [_one(real["scores"]["inception_score"], 1, 2), *[""] * (len(COLUMNS) - 1)]
        rows.append(["originals", *cells, "", *_leaks([real]), *_classes([real])])
    if held_out := subject["held_out"]:
        cells = [_one(held_out["scores"][key], factor, d) for _, key, factor, d in COLUMNS]
        rows.append(["other real images", *cells, "", *_leaks([held_out]), *_classes([held_out])])
    for arm, seeds in subject["sets"].items():
        cells = [
            summary([run["scores"][key]["estimate"] * factor for run in seeds], digits)
            for _, key, factor, digits in COLUMNS
        ]
        own = summary([run["augmented"]["inception_score"] for run in seeds], 2)
        found = [*_shown_leaks(seeds, subject["sets"]), *_classes(seeds)]
        rows.append([f"{arm} ({_seeds(len(seeds))})", *cells, own, *found])
    return report.markdown_table(headings, rows) + _note(results, subject)


def _note(results: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    settings, detector = results["settings"], subject["detector"]
    runs = [run for seeds in subject["sets"].values() for run in seeds]
    numbers = {
        "generated images": {run["scores"]["images"] for run in runs},
        "originals": {subject["real"]["scores"]["images"]},
        "images of a set itself": {run["augmented"]["images"] for run in runs},
    }
    if subject["held_out"]:
        numbers["other real images"] = {subject["held_out"]["scores"]["images"]}
    listed = ", ".join(
        f"{' or '.join(f'{n:,}' for n in sorted(found))} {what}"
        for what, found in numbers.items()
        if found
    )
    return (
        f"\n{subject['originals']:,} originals; every GAN {settings['size']}×{settings['size']}, width "
        f"{settings['width']}, {settings['updates']:,} updates of {settings['batch_size']}. Scores by "
        f"{results['network']} of {listed}; distances to all originals (neighbourhoods of "
        f"{results['neighbours']}). Mean over seeds ± half its 95% interval (Student's t); of real images the "
        "estimate itself. The detector of inverted and upside-down images is right on "
        f"{detector['accuracy']:.1%} of {detector['images']:,} originals held out from it and their versions. "
        "Its shares are withheld where it fails on generated images of known kind (last table). "
        "Surprise: mean of −Σ p log p̄ over the classes, p̄ the originals' mean. Classes: the first seed's.\n"
    )


def _claims(results: Mapping[str, Any]) -> str:
    found = claims.findings(results)
    if not found:
        return "Too few sets or seeds for the paper's claims.\n"
    note = (
        "\nDifferences over paired seeds with 95% intervals (Student's t), each for one comparison; of several, the "
        "one nearest to refuting the claim. p: that all differences agree with the claim, or that one contradicts it. "
        f"Confirmed or refuted: p < {claims.LEVEL} after Holm's correction for the {len(found)} verdicts.\n"
    )
    counts = claims.doubled(results["subjects"])
    cases = ", ".join(f"{k} of {n} where {reading}" for reading, (k, n) in counts.items() if n)
    if cases:
        note += f"\nTwice as many added images have the better mean in {cases}; in the paper in 5 of 6.\n"
    headings = ["claim", "subject", "reading", "verdict", "difference", "p", "corrected"]
    rows = [[*f[:5], f"{f.p_value:.2g}", f"{f.p_corrected:.2g}"] for f in found]
    return report.markdown_table(headings, rows) + note


def _schemes(results: Mapping[str, Any]) -> str:
    rows = []
    for name, subject in results["subjects"].items():
        for scheme, change in claims.fid_changes(subject["sets"]).items():
            seeds = subject["sets"][scheme]
            p = summary([run["probability"] for run in seeds], 2)
            interval = change["interval"]
            text = "" if interval is None else f"{interval['low']:+.0%} to {interval['high']:+.0%}"
            mean = sum(change["by_seed"]) / len(change["by_seed"])
            best = "yes" if interval and interval["high"] <= -0.3 else "no"
            rows.append([scheme, name, f"{mean:+.0%}", text, best, p])
    headings = ["in front of the discriminator", "subject", "change of FID against none"]
    headings += ["95% interval", "interval below -30%", "probability at the end"]
    return report.markdown_table(headings, rows) if rows else ""


def summary(values: Sequence[float], digits: int) -> str:
    """Mean over seeds ± half the interval's width, where there are several."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    mean, low, high = og.metrics.mean_interval(values)
    return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def _leaks(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [_percent([run["leaks"][key]["estimate"] for run in runs]) for _, key in LEAKS]


def _shown_leaks(runs: Sequence[Mapping[str, Any]], sets: Mapping[str, Any]) -> list[str]:
    """The shares of those kinds that the detector tells apart on generated images."""
    cells = zip(LEAKS, _leaks(runs), strict=True)
    return [
        cell if leaks.passes(leaks.reliability(sets.get(CONTROL, ()), key)) else "withheld"
        for (_, key), cell in cells
    ]


def _detectors(results: Mapping[str, Any]) -> str:
    """How the detectors do on generated images of known kind."""
    rows = []
    for name, subject in results["subjects"].items():
        for heading, key in LEAKS:
            found = leaks.reliability(subject["sets"].get(CONTROL, ()), key)
            if found is not None:
                share = "not measured" if found.found is None else f"{found.found:.1%}"
                shown = "shown" if leaks.passes(found) else "withheld"
                what = heading.removesuffix(", %")
                rows.append([name, what, f"{found.false_alarms:.1%}", share, shown])
    headings = (
        "",
        "detector's verdict",
        "wrongly, of images as they are",
        "of changed ones",
        "column",
    )
    note = (
        "\nGenerated images whose kind is known: those of the GANs without added images, mean over seeds. A column is "
        f"withheld where more than {1 - leaks.LEAST:.0%} of the first are judged wrongly, or less than "
        f"{leaks.LEAST:.0%} of the second rightly. Where the second was not measured, the shares in the column may "
        "be too low.\n"
    )
    return report.markdown_table(headings, rows) + note if rows else ""


def _classes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean surprise, and the first run's commonest classes."""
    names = (f"{name} {share:.0%}" for name, share in runs[0]["classes"].items())
    return [summary([run["surprise"] for run in runs], 2), ", ".join(names)]


def _percent(values: Sequence[float]) -> str:
    return summary([100 * value for value in values], 1)


def _one(score: Mapping[str, float], factor: float, digits: int) -> str:
    return f"{score['estimate'] * factor:.{digits}f}"


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"
