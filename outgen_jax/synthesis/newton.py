r"""Gauss–Newton: images whose output *is* the target, after a few Jacobians of the network.

The loss is a convex function of the logits, and only the logits are a hard function of the image.
So the network is linearised and the loss is not (the prox-linear method; Burke, "Descent methods
for composite nondifferentiable optimization problems", 1985):

.. math:: \min_Δ ℓ(r + J Δ) + \frac{μ}{2} \|Δ\|^2,  0 ≤ x + Δ ≤ 1

with r the log-ratios of the classes to the most wanted one, J their Jacobian, and ℓ the KL
divergence to the target with a part that counts in nats (`ratio_loss`). The solution is a
combination of the rows, Δ = Jᵀλ, so that a few numbers are searched for, not the pixels.

A Jacobian costs a backward pass a row, a trial step one forward pass: so every Jacobian serves
several trials, corrected after each by what it failed to predict (Broyden, 1965). It also changes
quickly from image to image, so that half of it is what the one before had become. And where an image
is near but for classes wanted with 0 that are still far above, the first trial moves on as the last
step did, p = β (x - x'), with Jᵀλ making up for what that does to the output.

An image is a vector [D] in [0, 1] here; M is the number of log-ratios; changes are measured in L2,
or in a norm that makes fine detail dear.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax.synthesis import linearized, partial, pixels, ratio_loss
from outgen_jax.synthesis.solver import Network, Solver

STEPS = 40
TRIALS = 4
CLASSES = linearized.CLASSES

# Rounds in which pixels that would leave the box are held at its sides.
_ACTIVE_SET_ROUNDS = 3
# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
# The part of the loss that counts in nats: none while the KL divergence is above `_NEAR`, then so much, and from one
# Jacobian to the next so much less. Earlier it would press down classes that hardly count, at twice the change; and
# an image that cannot have all it is asked for ends where the probabilities are nearest.
_NEAR = 2e-3
_FIRST_WEIGHT = 0.1
_WEIGHT_DECAY = 0.93
# Share of the last Jacobian in the next, and β while a class of target 0 is this many nats too high.
_MEMORY = 0.5
_MOMENTUM = 0.8
_FAR = 1.0
_MIN_RADIUS = 1e-4


class NewtonState(NamedTuple):
    """Where an image is, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    source: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    rows: jax.Array  # [M, D], the last Jacobian, corrected; zeros at first
    radius: jax.Array  # [], L2 norm of a step
    weight: jax.Array  # [], w of `ratio_loss`


class _Limits(NamedTuple):
    """What a change of one image may be."""

    low: jax.Array  # [D] pixels at least
    high: jax.Array  # [D] pixels at most
    smooth: Callable[[jax.Array], jax.Array]  # [D] -> [D], the inverse of the norm's matrix


class _Task(NamedTuple):
    """What a step of one image is to do."""

    target: jax.Array  # q [M + 1]
    weight: jax.Array  # [], w of `ratio_loss`
    limits: _Limits


class _Trial(NamedTuple):
    """The best image so far with its log-ratios, while one Jacobian serves."""

    image: jax.Array  # [D]
    ratios: jax.Array  # [M]
    rows: jax.Array  # [M, D]
    radius: jax.Array  # []


def gauss_newton(
    *,
    steps: int = STEPS,
    trials: int = TRIALS,
    classes: int = CLASSES,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> Solver:
    """Moves an image onto its target by Gauss–Newton steps; see the module for the equations.

    Every step that is taken lowers the loss; how far the linear model is trusted is each image's
    own. With a `tolerance`, `synthesize` stops most images long before `steps`.

    Args:
      steps: Jacobians at most.
      trials: steps tried with each, a forward pass of the network apiece.
      classes: of a network with more, those of largest target are steered each by itself and the
        others as one; a Jacobian costs a backward pass a class. For partial targets: the number
        that is named.
      mask: [H, W] or [H, W, C], the same for all images: only pixels that are not 0 here change.
        Keep the solver: one with a mask, built anew, compiles anew.
      max_change: no pixel moves further than this from its source (L∞).
      lowpass_radius: changes are made of frequencies within about this many cycles per image side;
        None: of all alike, every step the smallest in L2.

    Raises:
      ValueError: a negative number of steps; no trials or classes; a `max_change` or radius that
        is not positive; a mask that is not of rank 2 or 3, or that lets nothing change.
    """
    if steps < 0 or trials < 1 or classes < 1:
        raise ValueError(
            "gauss_newton: steps must not be negative, trials and classes at least 1, got "
            f"{steps}, {trials} and {classes}"
        )
    for name, value in (("max_change", max_change), ("lowpass_radius", lowpass_radius)):
        if value is not None and not value > 0:
            raise ValueError(f"gauss_newton: {name} must be positive, got {value}; None: no limit")
    if mask is None:
        return _cached(steps, trials, classes, max_change, lowpass_radius)
    allowed = np.asarray(mask) != 0
    if allowed.ndim not in (2, 3) or not allowed.any():
        raise ValueError(
            "gauss_newton: mask must be [H, W] or [H, W, C] with an entry that is not 0, got "
            f"{int(allowed.sum())} such entries in {list(allowed.shape)}"
        )
    open_pixels = allowed if allowed.ndim == 3 else allowed[:, :, None]
    return _build(steps, trials, classes, max_change, lowpass_radius, open_pixels)


@functools.cache
def _cached(
    steps: int,
    trials: int,
    classes: int,
    max_change: float | None,
    lowpass_radius: float | None,
) -> Solver:
    return _build(steps, trials, classes, max_change, lowpass_radius, None)


def _build(
    steps: int,
    trials: int,
    num_classes: int,
    max_change: float | None,
    lowpass_radius: float | None,
    mask: np.ndarray | None,
) -> Solver:
    def init(image: jax.Array, target: jax.Array) -> NewtonState:
        rows = linearized.num_ratios(len(target), num_classes)
        return NewtonState(
            image=image,
            source=image,
            step=jnp.zeros_like(image),
            rows=jnp.zeros((rows, image.size)),
            radius=first_radius(image),
            weight=jnp.float32(0),
        )

    def limits(source: jax.Array) -> _Limits:
        reach = 1.0 if max_change is None else max_change
        allowed = jnp.broadcast_to(1.0 if mask is None else jnp.asarray(mask), source.shape)
        low, high = (jnp.clip(source + s * reach * allowed, 0, 1).ravel() for s in (-1, 1))

        def smooth(row: jax.Array) -> jax.Array:
            if lowpass_radius is None:
                return row
            image = row.reshape(source.shape)
            return pixels.lowpass(image, lowpass_radius, rolloff="gaussian").ravel()

        return _Limits(low, high, smooth)

    def update(
        network: Network, state: NewtonState, target: jax.Array
    ) -> tuple[NewtonState, jax.Array]:
        classes = linearized.leading_classes(target, num_classes)
        shape = state.image.shape

        def flat(image: jax.Array) -> jax.Array:
            return network(image.reshape(shape))

        logits, ratios, rows = linearized.jacobian(flat, state.image.ravel(), classes)
        wanted = linearized.group(partial.complete(target, logits), classes)
        memory = jnp.where((state.rows == 0).all(), 0, _MEMORY)
        moves_on = (state.weight > 0) & _is_far(wanted, ratios)
        onward = jnp.where(moves_on, _MOMENTUM, 0) * state.step.ravel()

        def once(trial: _Trial, index: jax.Array) -> tuple[_Trial, None]:
            given = jnp.where(index == 0, onward, 0)
            task = _Task(wanted, state.weight, limits(state.source))
            return _try(ratios_of, trial, task, given), None

        def ratios_of(image: jax.Array) -> jax.Array:
            return linearized.log_ratios(flat(image), classes)

        averaged = memory * state.rows + (1 - memory) * rows
        start = _Trial(state.image.ravel(), ratios, averaged, state.radius)
        end, _ = jax.lax.scan(once, start, jnp.arange(trials))
        image = end.image.reshape(shape)
        step = image - state.image
        is_near = linearized.divergence(wanted, end.ratios) < _NEAR
        first = jnp.where(is_near, _FIRST_WEIGHT, 0)
        weight = jnp.where(state.weight > 0, _WEIGHT_DECAY * state.weight, first)
        return NewtonState(image, state.source, step, end.rows, end.radius, weight), logits

    return Solver(init, update, lambda state: state.image, steps)


def bounded_step(
    task: _Task,
    image: jax.Array,
    offset: jax.Array,
    rows: jax.Array,
    damping: jax.Array,
    given: jax.Array,
) -> jax.Array:
    """The change Δ = p + Jᵀλ [D] of an image [D], with image + Δ within the limits.

    `given` is p [D], `offset` the log-ratios of the image [M]. Pixels that would leave are held at
    the side they meet, and the others asked again.
    """
    low, high = task.limits.low - image, task.limits.high - image
    held, step = high <= low, jnp.zeros_like(image)
    for _ in range(_ACTIVE_SET_ROUNDS):
        fixed = jnp.where(held, step, given)
        free = jnp.where(held, 0, rows)
        ways = jnp.where(held, 0, jax.vmap(task.limits.smooth)(free))
        multiplier = ratio_loss.multipliers(
            offset + rows @ fixed, free @ ways.T, task.target, damping, task.weight
        )
        step = fixed + multiplier @ ways
        held |= (step < low) | (step > high)
        step = jnp.clip(step, low, high)
    return step


def first_radius(image: jax.Array) -> jax.Array:
    """How far the first step of an image may go: [], L2 norm."""
    return jnp.float32(_FIRST_RADIUS * image.size**0.5)


def next_radius(radius: jax.Array, length: jax.Array, agreement: jax.Array) -> jax.Array:
    """The radius after a step of L2 norm `length` that lowered the loss `agreement` times as foretold."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    shrunk = jnp.where(agreement > 0, taken / 2, taken / 4)
    kept = jnp.where(agreement > 0.75, 3 * radius, radius)
    return jnp.clip(jnp.where(agreement > 0.25, kept, shrunk), _MIN_RADIUS, 1 / _MIN_RADIUS)


def _try(
    ratios_of: Callable[[jax.Array], jax.Array], trial: _Trial, task: _Task, given: jax.Array
) -> _Trial:
    """One step of one image, taken if it lowers the loss; rows and radius learn either way."""
    image, ratios, rows, radius = trial
    slope = ratio_loss.slope(task.target, ratios, task.weight) @ rows
    # With this damping Jᵀλ is no longer than the radius, and not held back near the target.
    steepness = jnp.sqrt(jnp.maximum(slope @ task.limits.smooth(slope), 0))
    damping = jnp.maximum(steepness / radius, 1e-10)
    step = bounded_step(task, image, ratios, rows, damping, given)
    moved = jnp.clip(image + step, task.limits.low, task.limits.high)
    step = moved - image
    foretold, found = ratios + rows @ step, ratios_of(moved)

    loss, foretold_loss, found_loss = (
        ratio_loss.loss(task.target, r, task.weight) for r in (ratios, foretold, found)
    )
    gain, foretold_gain = loss - found_loss, loss - foretold_loss
    better = gain > 0
    return _Trial(
        jnp.where(better, moved, image),
        jnp.where(better, found, ratios),
        linearized.broyden(rows, step, found - foretold),
        next_radius(radius, jnp.linalg.norm(step), gain / jnp.maximum(foretold_gain, 1e-30)),
    )


def _is_far(wanted: jax.Array, ratios: jax.Array) -> jax.Array:
    """Whether a class wanted with 0 has much more: [] bool."""
    errors = ratio_loss.log_errors(wanted, ratios)
    return jnp.where(wanted[1:] < ratio_loss.FLOOR, errors, 0).max(initial=0) > _FAR
