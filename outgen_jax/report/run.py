"""What a synthesis run produced, as plain arrays, and the few numbers that a report derives.

Images are uint8 [N, H, W, C] with C = 1 or 3; probabilities float [N, K], rows summing to 1.
"""

import unicodedata
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import losses, metrics

SMALLEST_SHOWN = 0.0005  # a probability that prints as 0.001; smaller ones print as zero
TICK_FROM = 0.005  # the source's probabilities below this are not marked: the axis is there
CRISP_BELOW = 128  # pixels; smaller images are shown with their pixels as squares


class SynthesisRun(NamedTuple):
    """Everything a report shows of a run over N images and K classes, host arrays only.

    `reached` and `total_variation` belong to the saved 8-bit image, not to the float image it was
    rounded from. Identifiers and class names may hold any characters. An image on which the network
    is not finite has NaN in `reached`, and a `total_variation` that is not finite.
    """

    source: np.ndarray  # [N, H, W, C] uint8, the images started from
    generated: np.ndarray  # [N, H, W, C] uint8, the images as saved
    wanted: np.ndarray  # [N, K] target probabilities
    before: np.ndarray  # [N, K] the classifier's probabilities of the source
    reached: np.ndarray  # [N, K] the classifier's probabilities of the saved image
    class_names: tuple[str, ...]  # K
    ids: tuple[str, ...]  # N
    steps: np.ndarray  # [N] int, updates used
    total_variation: np.ndarray  # [N] sum |wanted - reached| / 2, in [0, 1]
    converged: np.ndarray  # [N] bool, the tolerance was met


def check_run(run: SynthesisRun, *, caller: str) -> None:
    """Fail, in the name of `caller`, on the first field that does not fit the others.

    Raises:
        ValueError: a shape, a type or a total variation contradicts the other fields.
    """
    if run.source.ndim != 4 or run.source.shape[-1] not in (1, 3) or run.source.dtype != np.uint8:
        raise ValueError(
            f"{caller}: source must be uint8 [N, H, W, 1 or 3]; it is {run.source.dtype} "
            f"{list(run.source.shape)}. Round the images to 8 bits first"
        )
    number, classes = len(run.source), len(run.class_names)
    expected = {
        "generated": run.source.shape,
        "wanted": (number, classes),
        "before": (number, classes),
        "reached": (number, classes),
        "steps": (number,),
        "total_variation": (number,),
        "converged": (number,),
    }
    for field, shape in expected.items():
        found = np.shape(getattr(run, field))
        if found != shape:
            raise ValueError(
                f"{caller}: {field} must be {list(shape)} to fit source and class_names; "
                f"it is {list(found)}"
            )
    if run.generated.dtype != np.uint8:
        raise ValueError(
            f"{caller}: generated must be uint8, the image as saved; it is {run.generated.dtype}"
        )
    if len(run.ids) != number:
        raise ValueError(f"{caller}: {number} images need as many ids; there are {len(run.ids)}")
    gap = np.abs(run.total_variation - metrics.total_variation(run.wanted, run.reached))
    gap = np.where(finite_rows(run) | np.isfinite(run.total_variation), gap, 0.0)
    if number and not np.max(gap) <= 1e-3:
        row = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
        raise ValueError(
            f"{caller}: total_variation of row {row} is {run.total_variation[row]:.4f}, off by "
            f"{gap[row]:.4f} from wanted and reached. Measure both on the saved image"
        )


def finite_rows(run: SynthesisRun) -> np.ndarray:
    """Which images have finite outputs, [N] bool."""
    finite: np.ndarray = np.isfinite(run.reached).all(axis=1)
    return finite


def median(values: np.ndarray) -> float:
    """The median of the finite values; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def kl_divergence(wanted: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """KL(wanted || reached) of each row in nats, [N]; infinite where a wanted class got nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(reached)
    return np.asarray(jax.vmap(losses.kl_divergence)(jnp.asarray(wanted), jnp.asarray(logits)))


def pixel_change(run: SynthesisRun) -> tuple[np.ndarray, np.ndarray]:
    """Source to generated: L2 distance of pixels in [0, 1] and RMS in grey levels, [N] each."""
    # Image by image: a run may hold more of them than fit in memory as floats.
    pairs = zip(run.generated[:, None], run.source[:, None], strict=True)
    distances = np.array([metrics.l2_change(after, before)[0] for after, before in pairs])
    return distances, distances * 255 / np.sqrt(run.source[0].size)


def leading_classes(run: SynthesisRun, row: int, *, limit: int) -> np.ndarray:
    """Indices of the classes that tell the story of one image.

    Up to ten classes in all are given complete, in their own order. Of more, the `limit` highest by
    wanted or reached probability, highest first, and then the source's first class if it is not
    among them.
    """
    wanted, before, reached = (
        np.nan_to_num(table[row]) for table in (run.wanted, run.before, run.reached)
    )
    if len(wanted) <= 10:
        return np.arange(len(wanted))
    highest = np.maximum(wanted, reached)
    # Classes that round to zero are told apart by what the source was.
    highest = np.where(highest < SMALLEST_SHOWN, SMALLEST_SHOWN * before, highest)
    chosen = np.argsort(-highest, kind="stable")[:limit]
    first = np.argmax(before)
    return chosen if first in chosen else np.append(chosen, first)


def shown_probabilities(run: SynthesisRun, row: int, *, limit: int) -> tuple[list[str], np.ndarray]:
    """Names and [rows, 3] probabilities (wanted, before, reached) to show of one image.

    The leading classes, and in a last row the sum of all others, so that columns sum to 1.
    """
    chosen = leading_classes(run, row, limit=limit)
    names = [run.class_names[index] for index in chosen]
    table = np.stack([run.wanted[row], run.before[row], run.reached[row]], axis=1)[chosen]
    others = len(run.class_names) - len(chosen)
    if others:
        names.append(f"{others} other{'s' if others > 1 else ''}")
        table = np.concatenate([table, np.maximum(1 - table.sum(axis=0, keepdims=True), 0)])
    return names, np.clip(table, 0.0, 1.0)


def probability(value: float) -> str:
    """Three decimals, or a dash for what is not a number."""
    return "–" if np.isnan(value) else f"{value:.3f}"


def printable(name: str, *, limit: int | None = None) -> str:
    """The name with control characters and lone surrogates replaced, cut to `limit` columns.

    A wide character, as of Chinese, takes two columns.
    """
    shown = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    if limit is None:
        return shown
    widths = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown]
    if sum(widths) <= limit:
        return shown
    while sum(widths) > limit - 1:
        widths.pop()
    return shown[: len(widths)].rstrip() + "…"
