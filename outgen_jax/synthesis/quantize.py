r"""Images of 8 bits that still meet their targets.

Rounding changes the output a little; changing a few pixels by one more grey level corrects it. Let e [N] be the error
of the judged outputs, such as probabilities, and a_i [N] their change per grey level of pixel i. Each pick takes the
pixel and the sign s that most reduce the squared error,

.. math:: \|e - s a_i\|^2 - \|e\|^2 = \|a_i\|^2 - 2 s e · a_i

A round computes the a_i (a Jacobian) and makes up to 1,024 picks. Not all pixels are compared for each pick: they form
256 groups, and the best pixels of the groups serve eight picks before they are chosen anew. The round measures the
output after all of its picks, and after the first half, quarter and eighth, since the linear model holds for small
changes only; the best of these is kept. The rounds of an image end when it meets the tolerance or a round does not
help. An image that misses the tolerance starts once more from a random rounding, which keeps changes of less than half
a grey level on average.

For a target of so many coordinates that solvers make no Jacobian, there are no rounds: the better of the two roundings
is the result.

Here an image is a vector [D] of grey levels 0 to 255 (float32, whole numbers).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.networks import ApplyFn
from outgen_jax.outputs import Output
from outgen_jax.solvers import jacobian
from outgen_jax.solvers.limits import Restriction, restriction
from outgen_jax.solvers.objective import Objective, Outputs
from outgen_jax.synthesis import batch_sizes, coordinates, predict, request, slot_sizes, slots
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis.bound import Bound, bind
from outgen_jax.synthesis.programs import Network, per_network
from outgen_jax.whole_numbers import check_integers

ROUNDS = 6
TOLERANCE = 5e-4
_PICKS = 1024  # in a round, at most
_CANDIDATES = 256  # pixels that are compared for a pick, the best of as many groups
_PICKS_AMONG = 8  # made among the same candidates
_PARTS = (1, 2, 4, 8)  # of the picks of a round: all, the first half, and so on


class _Levels(NamedTuple):
    """One image."""

    levels: jax.Array  # [H, W, C]
    low: jax.Array  # [H, W, C], levels at least
    high: jax.Array  # [H, W, C], levels at most
    distance: jax.Array  # [], of their output to the target
    is_done: jax.Array  # [] bool: it meets the tolerance, or the last round did not help


class _Pixels(NamedTuple):
    """Pixels that may be picked."""

    levels: jax.Array  # [D]
    low: jax.Array  # [D], levels at least
    high: jax.Array  # [D], levels at most
    effects: jax.Array  # [N, D], change of the output per grey level
    squares: jax.Array  # [D], of the effects


class _Picks(NamedTuple):
    """The picks of one round so far."""

    change: jax.Array  # [D], of the levels: -1, 0 or 1
    order: jax.Array  # [D] int32: which pick changed a pixel, counted from 0
    made: jax.Array  # [] int32, how many
    error: jax.Array  # [N], by the linear model
    gains: jax.Array  # [] bool: whether the last pick reduced the error


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
            num_rows = coordinates.num_coordinates(bound.kinds, targets, counted)
            has_jacobian = num_rows <= coordinates.MOST_ROWS
            num_rounds = rounds if has_jacobian else 0
            passes = min(num_rows, jacobian.BLOCK) if has_jacobian else 1
            most = batch_sizes.largest(bound, images, passes=passes)
            sizes = slot_sizes.ladder(most, devices=bound.mesh.size)
            size = slot_sizes.smallest(sizes, len(group))
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
) -> _Levels:
    """The best of a batch of 8-bit images, and of what up to so many rounds of picks make of it."""
    threshold, mesh = np.float32(tolerance), bound.mesh

    def call(program: Callable[..., _Levels], *args: Any) -> _Levels:
        common = bound.network, bound.variables, threshold
        return program(*common, *args, kinds=bound.kinds, counts=counts, mesh=mesh)

    images, sources, targets = slots.shared(mesh, batch)
    state = call(_start, limits, images, sources, targets)
    for _ in range(rounds):
        if np.asarray(state.is_done).all():
            break
        state = call(_round, targets, state)
    return state


def level_range(limits: Restriction, source: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The least and largest levels [H, W, C] that the limits on the change of a source [H, W, C] in [0, 1] allow.

    Where they allow no whole level, both are the nearest one.
    """
    low, high, *_ = limits.limits(source)
    nearest = jnp.round(127.5 * (low + high))
    # A whole level may be 1e-5 off by rounding.
    least, most = jnp.ceil(255 * low - 1e-3), jnp.floor(255 * high + 1e-3)
    is_empty = least > most
    least, most = jnp.where(is_empty, nearest, least), jnp.where(is_empty, nearest, most)
    return least.reshape(source.shape), most.reshape(source.shape)


def greedy_picks(
    levels: jax.Array,
    effects: jax.Array,
    error: jax.Array,
    limit: int = _PICKS,
    *,
    low: ArrayLike = 0.0,
    high: ArrayLike = 255.0,
) -> tuple[jax.Array, jax.Array]:
    """Moves at most `limit` pixels by one grey level each, to cancel an error of the output.

    Args:
      levels: [D], whole numbers 0-255.
      effects: [N, D], change of the output per grey level.
      error: [N], wanted less present output.
      limit: of the picks; they end earlier where none reduces the error.
      low: [D] or one number, levels at least.
      high: [D] or one number, levels at most.

    Returns:
      The change of the levels [D], of -1, 0 or 1, and which pick made it [D] int32, counted from 0.
    """
    least, most = (jnp.broadcast_to(jnp.float32(x), levels.shape) for x in (low, high))
    pixels = _Pixels(levels, least, most, effects, (effects**2).sum(0))
    candidates = min(_CANDIDATES, levels.size)

    def picks_among_candidates(picks: _Picks) -> _Picks:
        gain, _ = _gains(pixels, picks)
        padding = (0, -gain.size % candidates)
        groups = jnp.pad(gain, padding, constant_values=-jnp.inf).reshape(-1, candidates)
        chosen = groups.argmax(0) * candidates + jnp.arange(candidates)
        few = pixels._replace(
            levels=levels[chosen],
            low=least[chosen],
            high=most[chosen],
            effects=effects[:, chosen],
            squares=pixels.squares[chosen],
        )
        until = jnp.minimum(picks.made + _PICKS_AMONG, limit)
        found = jax.lax.while_loop(
            lambda picks: picks.gains & (picks.made < until),
            lambda picks: _pick(few, picks),
            picks._replace(change=picks.change[chosen], order=picks.order[chosen]),
        )
        return found._replace(
            change=picks.change.at[chosen].set(found.change),
            order=picks.order.at[chosen].set(found.order),
            gains=found.made > picks.made,
        )

    none = jnp.zeros_like(levels)
    start = _Picks(none, none.astype(jnp.int32), jnp.int32(0), error, jnp.bool_(True))
    found = jax.lax.while_loop(
        lambda picks: picks.gains & (picks.made < limit), picks_among_candidates, start
    )
    return found.change, found.order


def _gains(pixels: _Pixels, picks: _Picks) -> tuple[jax.Array, jax.Array]:
    """By how much one more pick of each pixel reduces the squared error [D], and its sign [D]."""
    along = picks.error @ pixels.effects
    sign = jnp.sign(along)
    moved = pixels.levels + sign
    is_open = (picks.change == 0) & (moved >= pixels.low) & (moved <= pixels.high)
    return jnp.where(is_open, 2 * jnp.abs(along) - pixels.squares, 0), sign


def _pick(pixels: _Pixels, picks: _Picks) -> _Picks:
    """The pick that most reduces the squared error, if one does."""
    gain, sign = _gains(pixels, picks)
    best = gain.argmax()
    gains = gain[best] > 0
    taken = jnp.where(gains, sign[best], 0)
    return _Picks(
        picks.change.at[best].add(taken),
        picks.order.at[best].set(jnp.where(gains, picks.made, picks.order[best])),
        picks.made + gains,
        picks.error - taken * pixels.effects[:, best],
        gains,
    )


@per_network(static_argnames=("kinds", "counts", "mesh"))
def _start(
    network: Network,
    variables: Any,
    tolerance: jax.Array,
    limits: Restriction,
    images: jax.Array,
    sources: jax.Array,
    targets: Outputs,
    *,
    kinds: tuple[Output, ...],
    counts: tuple[int | None, ...],
    mesh: Mesh,
) -> _Levels:
    def share(
        variables: Any,
        tolerance: jax.Array,
        limits: Restriction,
        batch: tuple[jax.Array, jax.Array, Outputs],
    ) -> _Levels:
        seen = networks.of_one_image(network, kinds, variables)

        def one(image: jax.Array, source: jax.Array, targets: Outputs) -> _Levels:
            low, high = level_range(limits, source)
            levels = jnp.clip(image.astype(jnp.float32), low, high)
            distance = Objective(targets, kinds, counts).distance(seen(levels / 255))
            return _Levels(levels, low, high, distance, distance <= tolerance)

        images, sources, targets = batch
        if sources.dtype == jnp.uint8:
            sources = sources.astype(jnp.float32) / 255
        return jax.vmap(one)(images, sources, targets)

    lifted = slots.on_each_device(mesh, share, slots.SPLIT)
    return lifted(variables, tolerance, limits, (images, sources, targets))


@per_network(static_argnames=("kinds", "counts", "mesh"))
def _round(
    network: Network,
    variables: Any,
    tolerance: jax.Array,
    targets: Outputs,
    state: _Levels,
    *,
    kinds: tuple[Output, ...],
    counts: tuple[int | None, ...],
    mesh: Mesh,
) -> _Levels:
    def share(variables: Any, tolerance: jax.Array, batch: tuple[_Levels, Outputs]) -> _Levels:
        seen = networks.of_one_image(network, kinds, variables)

        def one(state: _Levels, targets: Outputs) -> _Levels:
            shape, objective = state.levels.shape, Objective(targets, kinds, counts)
            outputs, r, rows = jacobian.jacobian(seen, objective, state.levels / 255)
            _, compared = jax.linearize(objective.compared, r)
            effects = jax.vmap(compared, in_axes=1, out_axes=1)(rows) / 255  # [N, D], of a level
            error = objective.compared_targets(objective.goals(outputs)) - objective.compared(r)
            free = jnp.isnan(error)
            error, effects = jnp.where(free, 0, error), jnp.where(free[:, None], 0, effects)
            change, order = greedy_picks(
                state.levels.ravel(),
                effects,
                error,
                low=state.low.ravel(),
                high=state.high.ravel(),
            )
            count = (change != 0).sum(dtype=jnp.int32)
            parts = (jnp.where(order < count // part, change, 0) for part in _PARTS)
            tried = jnp.stack([state.levels + part.reshape(shape) for part in parts])
            distances = jax.vmap(lambda levels: objective.distance(seen(levels / 255)))(tried)
            best = jnp.where(jnp.isnan(distances), jnp.inf, distances).argmin()
            better = ~state.is_done & (distances[best] < state.distance)
            distance = jnp.where(better, distances[best], state.distance)
            return _Levels(
                jnp.where(better, tried[best], state.levels),
                state.low,
                state.high,
                distance,
                state.is_done | ~better | (distance <= tolerance),
            )

        return jax.vmap(one)(*batch)

    return slots.on_each_device(mesh, share, slots.SPLIT)(variables, tolerance, (state, targets))
