"""The table of single runs, gathered by hand: what was tried against the loss of accuracy."""

from collections.abc import Mapping
from typing import Any

from experiments.replaced_training.report import MEASURES
from outgen_jax import report

_SHOWN = ("accuracy", "nll", "ece", "noise", "blur", "robust")


def table(results: Mapping[str, Any]) -> str:
    """Markdown of `results.json`: a row per run."""
    headings = ["training images", "epochs", "test images", "what"]
    rows = []
    for run in results["attempts"]:
        sizes = [f"{run['train_images']:,}", str(run["epochs"]), f"{run['test_images']:,}"]
        cells = []
        for key in _SHOWN:
            _, factor, digits = MEASURES[key]
            cells.append(f"{factor * run['measures'][key]:.{digits}f}")
        rows.append([*sizes, run["what"], *cells])
    return report.markdown_table([*headings, *(MEASURES[key][0] for key in _SHOWN)], rows)
