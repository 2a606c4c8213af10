"""The tables of the study, from results.json."""

from typing import Any

from experiments.common.cells import percentile_headings, percentiles
from experiments.mixtures import viewers
from outgen_jax import report


def table(results: dict[str, Any]) -> str:
    """Markdown tables: what the judges find, how large the changes are, and what viewers see where any looked."""
    answers, changes = [], []
    for job in results["jobs"]:
        what = [job["start"], str(job["parts"]), job["network"]]
        for judge, found in job["judges"].items():
            answers.append(
                [
                    *what,
                    judge,
                    str(job["images"]),
                    interval(found["rank_correlation"]),
                    interval(found["named_mass"], percent=True),
                    interval(found["named_on_top"], percent=True),
                ]
            )
        changes.append(
            [*what, *percentiles(job["l2"], 50, 95), *percentiles(job["distance"], 50, 95, 100)]
        )
    about = ("start", "classes", "network")
    return "\n".join(
        [
            report.markdown_table(
                (*about, "judge", "images", "rank correlation", "named classes", "named on top"),
                answers,
            ),
            report.markdown_table(
                (
                    *about,
                    *percentile_headings("L2", 50, 95),
                    *percentile_headings("TV", 50, 95, 100),
                ),
                changes,
            ),
            *views(results),
        ]
    )


def views(results: dict[str, Any]) -> list[str]:
    """A Markdown table of what viewers named, a row for each start, viewer and network; none where nobody looked."""
    rows = [
        [start, viewer, network, str(sum(counts)), *map(str, counts)]
        for start, name in viewers.DIRECTORIES.items()
        for viewer, by_network in results.get(name, {"counts": {}})["counts"].items()
        for network, counts in by_network.items()
    ]
    headings = ("start", "viewer", "network", "images", "both classes named", "one named")
    return [report.markdown_table((*headings, "none named"), rows)] if rows else []


def interval(values: list[float], *, percent: bool = False) -> str:
    """An estimate with its interval in a cell.

    >>> interval([0.5, 0.4, 0.6])
    '0.50 (0.40 to 0.60)'
    >>> interval([0.5, 0.4, 0.6], percent=True)
    '50% (40 to 60)'
    """
    estimate, low, high = values
    if percent:
        return f"{estimate:.0%} ({100 * low:.0f} to {100 * high:.0f})"
    return f"{estimate:.2f} ({low:.2f} to {high:.2f})"
