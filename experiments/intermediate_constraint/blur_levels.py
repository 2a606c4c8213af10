"""Blur levels of 32×32 images from accuracies at many σ, as `blur_scale` measures them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from outgen_jax import report
from outgen_jax.data import distort

BATCH = 64  # images an update of the fine-tuning before
SIGMAS = tuple(0.25 * i for i in range(1, 17))  # pixels


def share(factor: float, found: Sequence[float]) -> float:
    """Mean accuracy at the paper's levels times `factor`, as a share of that on clean images."""
    at = np.interp(factor * np.array(distort.PAPER.blur), (0, *SIGMAS), found)
    return float(np.mean(at) / found[0])


def factor_of(found: Sequence[float], wanted: float) -> float:
    """The factor at which `share` is `wanted`; the accuracy is interpolated between `SIGMAS`.

    Raises:
      ValueError: blur costs less than that even at the largest σ, or more at once.
    """
    largest = SIGMAS[-1] / max(distort.PAPER.blur)
    if not share(largest, found) < wanted < 1:
        raise ValueError(
            f"blur_scale: at σ up to {SIGMAS[-1]:g} blur leaves {share(largest, found):.2f} of the accuracy, more than "
            f"{wanted:.2f}; fine-tune for fewer --updates"
        )
    return float(scipy.optimize.brentq(lambda f: share(f, found) - wanted, 0, largest))


def table(results: Mapping[str, Any]) -> str:
    """The whole of table.md."""
    rows = [
        ["clean" if not sigma else f"{sigma:g}", f"{before:.1%}", f"{after:.1%}"]
        for sigma, before, after in zip(
            (0, *results["sigmas"]), results["before"], results["after"], strict=True
        )
    ]
    levels = [results["factor"] * sigma for sigma in distort.PAPER.blur]
    before, after = (
        np.interp((0, *levels), (0, *results["sigmas"]), results[when])
        for when in ("before", "after")
    )
    chosen = [
        [f"{of:g}", f"{level:.2f}", *(f"{accuracy:.1%}" for accuracy in accuracies)]
        for of, level, *accuracies in zip(
            (0, *distort.PAPER.blur), (0, *levels), before, after, strict=True
        )
    ]
    note = (
        f"\n{results['images']:,} training images of CIFAR-10. The classifier had been trained on them; here it was "
        f"fine-tuned for {results['updates']} updates of {BATCH} on other ones. At a factor of {results['factor']:.3f} "
        f"the five levels leave {results['wanted']:.1%} of the clean accuracy on average, as in the paper's Table 1 "
        "after plain fine-tuning.\n"
    )
    headings = ["σ of the blur, pixels", "before fine-tuning", "after"]
    return (
        report.markdown_table(headings, rows)
        + note
        + "\n"
        + report.markdown_table(
            ["σ in the paper", "σ here", "accuracy before fine-tuning, interpolated", "after"],
            chosen,
        )
    )
