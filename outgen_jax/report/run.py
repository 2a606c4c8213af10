"""What a synthesis run produced, as plain arrays, and the few numbers that a report derives.

Images are uint8 [N, H, W, C] with C = 1 or 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import image_checks, losses, metrics
from outgen_jax.report import parts as report_parts
from outgen_jax.report.parts import Part

CRISP_BELOW = 128  # pixels; smaller images are shown with their pixels as squares


class SynthesisRun(NamedTuple):
    """Everything a report shows of a run over N images, host arrays only. `synthesis_run` makes it from a result.

    What the parts call reached, and `distance`, belong to the saved 8-bit image, not to the float image it was rounded
    from. Identifiers may hold any characters. An image on which the network is not finite has NaN in `reached`, and a
    `distance` that is not finite.

    Attributes:
      source: [N, H, W, C] uint8, the images started from.
      generated: [N, H, W, C] uint8, the images as saved.
      parts: what the network says, one for each of its outputs and each view.
      ids: N.
      steps: [N] int, steps used.
      distance: [N], the largest of the parts' distances, each in the measure of its kind.
      converged: [N] bool, the saved image reaches its target.

    >>> image = np.zeros((1, 8, 8, 3), np.uint8)
    >>> probs = np.array([[0.9, 0.1]])
    >>> part = Part(entries=("cat", "dog"), wanted=probs, before=probs[:, ::-1], reached=probs)
    >>> run = SynthesisRun(image, image, (part,), ("a.png",), np.array([3]), np.zeros(1), np.array([True]))
    >>> f"{distance_before(run)[0]:.3f}"
    '0.800'
    """

    source: np.ndarray
    generated: np.ndarray
    parts: tuple[Part, ...]
    ids: tuple[str, ...]
    steps: np.ndarray
    distance: np.ndarray
    converged: np.ndarray


def check_run(run: SynthesisRun, *, caller: str) -> None:
    """Fail, in the name of `caller`, on the first field that does not fit the others.

    Raises:
      ValueError: a shape, a type or a distance contradicts the other fields.
    """
    image_checks.check_batch(run.source, caller=caller, name="source", channels=(1, 3))
    if len(run.source):
        image_checks.check_uint8(run.source, caller=caller, name="source")
    if not run.parts:
        raise ValueError(f"{caller}: parts must have what the network says; there are none")
    number = len(run.source)
    expected: dict[str, tuple[int, ...]] = {"generated": run.source.shape}
    expected |= dict.fromkeys(("steps", "distance", "converged"), (number,))
    found = {field: np.shape(getattr(run, field)) for field in expected}
    for index, part in enumerate(run.parts):
        fields = {
            f"{name} of part {index}": getattr(part, name)
            for name in ("wanted", "before", "reached")
        }
        expected |= dict.fromkeys(fields, (number, len(part.entries)))
        found |= {field: np.shape(values) for field, values in fields.items()}
    for field, shape in expected.items():
        if found[field] != shape:
            raise ValueError(
                f"{caller}: {field} must be {list(shape)} to fit source and entries; "
                f"it is {list(found[field])}"
            )
    if run.generated.dtype != np.uint8:
        raise ValueError(
            f"{caller}: generated must be uint8, the image as saved; it is {run.generated.dtype}"
        )
    if len(run.ids) != number:
        raise ValueError(f"{caller}: {number} images need as many ids; there are {len(run.ids)}")
    _check_distance(run, caller)


def _check_distance(run: SynthesisRun, caller: str) -> None:
    measured = distance_reached(run)
    gap = np.abs(run.distance - measured)
    # What is not finite has no distance.
    gap = np.where(finite_rows(run) | np.isfinite(run.distance), gap, 0.0)
    # Distances of numbers may be large: a thousandth of them then.
    gap = np.where(np.isnan(gap), np.inf, gap) / np.maximum(1, np.nan_to_num(measured))
    if len(gap) and gap.max() > 1e-3:
        row = int(np.argmax(gap))
        raise ValueError(
            f"{caller}: distance of row {row} is {run.distance[row]:.4f}, off by "
            f"{abs(run.distance[row] - measured[row]):.4f} from wanted and reached. Measure both on the saved image"
        )


def finite_rows(run: SynthesisRun) -> np.ndarray:
    """Which images have finite outputs, [N] bool."""
    finite: np.ndarray = np.all([np.isfinite(part.reached).all(1) for part in run.parts], 0)
    return finite


def distance_before(run: SynthesisRun) -> np.ndarray:
    """How far the sources are from their targets, the largest over the parts: [N]."""
    found: np.ndarray = np.max([report_parts.distances(p, p.before) for p in run.parts], 0)
    return found


def distance_reached(run: SynthesisRun) -> np.ndarray:
    """How far the saved images are from their targets, the largest over the parts: [N], NaN where not finite."""
    found: np.ndarray = np.max([report_parts.distances(p, p.reached) for p in run.parts], 0)
    return found


def one_image(run: SynthesisRun, row: int) -> SynthesisRun:
    """The run of one of the images."""
    chosen = slice(row, row + 1)
    parts = tuple(
        p._replace(wanted=p.wanted[chosen], before=p.before[chosen], reached=p.reached[chosen])
        for p in run.parts
    )
    others = {name: getattr(run, name)[chosen] for name in run._fields if name != "parts"}
    return run._replace(parts=parts, **others)


def median(values: np.ndarray) -> float:
    """The median of the finite values; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def kl_divergence(wanted: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """KL(wanted || reached) of each row in nats, [N]; infinite where a wanted class got nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(reached)
    return np.asarray(jax.vmap(losses.kl_divergence)(jnp.asarray(logits), jnp.asarray(wanted)))


def pixel_change(run: SynthesisRun) -> tuple[np.ndarray, np.ndarray]:
    """Source to generated: L2 distance of pixels in [0, 1] and RMS in grey levels, [N] each."""
    # Image by image: a run may hold more of them than fit in memory as floats.
    pairs = zip(run.generated[:, None], run.source[:, None], strict=True)
    distances = np.array([metrics.l2_change(after, before)[0] for after, before in pairs])
    return distances, distances * 255 / np.sqrt(run.source[0].size)


def number(value: float) -> str:
    """Four decimals, or the bound where they would all be zero."""
    if np.isnan(value):
        return "not finite"
    if np.isinf(value):
        return "infinite"
    return "< 0.0001" if 0 < value < 0.0001 else f"{value:.4f}"
