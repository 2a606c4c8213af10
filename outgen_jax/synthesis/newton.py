r"""Gauss–Newton: images whose output *is* the target, after a few Jacobians of the network.

The loss is a convex function of the logits, and only the logits are a hard function of the image.
So the network is linearised and the loss is not (the prox-linear method; Burke, "Descent methods
for composite nondifferentiable optimization problems", 1985):

.. math:: \min_Δ KL(q \| softmax(d + J Δ)) + \frac{μ}{2} \|Δ\|^2,  0 ≤ x + Δ ≤ 1

with d the log-ratios of the classes to the most wanted one, J their Jacobian and q the target. The
solution is a combination of the rows, Δ = Jᵀλ, so that a few numbers are searched for, not the
pixels; a class wanted with probability 0 is pushed down only as far as it still counts.

A Jacobian costs a backward pass a row, a trial step one forward pass: so every Jacobian serves
several trials, corrected after each by what it failed to predict (Broyden, 1965).

An image is a vector [D] in [0, 1] here; M is the number of log-ratios; changes are measured in L2.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from outgen_jax import losses
from outgen_jax.synthesis.solver import Network, Solver

STEPS = 30
TRIALS = 6
CLASSES = 32

# Newton steps on λ, each of which moves no log-ratio by more than the second constant.
_MULTIPLIER_STEPS = 12
_MAX_CHANGE = 2.0
# Rounds in which pixels that would leave the box are held at its sides.
_ACTIVE_SET_ROUNDS = 3
# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
_MIN_RADIUS = 1e-4


class NewtonState(NamedTuple):
    """Where an image is, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    radius: jax.Array  # [], L2 norm of a step


class _Trial(NamedTuple):
    """The best image so far with its log-ratios, while one Jacobian serves."""

    image: jax.Array  # [D]
    ratios: jax.Array  # [M]
    rows: jax.Array  # [M, D]
    radius: jax.Array  # []


def gauss_newton(*, steps: int = STEPS, trials: int = TRIALS, classes: int = CLASSES) -> Solver:
    """Moves an image onto its target by Gauss–Newton steps; see the module for the equations.

    Every step that is taken lowers the KL divergence; how far the linear model is trusted is each
    image's own. With a `tolerance`, `synthesize` stops most images long before `steps`.

    Args:
      steps: Jacobians at most.
      trials: steps tried with each, a forward pass of the network apiece.
      classes: of a network with more, those of largest target are steered each by itself and the
        others as one; a Jacobian costs a backward pass a class.

    Raises:
      ValueError: a negative number of steps, no trials, or no class.
    """
    if steps < 0 or trials < 1 or classes < 1:
        raise ValueError(
            "gauss_newton: steps must not be negative, trials and classes at least 1, got "
            f"{steps}, {trials} and {classes}"
        )
    return _cached(steps, trials, classes)


@functools.cache
def _cached(steps: int, trials: int, num_classes: int) -> Solver:
    def init(image: jax.Array) -> NewtonState:
        return NewtonState(image, jnp.float32(_FIRST_RADIUS * image.size**0.5))

    def update(
        network: Network, state: NewtonState, target: jax.Array
    ) -> tuple[NewtonState, jax.Array]:
        classes = leading_classes(target, num_classes)
        wanted = group(target, classes)

        def flat(image: jax.Array) -> jax.Array:
            return network(image.reshape(state.image.shape))

        logits, ratios, rows = jacobian(flat, state.image.ravel(), classes)

        def once(trial: _Trial, _: None) -> tuple[_Trial, None]:
            return _try(lambda image: log_ratios(flat(image), classes), trial, wanted), None

        start = _Trial(state.image.ravel(), ratios, rows, state.radius)
        end, _ = jax.lax.scan(once, start, length=trials)
        return NewtonState(end.image.reshape(state.image.shape), end.radius), logits

    return Solver(init, update, lambda state: state.image, steps)


def leading_classes(target: jax.Array, count: int) -> jax.Array:
    """The `count` classes of largest target, or all there are, largest first: [K] -> [N] int."""
    return jax.lax.top_k(target, min(count, len(target)))[1]


def group(probs: jax.Array, classes: jax.Array) -> jax.Array:
    """Probabilities of `classes` [N], then of all others together if there are any: [N] or [N + 1]."""
    leading = probs[classes]
    if len(classes) == len(probs):
        return leading
    return jnp.append(leading, jnp.delete(probs, classes, assume_unique_indices=True).sum())


def log_ratios(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """log(p/p₀) in the order of `group`, p₀ the first of `classes`: [K] -> [M], M one less than there."""
    ratios = logits[classes[1:]] - logits[classes[0]]
    if len(classes) == len(logits):
        return ratios
    others = jnp.delete(logits, classes, assume_unique_indices=True)
    return jnp.append(ratios, jax.nn.logsumexp(others) - logits[classes[0]])


def jacobian(
    network: Callable[[jax.Array], jax.Array], image: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits [K] of an image [D], their `log_ratios` [M] and the Jacobian of these [M, D]."""
    logits, to_image = jax.vjp(network, image)
    ratios, to_logits = jax.vjp(lambda logits: log_ratios(logits, classes), logits)
    rows = jax.vmap(lambda cotangent: to_image(*to_logits(cotangent))[0])(jnp.eye(len(ratios)))
    return logits, ratios, rows


def divergence(wanted: jax.Array, ratios: jax.Array) -> jax.Array:
    """KL(q ‖ p) of a target as `group` gives it [M + 1] and an output as `log_ratios` gives it [M]."""
    return losses.kl_divergence(wanted, jnp.insert(ratios, 0, 0.0))


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
        probs = _probs(offset + gram @ multiplier)[1:]
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
) -> jax.Array:
    """The change Δ [D] of an image [D] by `multipliers`, with image + Δ in [0, 1].

    Pixels that would leave are held at the side they meet, and the others asked again.
    """
    low, high = -image, 1 - image
    held, step = jnp.zeros_like(image, bool), jnp.zeros_like(image)
    for _ in range(_ACTIVE_SET_ROUNDS):
        at_side = jnp.where(held, step, 0)
        free = jnp.where(held, 0, rows)
        multiplier = multipliers(offset + rows @ at_side, free @ free.T, target, damping)
        step = jnp.where(held, at_side, multiplier @ free)
        held |= (step < low) | (step > high)
        step = jnp.clip(step, low, high)
    return step


def broyden(rows: jax.Array, step: jax.Array, surprise: jax.Array) -> jax.Array:
    r"""J + (y - JΔ) Δᵀ / ΔᵀΔ: the Jacobian nearest to `rows` that would have predicted y.

    `rows` [M, D], `step` Δ [D], `surprise` y - JΔ [M].
    """
    squared = step @ step
    return rows + jnp.outer(surprise, step) / jnp.where(squared > 0, squared, 1)


def next_radius(radius: jax.Array, length: jax.Array, agreement: jax.Array) -> jax.Array:
    """The radius after a step of L2 norm `length` that lowered the loss `agreement` times as foretold."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    shrunk = jnp.where(agreement > 0, taken / 2, taken / 4)
    kept = jnp.where(agreement > 0.75, 3 * radius, radius)
    return jnp.clip(jnp.where(agreement > 0.25, kept, shrunk), _MIN_RADIUS, 1 / _MIN_RADIUS)


def _try(ratios_of: Callable[[jax.Array], jax.Array], trial: _Trial, wanted: jax.Array) -> _Trial:
    """One step of one image, taken if it lowers the loss; rows and radius learn either way."""
    image, ratios, rows, radius = trial
    slope = (_probs(ratios) - wanted)[1:] @ rows
    # With this damping no step is longer than the radius, and none is held back near the target.
    damping = jnp.maximum(jnp.linalg.norm(slope) / radius, 1e-10)
    moved = jnp.clip(image + bounded_step(image, ratios, rows, wanted[1:], damping), 0, 1)
    step = moved - image
    foretold, found = ratios + rows @ step, ratios_of(moved)

    loss = divergence(wanted, ratios)
    gain, foretold_gain = loss - divergence(wanted, found), loss - divergence(wanted, foretold)
    better = gain > 0
    return _Trial(
        jnp.where(better, moved, image),
        jnp.where(better, found, ratios),
        broyden(rows, step, found - foretold),
        next_radius(radius, jnp.linalg.norm(step), gain / jnp.maximum(foretold_gain, 1e-30)),
    )


def _probs(ratios: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.insert(ratios, 0, 0.0))
