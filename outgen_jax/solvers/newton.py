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

The network is far from linear on the way: long steps arrive after fewer Jacobians, with larger
changes. So while an image is far from its target its steps keep to a share of what
the slope foretells, and the first trial of each Jacobian takes back a part of that change so far
which the output does not feel, p = -α (I - J⁺J)(x - x₀), of the step's length at most.

The part in nats fades from Jacobian to Jacobian, and images arrive as it does. What has not arrived by then
creeps: the loss bends within less than a step. Such an image wanders, by descent with momentum in long steps that
shrink to none, taken whether the loss falls or not, then starts again from there, with all but its source forgotten.

An image is a vector [D] in [0, 1] here; M is the number of log-ratios; changes are measured in L2,
or in a norm that makes fine detail dear.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import pixels
from outgen_jax.solvers import linearized, newton_step, ratio_loss
from outgen_jax.solvers.newton_step import Limits, Task, Trial, attempt
from outgen_jax.solvers.solver import Network, Solver
from outgen_jax.targets import partial

STEPS = 40
TRIALS = 4
STRIDE = 0.5
CLASSES = linearized.CLASSES

# The part of the loss that counts in nats: none while the KL divergence is above `_NEAR`, then so much, and from one
# Jacobian to the next so much less. Earlier it would press down classes that hardly count, at twice the change; and
# an image that cannot have all it is asked for ends where the probabilities are nearest.
_NEAR = 2e-3
_FIRST_WEIGHT = 0.1
_WEIGHT_DECAY = 0.93
# An image that has not arrived after so many Jacobians wanders for the next so many, by steps of at most this share
# of its change so far, and starts again from there; it arrives soon then, or wanders once more.
_PASS = 48
_LATER_PASS = 24
_WANDER = 32
_SHARE = 0.7
# Share of the last Jacobian in the next; α while an image is far, then β while a class of target 0 is this many nats
# too high.
_MEMORY = 0.5
_RETURN = 0.2
_MOMENTUM = 0.8
_FAR = 1.0


class NewtonState(NamedTuple):
    """Where an image is, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    source: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    rows: jax.Array  # [M, D], the last Jacobian, corrected; zeros at first
    radius: jax.Array  # [], L2 norm of a step
    weight: jax.Array  # [], w of `ratio_loss`
    age: jax.Array  # [] int, Jacobians up to `_PASS`, where it wanders


class _Options(NamedTuple):
    """What `gauss_newton` was asked for, but for the mask, which has no hash."""

    steps: int
    trials: int
    classes: int
    stride: float | None
    max_change: float | None
    lowpass_radius: float | None


def gauss_newton(
    *,
    steps: int = STEPS,
    trials: int = TRIALS,
    classes: int = CLASSES,
    stride: float | None = STRIDE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> Solver:
    """Moves an image onto its target by Gauss–Newton steps; see the module for the equations.

    Every step lowers the loss, but on a walk; how far the linear model is trusted is each image's
    own. With a `tolerance`, `synthesize` stops most images long before `steps`. One that has not arrived after
    48 Jacobians wanders for the next 32, starts again from there, at the price of a larger change, and wanders
    again after 24; most arrive after one to three such turns. From very far, such as twenty classes at random of
    ImageNet's, it does not arrive; let Adam go most of the way, to a total variation of 3e-4
    (`experiments/ordered_top_k.py`).

    Args:
      steps: Jacobians at most.
      trials: steps tried with each, a forward pass of the network apiece.
      classes: of a network with more, those of largest target are steered each by itself and the
        others as one; a Jacobian costs a backward pass a class. For partial targets: the number
        that is named.
      stride: how far a step goes while the target is far, as a share of the distance at which the
        slope of the KL divergence alone would bring it to 0. The smaller, the smaller the change
        and the more Jacobians. None: no such limit and no way back towards the source, for few
        `steps` or where time counts and not the change.
      mask: [H, W] or [H, W, C], the same for all images: only pixels that are not 0 here change.
        Keep the solver: one with a mask, built anew, compiles anew.
      max_change: no pixel moves further than this from its source (L∞).
      lowpass_radius: changes are made of frequencies within about this many cycles per image side;
        None: of all alike, every step the smallest in L2.

    Raises:
      ValueError: a negative number of steps; no trials or classes; a stride, `max_change` or radius
        that is not positive; a mask that is not of rank 2 or 3, or that lets nothing change.
    """
    if steps < 0 or trials < 1 or classes < 1:
        raise ValueError(
            "gauss_newton: steps must not be negative, trials and classes at least 1, got "
            f"{steps}, {trials} and {classes}"
        )
    limits = {"stride": stride, "max_change": max_change, "lowpass_radius": lowpass_radius}
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f"gauss_newton: {name} must be positive, got {value}; None: no limit")
    options = _Options(steps, trials, classes, stride, max_change, lowpass_radius)
    if mask is None:
        return _cached(options)
    allowed = np.asarray(mask) != 0
    if allowed.ndim not in (2, 3) or not allowed.any():
        raise ValueError(
            "gauss_newton: mask must be [H, W] or [H, W, C] with an entry that is not 0, got "
            f"{int(allowed.sum())} such entries in {list(allowed.shape)}"
        )
    return _solver(options, allowed if allowed.ndim == 3 else allowed[:, :, None])


def _solver(options: _Options, allowed: np.ndarray | None = None) -> Solver:
    return Solver(
        init=functools.partial(_init, options),
        update=functools.partial(_update, options, allowed),
        image=lambda state: state.image,
        steps=options.steps,
    )


_cached = functools.cache(_solver)  # the compiled program goes with the solver's identity


def _init(options: _Options, image: jax.Array, target: jax.Array) -> NewtonState:
    rows = linearized.num_ratios(len(target), options.classes)
    return NewtonState(
        image=image,
        source=image,
        step=jnp.zeros_like(image),
        rows=jnp.zeros((rows, image.size)),
        radius=newton_step.first_radius(image),
        weight=jnp.float32(0),
        age=jnp.int32(0),
    )


def _update(
    options: _Options,
    allowed: np.ndarray | None,
    network: Network,
    state: NewtonState,
    target: jax.Array,
) -> tuple[NewtonState, jax.Array]:
    """One Jacobian and the trials it serves; also the logits of the image before."""
    classes = linearized.leading_classes(target, options.classes)
    shape = state.image.shape

    def flat(image: jax.Array) -> jax.Array:
        return network(image.reshape(shape))

    def ratios_of(image: jax.Array) -> jax.Array:
        return linearized.log_ratios(flat(image), classes)

    logits, ratios, rows = linearized.jacobian(flat, state.image.ravel(), classes)
    wanted = linearized.group(partial.complete(target, logits), classes)
    wanders = state.age >= _PASS
    task = Task(
        wanted,
        jnp.where(wanders, 1, state.weight),
        _limits(options, allowed, state.source),
        options.stride,
        wanders,
    )
    memory = jnp.where((state.rows == 0).all(), 0, _MEMORY)
    averaged = memory * state.rows + (1 - memory) * rows
    given = _given(task, state, averaged, _is_far(wanted, ratios))

    def once(trial: Trial, index: jax.Array) -> tuple[Trial, None]:
        return attempt(ratios_of, trial, task, jnp.where(index == 0, given, 0)), None

    radius = jnp.where(wanders, _wandering_length(state), state.radius)
    start = Trial(state.image.ravel(), ratios, averaged, radius, state.step.ravel())
    end, _ = jax.lax.scan(once, start, jnp.arange(options.trials))

    image = end.image.reshape(shape)
    is_near = linearized.divergence(wanted, end.ratios) < _NEAR
    first = jnp.where(is_near, _FIRST_WEIGHT, 0)
    weight = jnp.where(state.weight > 0, _WEIGHT_DECAY * state.weight, first)
    step = jnp.where(wanders, end.step.reshape(shape), image - state.image)
    state = NewtonState(image, state.source, step, end.rows, end.radius, weight, state.age + 1)
    return _restarted(options, state, target), logits


def _wandering_length(state: NewtonState) -> jax.Array:
    """Of the steps of an image that wanders: [], L2 norm, from a share of its change so far to 0."""
    left = 1 - (state.age - _PASS) / _WANDER
    return _SHARE * left * jnp.linalg.norm((state.image - state.source).ravel())


def _restarted(options: _Options, state: NewtonState, target: jax.Array) -> NewtonState:
    """The state, or if it has wandered long enough the first one, at the image that was reached."""
    first = _init(options, state.image, target)._replace(
        source=state.source, age=jnp.int32(_PASS - _LATER_PASS)
    )
    is_over = state.age >= _PASS + _WANDER
    return jax.tree.map(lambda new, old: jnp.where(is_over, new, old), first, state)


def _given(task: Task, state: NewtonState, rows: jax.Array, moves_on: jax.Array) -> jax.Array:
    """The first trial's p [D]: back towards the source while the target is far, then on as the last step did."""
    onward = jnp.where((task.weight > 0) & moves_on, _MOMENTUM, 0) * state.step.ravel()
    if task.stride is None:
        return onward
    ways = jax.vmap(task.limits.smooth)(rows)
    unfelt = linearized.null_part(rows, ways, (state.source - state.image).ravel())
    length = jnp.maximum(jnp.linalg.norm(unfelt), 1e-20)
    back = jnp.minimum(_RETURN, state.radius / length) * unfelt
    return jnp.where(task.weight > 0, onward, back)


def _limits(options: _Options, allowed: np.ndarray | None, source: jax.Array) -> Limits:
    """Of an image [H, W, C] that may change where `allowed`, broadcast against it, is not 0."""
    reach = 1.0 if options.max_change is None else options.max_change
    free = jnp.broadcast_to(1.0 if allowed is None else jnp.asarray(allowed), source.shape)
    low, high = (jnp.clip(source + s * reach * free, 0, 1).ravel() for s in (-1, 1))

    def smooth(row: jax.Array) -> jax.Array:
        if options.lowpass_radius is None:
            return row
        image = row.reshape(source.shape)
        return pixels.lowpass(image, options.lowpass_radius, rolloff="gaussian").ravel()

    return Limits(low, high, smooth)


def _is_far(wanted: jax.Array, ratios: jax.Array) -> jax.Array:
    """Whether a class wanted with 0 has much more: [] bool."""
    errors = ratio_loss.log_errors(wanted, ratios)
    return jnp.where(wanted[1:] < ratio_loss.FLOOR, errors, 0).max(initial=0) > _FAR
