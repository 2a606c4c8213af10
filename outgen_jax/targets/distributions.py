"""Target distributions: build and validate them (paper A).

Targets are float32 [B, K] on the host: one row per image, one column per class, entries in [0, 1],
rows summing to 1. Labels are int [B] in 0..K-1, probabilities of the source images float [B, K].
Everything here runs once per job in numpy, never inside jit. What is drawn for an image depends on
the seed and the image's id. Ids are row numbers unless `image_ids` or `source` are given; the ids 7,
"7" and b"7" are the same.
"""

from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import ArrayLike

from outgen_jax.targets import partial
from outgen_jax.targets.draws import ImageIds, id_digests, id_texts
from outgen_jax.whole_numbers import check_integers

_UNIFORM = 1e32  # concentration
SUM_TOLERANCE = 1.001e-3  # a hair over 1e-3, so that three times 0.333 passes


def validate(
    targets: ArrayLike, *, num_images: int, num_classes: int, caller: str = "targets.validate"
) -> np.ndarray:
    """Checks target distributions and returns them as a new float32 array [B, K], NaN where masked.

    Rows that sum to 1 within 1e-3 pass and are divided by their sum.

    Args:
      targets: probabilities [B, K], or [K] for all images. Masked entries (`numpy.ma`) are free:
          these classes share the probability that the others of the row leave.
      num_images: B.
      num_classes: K.
      caller: the function that the error messages name.

    Raises:
      ValueError: not numbers, a wrong shape, a value that is negative or not finite, or a row
          that does not sum to 1.

    >>> import outgen_jax as og
    >>> og.targets.validate([0.25, 0.75], num_images=2, num_classes=2).tolist()
    [[0.25, 0.75], [0.25, 0.75]]
    """
    try:
        rows = partial.as_masked(targets)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{caller}: targets must be an array of numbers ({error}). "
            "Use og.targets.parse to turn text into one"
        ) from None
    if rows.shape not in ((num_classes,), (num_images, num_classes)):
        raise ValueError(
            f"{caller}: targets must have shape [{num_classes}] or [{num_images}, {num_classes}] "
            f"for {num_images} images and {num_classes} classes; they have {list(rows.shape)}. "
            "Give one row per image, in the classifier's order of classes"
        )
    free = np.atleast_2d(np.ma.getmaskarray(rows))
    normalised = normalised_rows(np.atleast_2d(rows.filled(0)), caller, free=free)
    normalised[free] = np.nan
    return np.tile(normalised, (num_images, 1)) if rows.ndim == 1 else normalised


def dirichlet(
    seed: int,
    num_images: int,
    num_classes: int,
    *,
    alpha: float = 1.0,
    image_ids: ImageIds | None = None,
) -> np.ndarray:
    """Random targets from the symmetric Dirichlet distribution, one draw for each image.

    A draw depends on the seed and the image's id.

    Args:
      seed: an integer.
      num_images: B.
      num_classes: K.
      alpha: concentration > 0. With 1 all distributions are equally likely; smaller values
          approach one-hot rows, larger ones the uniform distribution.
      image_ids: B ids of the images; None: row numbers.

    Returns:
      float32 [B, K], rows summing to 1.

    Raises:
      ValueError: `alpha` or `num_classes` is not positive, `num_images` is negative, or the ids are not B.

    >>> import outgen_jax as og
    >>> og.targets.dirichlet(0, 2, 3).shape
    (2, 3)
    """
    caller = "targets.dirichlet"
    check_integers(caller=caller, num_images=num_images, num_classes=num_classes)
    if num_images < 0:
        raise ValueError(
            f"{caller}: num_images must not be negative; it is {num_images}. Give the number of images"
        )
    if np.ndim(alpha) > 0:
        raise ValueError(
            f"{caller}: alpha must be one number for all classes, got shape {list(np.shape(alpha))}. Draw other "
            "distributions with numpy.random.Generator.dirichlet, and pass the array"
        )
    if not (0 < alpha < np.inf and num_classes > 0):
        raise ValueError(
            f"{caller}: alpha and num_classes must be positive and finite; they are {alpha} and "
            f"{num_classes}. alpha=1 is uniform on the simplex"
        )
    ids = id_texts(image_ids, num_images, caller=caller)
    # Beyond this every row is uniform to the last bit, and the sum of numpy's draws may overflow.
    concentration = np.full(num_classes, min(alpha, _UNIFORM))
    targets = np.empty((num_images, num_classes), np.float32)
    for row, digest in zip(targets, id_digests(seed, "dirichlet", ids, caller=caller), strict=True):
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        row[:] = generator.dirichlet(concentration)
    return targets


def completed(targets: ArrayLike, probs: ArrayLike) -> np.ndarray:
    """The full targets closest to an output: free classes share the remainder in its proportions.

    The distance between an output and partial targets is the total variation between `probs` and these.

    Args:
      targets: [B, K] or [K], masked where free; full targets are returned as they are.
      probs: [B, K], the probabilities that the classifier returns.

    Returns:
      float32 [B, K].

    Raises:
      ValueError: targets that `validate` refuses, or `probs` outside [0, 1].

    >>> import outgen_jax as og
    >>> free = np.ma.masked_invalid([0.5, np.nan, np.nan])
    >>> og.targets.completed(free, [[0.2, 0.6, 0.2]]).round(4).tolist()
    [[0.5, 0.375, 0.125]]
    """
    output = np.atleast_2d(np.asarray(probs, np.float32))
    if not (output >= 0).all() or not (output <= 1 + SUM_TOLERANCE).all():
        raise ValueError(
            f"targets.completed: probs must lie in [0, 1]; they range from {output.min():g} to {output.max():g}. "
            "Give probabilities, as og.predict returns them, not logits"
        )
    rows = validate(
        targets, num_images=len(output), num_classes=output.shape[1], caller="targets.completed"
    )
    # NaN marks free entries on the way.
    with np.errstate(divide="ignore"), jax.debug_nans(False):
        return np.asarray(partial.complete(rows, np.log(output)))


def normalised_rows(
    rows: np.ndarray,
    caller: str,
    numbers: Sequence[int] | None = None,
    free: np.ndarray | None = None,
) -> np.ndarray:
    """The float64 rows [n, K] over their sums, as float32; messages call the rows by `numbers`.

    Rows with `free` entries [n, K] bool, which are 0, may sum to less than 1 and stay as they are.
    """
    names = range(len(rows)) if numbers is None else numbers
    mask = "Mask entries that are free: numpy.ma.masked_invalid(targets)"
    other = "Give probabilities, not logits; for outputs that are numbers, pass output=og.outputs.values()"
    for wrong, expected, remedy in (
        (~np.isfinite(rows), "be finite", mask),
        (rows < 0, "not be negative", other),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{caller}: targets must {expected}; row {names[row]} has {rows[row, column]:g} "
                f"for class {column}. {remedy}"
            )
    sums = rows.sum(axis=1)
    partial_rows = np.zeros(len(rows), bool) if free is None else free.any(axis=1)
    over = np.flatnonzero(partial_rows & (sums > 1 + SUM_TOLERANCE))
    if over.size:
        raise ValueError(
            f"{caller}: targets with free classes must not sum to more than 1; row "
            f"{names[over[0]]} sums to {sums[over[0]]:.6g}. Leave something for them"
        )
    off = np.flatnonzero(~partial_rows & (np.abs(sums - 1) > SUM_TOLERANCE))
    if off.size:
        raise ValueError(
            f"{caller}: targets must sum to 1 per row; row {names[off[0]]} sums to "
            f"{sums[off[0]]:.6g}. Normalise them or use og.targets.parse"
        )
    divisors = np.where(partial_rows, np.maximum(sums, 1), sums)
    normalised: np.ndarray = (rows / divisors[:, None]).astype(np.float32)
    return normalised
