r"""Images of 8 bits that still meet their targets.

Rounding moves every pixel a little and the output with it. A few pixels, moved on by one grey level
more, bring it back. Which ones is a small problem of integers, solved greedily: with the changes a_i
of the output probabilities [N] per grey level of pixel i, each pick takes the pixel and the sign s
that most reduce the squared error,

.. math:: \|e - s a_i\|^2 - \|e\|^2 = \|a_i\|^2 - 2 s e · a_i

After some dozen picks the output is measured again, and the rest of the error picked again.

An image is a vector [D] of grey levels 0-255 (float32, whole numbers) here.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import pixels
from outgen_jax import targets as target_rows
from outgen_jax.metrics import classification
from outgen_jax.solvers import linearized
from outgen_jax.solvers.solver import Network
from outgen_jax.synthesis import predict
from outgen_jax.synthesis.predict import ApplyFn
from outgen_jax.targets import partial

ROUNDS = 6
TOLERANCE = 5e-4
_PICKS = 64


class _Levels(NamedTuple):
    """One image, and how many more picks of one round it is trusted with."""

    levels: jax.Array  # [H, W, C]
    distance: jax.Array  # [], total variation of their output to the target
    picks: jax.Array  # [] int32


def quantize(
    apply_fn: ApplyFn,
    variables: Any,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    classes: int | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Rounds images to 8 bits such that the classifier's output of the *rounded* images meets the targets.

    Starts from the nearest 8-bit image, and returns for every image the best it saw.

    Args:
      apply_fn: (variables, images [B, H, W, C] float32 in [0, 1]) -> logits [B, K], as in `synthesize`.
      variables: any pytree.
      images: [B, H, W, C] on their targets, float32 in [0, 1] or uint8; the closer, the better.
      targets: [B, K], or [K] for all images: probabilities, as in `synthesize`.
      rounds: Jacobians at most.
      tolerance: total variation at which an image is done.
      classes: so many of largest target are minded each by itself and the others as one, as in
        `gauss_newton`; None: all of a network with at most 32, otherwise all that are wanted at all.
      batch_size: images worked on at a time; None: chosen by backend and image size.

    Returns:
      uint8 [B, H, W, C]. To know how well they do, `predict` them.

    Raises:
      ValueError: images outside [0, 1] or not of rank 4; targets that are no distributions over the
        network's classes; negative rounds, or a batch size or tolerance that is not positive.
    """
    array = predict.validated_images(images, caller="quantize")
    at_least_one = (n for n in (classes, batch_size) if n is not None)
    if rounds < 0 or not tolerance > 0 or any(n < 1 for n in at_least_one):
        raise ValueError(
            "quantize: rounds must not be negative, tolerance, classes and batch_size positive, "
            f"got {rounds}, {tolerance}, {classes} and {batch_size}"
        )
    num_classes = predict.num_classes(apply_fn, variables, array, caller="quantize")
    rows = target_rows.validate(
        targets, num_images=len(array), num_classes=num_classes, caller="quantize"
    )
    steered = _num_wanted(rows) if classes is None else classes
    nearest = array if array.dtype == np.uint8 else pixels.to_uint8(array)
    result = np.empty(array.shape, np.uint8)
    size = min(batch_size or predict.default_batch_size(array), len(array))
    for start in range(0, len(array), size):
        # The last batch is filled up with copies of the last image, so that one shape is compiled.
        chosen = np.minimum(np.arange(start, start + size), len(array) - 1)
        levels = _corrected(
            apply_fn, variables, nearest[chosen], rows[chosen], steered, rounds, tolerance
        )
        result[start : start + size] = levels[: len(array) - start]
    return result


def _corrected(
    apply_fn: ApplyFn,
    variables: Any,
    nearest: np.ndarray,
    targets: np.ndarray,
    classes: int,
    rounds: int,
    tolerance: float,
) -> np.ndarray:
    """The best of a batch of 8-bit images, and of what up to so many rounds of picks make of it."""
    wanted = jnp.asarray(targets)
    state = _start(apply_fn, variables, jnp.asarray(nearest), wanted)
    for _ in range(rounds):
        if bool((state.distance <= tolerance).all()):
            break
        state = _round(apply_fn, classes, variables, wanted, jnp.float32(tolerance), state)
    return np.asarray(state.levels).astype(np.uint8)


def _num_wanted(targets: np.ndarray) -> int:
    """Classes to mind in every image of targets [B, K]."""
    num_classes = targets.shape[-1]
    named = partial.num_named(targets)
    return num_classes if num_classes <= linearized.CLASSES else min(linearized.CLASSES, named)


def greedy_picks(
    levels: jax.Array, effects: jax.Array, error: jax.Array, limit: jax.Array
) -> jax.Array:
    """Moves at most `limit` pixels by one grey level each, to cancel an error of the output.

    Args:
      levels: [D], whole numbers 0-255.
      effects: [N, D], change of the output per grey level.
      error: [N], wanted less present output.
      limit: [] int32, at most `_PICKS`.
    """
    squares = (effects**2).sum(0)

    def pick(i: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        change, error = carry
        along = error @ effects
        sign = jnp.sign(along)
        moved = levels + sign
        open_ = (change == 0) & (moved >= 0) & (moved <= 255)
        gain = jnp.where(open_, 2 * jnp.abs(along) - squares, 0)
        best = gain.argmax()
        taken = jnp.where((gain[best] > 0) & (i < limit), sign[best], 0)
        return change.at[best].add(taken), error - taken * effects[:, best]

    change, _ = jax.lax.fori_loop(0, _PICKS, pick, (jnp.zeros_like(levels), error))
    return levels + change


@functools.partial(jax.jit, static_argnames="apply_fn")
def _start(apply_fn: ApplyFn, variables: Any, images: jax.Array, targets: jax.Array) -> _Levels:
    network = predict.one_image(apply_fn, variables)

    def one(image: jax.Array, target: jax.Array) -> _Levels:
        levels = image.astype(jnp.float32)
        return _Levels(levels, _distance(network, levels, target), jnp.int32(_PICKS))

    return jax.vmap(one)(images, targets)


@functools.partial(jax.jit, static_argnames=("apply_fn", "count"), donate_argnames="state")
def _round(
    apply_fn: ApplyFn,
    count: int,
    variables: Any,
    targets: jax.Array,
    tolerance: jax.Array,
    state: _Levels,
) -> _Levels:
    network = predict.one_image(apply_fn, variables)

    def one(state: _Levels, target: jax.Array) -> _Levels:
        shape = state.levels.shape
        classes = linearized.leading_classes(target, count)
        logits, ratios, rows = linearized.jacobian(
            lambda levels: network(levels.reshape(shape) / 255), state.levels.ravel(), classes
        )
        probs = linearized.probabilities(ratios)
        effects = linearized.probability_rows(probs, rows)
        error = linearized.group(partial.complete(target, logits), classes) - probs
        levels = greedy_picks(state.levels.ravel(), effects, error, state.picks).reshape(shape)
        distance = _distance(network, levels, target)
        better = (distance < state.distance) & (state.distance > tolerance)
        return _Levels(
            jnp.where(better, levels, state.levels),
            jnp.where(better, distance, state.distance),
            jnp.where(better, state.picks, state.picks // 2),  # the linear model reached too far
        )

    return jax.vmap(one)(state, targets)


def _distance(network: Network, levels: jax.Array, target: jax.Array) -> jax.Array:
    logits = network(levels / 255)
    wanted = partial.complete(target, logits)
    return classification.total_variation(jax.nn.softmax(logits), wanted)
