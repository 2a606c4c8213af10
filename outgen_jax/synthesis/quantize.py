"""Images of 8 bits that still meet their targets.

Rounding changes the output a little; changing a few pixels by one more grey level corrects it. A round computes how the
output changes with each pixel (a Jacobian), and picks up to 1,024 pixels by it (`rounds`). The rounds of an image end
when it meets the tolerance or a round does not help. An image that misses the tolerance starts once more from a random
rounding, which keeps changes of less than half a grey level on average.

For a target of so many coordinates that solvers make no Jacobian, there are no rounds: the better of the two roundings
is the result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.networks import ApplyFn
from outgen_jax.solvers import jacobian
from outgen_jax.solvers.limits import Restriction, restriction
from outgen_jax.synthesis import batch_sizes, coordinates, predict, request, slot_sizes, slots
from outgen_jax.synthesis.bound import Bound, bind
from outgen_jax.synthesis.rounds import Levels, begun, next_round
from outgen_jax.whole_numbers import check_integers

ROUNDS = 6
TOLERANCE = 5e-4


def quantize(
    apply_fn: ApplyFn,
    variables: Any,
    images: ArrayLike,
    targets: Any,
    *,
    output: Any = None,
    source: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    batch_size: int | None = None,
    precision: str | None = "highest",
) -> np.ndarray:
    """Rounds images to 8 bits such that the outputs of the *rounded* images meet the targets.

    Starts from the nearest 8-bit image, and returns for every image the best one found. To measure it, call `predict`
    on the result.

    For a target of more than 512 coordinates, such as a dense map of outputs, no Jacobian is computed. The result is
    then the nearest rounding or a random one, whichever is closer to the target.

    Args:
      apply_fn: the network; see `synthesize`.
      variables: any pytree of arrays.
      images: [B, H, W, C], float in [0, 1] or uint8: images that meet their targets, such as `Result.images`.
      targets: the targets of the images; see `synthesize`.
      output: what the outputs mean; see `synthesize`.
      source: [B, H, W, C], float in [0, 1] or uint8: the images that `mask` and `max_change` are about.
      mask: [H, W] or [H, W, C]: where an entry is 0, the result has the level of `source`.
      max_change: no level is farther than this from `source`, in [0, 1]. With the `mask` and `max_change` of a solver,
        the result keeps its limits.
      rounds: the largest number of Jacobians. After each, up to 1,024 pixels change by one grey level. Float images
        that then miss the tolerance are rounded again at random, and get as many Jacobians from there.
      tolerance: distance at which an image is finished.
      batch_size: images in work at a time on each device; None: chosen by platform and image size.
      precision: of the network's matrix products and convolutions on GPU and TPU; see `synthesize`.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      ValueError: images, targets or outputs that `synthesize` refuses; a mask or `max_change` that solvers refuse, or
        without `source`; a `source` of another shape; negative rounds; a batch size or tolerance that is not positive;
        an unknown `precision`.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> apply_fn = lambda weights, images: images.reshape(len(images), -1) @ weights
    >>> weights = jnp.linspace(-0.3, 0.3, 96).reshape(48, 2)
    >>> og.quantize(apply_fn, weights, jnp.full((1, 4, 4, 3), 0.5), [0.5, 0.5]).dtype
    dtype('uint8')
    """
    array = request.checked_images(images, caller="quantize")
    request.check_tolerance(tolerance, caller="quantize", remedy=f"{TOLERANCE} is the default")
    check_integers(caller="quantize", rounds=rounds)
    if rounds < 0:
        raise ValueError(
            f"quantize: rounds must not be negative, got {rounds}; 0 rounds to the nearest level"
        )
    limits = restriction(mask, max_change, None, caller="quantize")
    origin = _checked_source(source, array, limits)
    bound = bind(
        apply_fn,
        variables,
        array,
        output=output,
        batch_size=batch_size,
        precision=precision,
        caller="quantize",
    )
    wanted = request.checked_targets(bound.meaning, targets, len(array), caller="quantize")
    predict.check_sources(bound, array, caller="quantize")
    return quantized(
        bound,
        array,
        wanted,
        counts=request.counts(bound.meaning, wanted),
        sources=origin,
        limits=limits,
        rounds=rounds,
        tolerance=float(tolerance),
    )


def _checked_source(
    source: ArrayLike | None, images: np.ndarray, limits: Restriction
) -> np.ndarray | None:
    """The images that limits are about.

    Raises:
      ValueError: there are limits and no source; its shape is not that of the images.
    """
    if source is None:
        if limits != Restriction():
            raise ValueError(
                "quantize: mask and max_change are about the change from the source images; pass these too, source=..."
            )
        return None
    origin = request.checked_images(source, caller="quantize: source")
    if origin.shape != images.shape:
        raise ValueError(
            f"quantize: source must have the shape of the images, {list(images.shape)}; it has {list(origin.shape)}. "
            "Pass the images that `synthesize` was given"
        )
    limits.check(images.shape[1:])
    return origin


def quantized(
    bound: Bound,
    images: np.ndarray,
    targets: tuple[np.ndarray, ...],
    *,
    counts: list[tuple[int | None, ...]],
    sources: np.ndarray | None = None,
    limits: Restriction = Restriction(),  # noqa: B008, it is immutable
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """`quantize` of a checked request."""
    sources = images if sources is None else sources
    nearest = images if images.dtype == np.uint8 else to_uint8(images)
    result, distance = nearest.copy(), np.full(len(images), np.inf)

    def attempt(start: np.ndarray, rows: np.ndarray) -> None:
        for counted, group in coordinates.grouped(counts, rows).items():
            num_rounds, size = _plan(bound, images, targets, counted, len(group), rounds)
            for first in range(0, len(group), size):
                # The last batch is filled up with copies of the last image, so that one shape is compiled.
                places = np.minimum(np.arange(first, first + size), len(group) - 1)
                chosen = group[places]
                batch = (start[chosen], sources[chosen], tuple(t[chosen] for t in targets))
                state = _corrected(bound, limits, batch, counted, num_rounds, tolerance)
                found = np.asarray(state.distance)
                better = found < distance[chosen]
                result[chosen[better]] = np.asarray(state.levels).astype(np.uint8)[better]
                distance[chosen[better]] = found[better]

    attempt(nearest, np.arange(len(images)))
    missed = np.flatnonzero(~(distance <= tolerance))
    if images.dtype != np.uint8 and rounds > 0 and len(missed):
        attempt(dithered(images), missed)
    return result


def _plan(
    bound: Bound,
    images: np.ndarray,
    targets: tuple[np.ndarray, ...],
    counts: tuple[int | None, ...],
    number: int,
    rounds: int,
) -> tuple[int, int]:
    """For `number` of the images, which one program serves: how many rounds, and how many images at a time."""
    num_rows = coordinates.num_coordinates(bound.kinds, targets, counts)
    has_jacobian = num_rows <= coordinates.MOST_ROWS
    passes = min(num_rows, jacobian.BLOCK) if has_jacobian else 1
    most = batch_sizes.largest(bound, images, passes=passes)
    sizes = slot_sizes.ladder(most, devices=bound.mesh.size)
    return rounds if has_jacobian else 0, slot_sizes.smallest(sizes, number)


def dithered(images: np.ndarray) -> np.ndarray:
    """Rounds [B, H, W, C] in [0, 1] up or down at random, by the fraction: right on average -> uint8.

    A change of less than half a grey level does not survive rounding to the nearest one. The noise is the same for
    every image.
    """
    noise = np.random.default_rng(0).random(images.shape[1:], np.float32)
    levels = np.float32(255) * images
    # What is whole but for rounding stays.
    whole = np.abs(levels - np.round(levels)) < 1e-3
    return np.where(whole, np.round(levels), np.floor(levels + noise)).astype(np.uint8)


def _corrected(
    bound: Bound,
    limits: Restriction,
    batch: tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]],
    counts: tuple[int | None, ...],
    rounds: int,
    tolerance: float,
) -> Levels:
    """The best of a batch of 8-bit images, and of what up to so many rounds of picks make of it."""
    threshold, mesh = np.float32(tolerance), bound.mesh

    def call(program: Callable[..., Levels], *args: Any) -> Levels:
        common = bound.network, bound.variables, threshold
        return program(*common, *args, kinds=bound.kinds, counts=counts, mesh=mesh)

    images, sources, targets = slots.shared(mesh, batch)
    state = call(begun, limits, images, sources, targets)
    for _ in range(rounds):
        if np.asarray(state.is_done).all():
            break
        state = call(next_round, targets, state)
    return state
