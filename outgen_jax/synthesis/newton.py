r"""Gauss–Newton: images whose output *is* the target, after a few Jacobians of the network.

The loss is a convex function of the logits, and only the logits are a hard function of the image.
So the network is linearised and the loss is not (the prox-linear method; Burke, "Descent methods
for composite nondifferentiable optimization problems", 1985):

.. math:: \min_Δ KL(q \| softmax(d + J Δ)) + \frac{μ}{2} \|Δ\|^2,  0 ≤ x + Δ ≤ 1

with d the log-ratios of the classes to the most wanted one, J their Jacobian and q the target. The
solution is a combination of the rows, Δ = Jᵀλ, so that a few numbers are searched for, not the
pixels; a class wanted with probability 0 is pushed down only as far as it still counts.

The first step with each Jacobian also goes part of the way back to the source, p = b (x₀ - x), and
Jᵀλ makes up for what that does to the output: so the whole change stays near the smallest.

A Jacobian costs a backward pass a row, a trial step one forward pass: so every Jacobian serves
several trials, corrected after each by what it failed to predict (Broyden, 1965).

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

from outgen_jax.synthesis import linearized, pixels
from outgen_jax.synthesis.solver import Network, Solver

STEPS = 30
TRIALS = 6
CLASSES = linearized.CLASSES

# Newton steps on λ, each of which moves no log-ratio by more than the second constant.
_MULTIPLIER_STEPS = 12
_MAX_CHANGE = 2.0
# Rounds in which pixels that would leave the box are held at its sides.
_ACTIVE_SET_ROUNDS = 3
# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
# How far a step goes back to the source at most: b, and over the radius.
_MAX_RETURN = 0.5
_MIN_RADIUS = 1e-4


class NewtonState(NamedTuple):
    """Where an image is, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    source: jax.Array  # [H, W, C]
    radius: jax.Array  # [], L2 norm of a step


class _Limits(NamedTuple):
    """What a change of one image may be."""

    low: jax.Array  # [D] pixels at least
    high: jax.Array  # [D] pixels at most
    smooth: Callable[[jax.Array], jax.Array]  # [D] -> [D], the inverse of the norm's matrix


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

    Every step that is taken lowers the KL divergence; how far the linear model is trusted is each
    image's own. With a `tolerance`, `synthesize` stops most images long before `steps`.

    Args:
      steps: Jacobians at most.
      trials: steps tried with each, a forward pass of the network apiece.
      classes: of a network with more, those of largest target are steered each by itself and the
        others as one; a Jacobian costs a backward pass a class.
      mask: [H, W] or [H, W, C], the same for all images: only pixels that are not 0 here change.
        Keep the solver: one with a mask, built anew, compiles anew.
      max_change: no pixel moves further than this from its source (L∞).
      lowpass_radius: changes are made of frequencies within about this many cycles per image side;
        None: of all alike, which is the smallest change in L2.

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
    def init(image: jax.Array) -> NewtonState:
        return NewtonState(image, image, jnp.float32(_FIRST_RADIUS * image.size**0.5))

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
        wanted, shape = linearized.group(target, classes), state.image.shape

        def flat(image: jax.Array) -> jax.Array:
            return network(image.reshape(shape))

        logits, ratios, rows = linearized.jacobian(flat, state.image.ravel(), classes)

        def ratios_of(image: jax.Array) -> jax.Array:
            return linearized.log_ratios(flat(image), classes)

        def once(trial: _Trial, index: jax.Array) -> tuple[_Trial, None]:
            back = jnp.where(index == 0, _way_back(trial, state.source.ravel()), 0)
            return _try(ratios_of, trial, wanted, limits(state.source), back), None

        start = _Trial(state.image.ravel(), ratios, rows, state.radius)
        end, _ = jax.lax.scan(once, start, jnp.arange(trials))
        return NewtonState(end.image.reshape(shape), state.source, end.radius), logits

    return Solver(init, update, lambda state: state.image, steps)


def multipliers(
    offset: jax.Array, gram: jax.Array, target: jax.Array, damping: jax.Array
) -> jax.Array:
    r"""The λ [M] of the step Δ = Jᵀλ, by Newton's method.

    .. math:: μ λ + softmax(d + J Jᵀ λ) - q = 0

    Args:
      offset: d [M], the log-ratios where λ = 0.
      gram: J Jᵀ [M, M].
      target: q [M], without the first class.
      damping: μ > 0.
    """

    def newton(_: int, multiplier: jax.Array) -> jax.Array:
        probs = linearized.probabilities(offset + gram @ multiplier)[1:]
        residual = damping * multiplier + probs - target
        curvature = probs[:, None] * gram - jnp.outer(probs, probs @ gram)
        step = jnp.linalg.solve(curvature + damping * jnp.eye(len(offset)), -residual)
        change = jnp.abs(gram @ step).max()
        return multiplier + step * jnp.minimum(1, _MAX_CHANGE / jnp.maximum(change, 1e-30))

    return jax.lax.fori_loop(0, _MULTIPLIER_STEPS, newton, jnp.zeros_like(offset))


def bounded_step(
    image: jax.Array,
    offset: jax.Array,
    rows: jax.Array,
    target: jax.Array,
    damping: jax.Array,
    limits: _Limits,
    back: jax.Array,
) -> jax.Array:
    """The change Δ = p + Jᵀλ [D] of an image [D], with image + Δ within the limits.

    `back` is p [D]. Pixels that would leave are held at the side they meet, and the others asked
    again.
    """
    low, high = limits.low - image, limits.high - image
    held, step = high <= low, jnp.zeros_like(image)
    for _ in range(_ACTIVE_SET_ROUNDS):
        given = jnp.where(held, step, back)
        free = jnp.where(held, 0, rows)
        ways = jnp.where(held, 0, jax.vmap(limits.smooth)(free))
        multiplier = multipliers(offset + rows @ given, free @ ways.T, target, damping)
        step = given + multiplier @ ways
        held |= (step < low) | (step > high)
        step = jnp.clip(step, low, high)
    return step


def next_radius(radius: jax.Array, length: jax.Array, agreement: jax.Array) -> jax.Array:
    """The radius after a step of L2 norm `length` that lowered the loss `agreement` times as foretold."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    shrunk = jnp.where(agreement > 0, taken / 2, taken / 4)
    kept = jnp.where(agreement > 0.75, 3 * radius, radius)
    return jnp.clip(jnp.where(agreement > 0.25, kept, shrunk), _MIN_RADIUS, 1 / _MIN_RADIUS)


def _try(
    ratios_of: Callable[[jax.Array], jax.Array],
    trial: _Trial,
    wanted: jax.Array,
    limits: _Limits,
    back: jax.Array,
) -> _Trial:
    """One step of one image, taken if it lowers the loss; rows and radius learn either way."""
    image, ratios, rows, radius = trial
    slope = (linearized.probabilities(ratios) - wanted)[1:] @ rows
    # With this damping Jᵀλ is no longer than the radius, and not held back near the target.
    steepness = jnp.sqrt(jnp.maximum(slope @ limits.smooth(slope), 0))
    damping = jnp.maximum(steepness / radius, 1e-10)
    step = bounded_step(image, ratios, rows, wanted[1:], damping, limits, back)
    moved = jnp.clip(image + step, limits.low, limits.high)
    step = moved - image
    foretold, found = ratios + rows @ step, ratios_of(moved)

    loss = linearized.divergence(wanted, ratios)
    gain, foretold_gain = (
        loss - linearized.divergence(wanted, found),
        loss - linearized.divergence(wanted, foretold),
    )
    better = gain > 0
    return _Trial(
        jnp.where(better, moved, image),
        jnp.where(better, found, ratios),
        linearized.broyden(rows, step, found - foretold),
        next_radius(radius, jnp.linalg.norm(step), gain / jnp.maximum(foretold_gain, 1e-30)),
    )


def _way_back(trial: _Trial, source: jax.Array) -> jax.Array:
    """Towards the source, by at most half of what is left and of the radius: [D]."""
    whole = source - trial.image
    length = jnp.maximum(jnp.linalg.norm(whole), 1e-30)
    return whole * jnp.minimum(_MAX_RETURN, _MAX_RETURN * trial.radius / length)
