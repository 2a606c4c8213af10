"""One step of Gauss–Newton: the change that the linearised network asks for, tried on the network itself.

An image is a vector [D]; M is the number of log-ratios. `newton` has the equations and makes the
Jacobians, several trials of which are made here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import linearized, ratio_loss

# Rounds in which pixels that would leave the box are held at its sides.
_ACTIVE_SET_ROUNDS = 3
# β of `downhill`.
_INERTIA = 0.9
# L2 norm of a first step on an image of D pixels, over √D: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
_MIN_RADIUS = 1e-4
# The same of the shortest limit on a step while the target is far: 0.05 for 32×32×3.
_SHORTEST_REACH = 0.0009


class Limits(NamedTuple):
    """What a change of one image may be."""

    low: jax.Array  # [D] pixels at least
    high: jax.Array  # [D] pixels at most
    smooth: Callable[[jax.Array], jax.Array]  # [D] -> [D], the inverse of the norm's matrix


class Task(NamedTuple):
    """What a step of one image is to do."""

    target: jax.Array  # q [M + 1]
    weight: jax.Array  # [], w of `ratio_loss`; 0 while the target is far
    limits: Limits
    stride: float | None  # of `newton.gauss_newton`
    wanders: ArrayLike = False  # [] bool: the image goes `downhill`, whether the loss falls or not


class Trial(NamedTuple):
    """The best image so far with its log-ratios, while one Jacobian serves."""

    image: jax.Array  # [D]
    ratios: jax.Array  # [M]
    rows: jax.Array  # [M, D]
    radius: jax.Array  # []
    step: jax.Array  # [D], the last


def bounded_step(
    task: Task,
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


def reach(task: Task, ratios: jax.Array, steepness: jax.Array, size: int) -> jax.Array:
    """How far a step of an image of `size` pixels may go, whatever its radius: [], L2 norm.

    `steepness` is the norm of ℓ's slope. Their quotient ℓ/‖∇ℓ‖ is Polyak's step (1987), which would end at ℓ = 0 if ℓ
    were linear.
    """
    if task.stride is None:
        return jnp.float32(jnp.inf)
    polyak = linearized.divergence(task.target, ratios) / jnp.maximum(steepness, 1e-20)
    far = jnp.maximum(_SHORTEST_REACH * size**0.5, task.stride * polyak)
    return jnp.where(task.weight > 0, jnp.inf, far)


def downhill(slope: jax.Array, last: jax.Array, length: jax.Array) -> jax.Array:
    r"""A step [D] of gradient descent with momentum, in which every slope counts alike.

    .. math:: Δ' = β Δ - (1 - β) s \frac{g}{\|g\|}

    g [D] is the slope, Δ [D] the last step, s [] the length that steps come to where the slope stays.
    """
    pull = length / jnp.maximum(jnp.linalg.norm(slope), 1e-20) * slope
    return _INERTIA * last - (1 - _INERTIA) * pull


def attempt(
    ratios_of: Callable[[jax.Array], jax.Array], trial: Trial, task: Task, given: jax.Array
) -> Trial:
    """One step of one image, taken if it lowers the loss or the image wanders; rows and radius learn either way."""
    image, ratios, rows, radius, last = trial
    slope = ratio_loss.slope(task.target, ratios, task.weight) @ rows
    way = task.limits.smooth(slope)
    # With this damping Jᵀλ is no longer than the radius, and not held back near the target.
    steepness = jnp.sqrt(jnp.maximum(slope @ way, 0))
    radius = jnp.minimum(radius, reach(task, ratios, steepness, image.size))
    damping = jnp.maximum(steepness / radius, 1e-10)
    step = jnp.where(
        task.wanders,
        downhill(way, last, radius),
        bounded_step(task, image, ratios, rows, damping, given),
    )
    moved = jnp.clip(image + step, task.limits.low, task.limits.high)
    step = moved - image
    foretold, found = ratios + rows @ step, ratios_of(moved)

    loss, foretold_loss, found_loss = (
        ratio_loss.loss(task.target, r, task.weight) for r in (ratios, foretold, found)
    )
    gain, foretold_gain = loss - found_loss, loss - foretold_loss
    is_finite = jnp.isfinite(found).all()
    better = (gain > 0) | (task.wanders & is_finite)
    learnt = next_radius(radius, jnp.linalg.norm(step), gain / jnp.maximum(foretold_gain, 1e-30))
    return Trial(
        jnp.where(better, moved, image),
        jnp.where(better, found, ratios),
        linearized.broyden(rows, step, jnp.where(is_finite, found - foretold, 0)),
        jnp.where(task.wanders, radius, learnt),
        step,
    )
