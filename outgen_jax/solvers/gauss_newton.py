r"""Gauss–Newton: exact targets in few steps, each with a Jacobian of the network.

The loss is convex in the outputs; only the network is not. So the network is linearised and the loss is not (the
prox-linear method; Burke, "Descent methods for composite nondifferentiable optimization problems", 1985);
`prox_linear` has the step.

A Jacobian costs a backward pass for each row, a trial one forward pass. So every Jacobian serves several trials. After
each trial it is corrected by its error of prediction (Broyden, 1965). The Jacobian also varies quickly from step to
step, so half of it is the corrected one of the step before.

While the divergence is large, steps are limited to a share of Polyak's step: longer steps would need fewer Jacobians,
but make larger changes. The first trial of each Jacobian then also undoes a part of the change so far that has no
effect on the output, p = −α (I − J⁺J)(x − x₀), no longer than the radius. Later, where only probabilities that should
be 0 are still too large, the first trial adds a share of the last step, p = β (x − x'), and Jᵀλ corrects its effect on
the output.

The loss has a part of weight w in which all coordinates count the same. w decays from step to step, and most images
converge as it does. For the others see `og.restarted`.

Here an image is a vector [D] in [0, 1], and M is the number of coordinates. Changes are measured in L2, or in a norm
that makes fine detail expensive.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import jacobian, prox_linear, trust
from outgen_jax.solvers.limits import Limits, Restriction, restriction
from outgen_jax.solvers.objective import Outputs
from outgen_jax.solvers.prox_linear import Loss
from outgen_jax.solvers.solver import Problem
from outgen_jax.whole_numbers import check_integers

STEPS = 40
TRIALS = 4
STRIDE = 0.5
FLOOR = 1e-6

# w is 0 while the divergence of a row is above `_NEAR`, then `_FIRST_WEIGHT`, and decays by `_WEIGHT_DECAY` a Jacobian.
# Earlier it would press down classes that hardly count, at twice the change; and an image that cannot have all it is
# asked for ends where the probabilities are nearest.
_NEAR = 2e-3
_FIRST_WEIGHT = 0.1
_WEIGHT_DECAY = 0.93
# Share of the last Jacobian in the next; α while an image is far, then β while a coordinate that should be 0 is this
# many nats too high.
_MEMORY = 0.5
_RETURN = 0.2
_MOMENTUM = 0.8
_FAR = 1.0
# The shortest limit on a step while the target is far, over √D: 0.05 for 32×32×3.
_SHORTEST_REACH = 0.0009


class GaussNewtonState(NamedTuple):
    """Where an image is, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    rows: jax.Array  # [M, D], the last Jacobian, corrected
    is_first: jax.Array  # [] bool: there is no last Jacobian
    radius: jax.Array  # [], L2 norm of a step
    weight: jax.Array  # [], w


class Trial(NamedTuple):
    """The best image so far with its coordinates, while one Jacobian serves."""

    image: jax.Array  # [D]
    r: jax.Array  # [M]
    rows: jax.Array  # [M, D]
    radius: jax.Array  # []


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """The solver that `gauss_newton` returns."""

    steps: int = STEPS
    trials: int = dataclasses.field(default=TRIALS, metadata={"static": True})
    stride: float | None = dataclasses.field(default=STRIDE, metadata={"static": True})
    floor: float = FLOOR
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    # Its programs depend on how many coordinates a target has.
    by_coordinates = True

    def passes(self, num_coordinates: int) -> int:
        """Backward passes of one image that run at once; sets the default batch size."""
        return min(num_coordinates, jacobian.BLOCK)

    def init(self, problem: Problem, image: jax.Array) -> GaussNewtonState:
        """The state at an image [H, W, C]."""
        rows = (problem.objective.num_coordinates, image.size)
        image = self.restriction.nearest(problem.source, image)
        return GaussNewtonState(
            image=image,
            step=jnp.zeros_like(image),
            rows=jnp.zeros(rows, jnp.float32),
            is_first=jnp.bool_(True),
            radius=trust.first_radius(image),
            weight=jnp.float32(0),
        )

    def update(self, problem: Problem, state: GaussNewtonState) -> tuple[GaussNewtonState, Outputs]:
        """One Jacobian and the trials it serves; also the outputs of the image before."""
        shape, objective = state.image.shape, problem.objective
        limits = self.restriction.limits(problem.source)

        def flat(image: jax.Array) -> Outputs:
            return problem.network(image.reshape(shape))

        outputs, r, rows = jacobian.jacobian(flat, objective, state.image.ravel())
        loss = Loss(objective, objective.goals(outputs), state.weight, self.floor)
        memory = jnp.where(state.is_first, 0, jnp.float32(_MEMORY))
        averaged = memory * state.rows + (1 - memory) * rows
        given = self._given(loss, limits, state, averaged, r, problem.source)

        def once(trial: Trial, index: jax.Array) -> tuple[Trial, None]:
            p = jnp.where(index == 0, given, 0)
            return self._attempt(loss, limits, lambda x: objective.coordinates(flat(x)), trial, p)

        start = Trial(state.image.ravel(), r, averaged, state.radius)
        end, _ = jax.lax.scan(once, start, jnp.arange(self.trials, dtype=jnp.int32))

        image = end.image.reshape(shape)
        is_near = loss.divergence(end.r) < _NEAR * objective.num_rows
        first = jnp.where(is_near, jnp.float32(_FIRST_WEIGHT), 0)
        weight = jnp.where(state.weight > 0, _WEIGHT_DECAY * state.weight, first)
        return GaussNewtonState(
            image, image - state.image, end.rows, jnp.bool_(False), end.radius, weight
        ), outputs

    def image(self, state: GaussNewtonState) -> jax.Array:
        """The image of a state [H, W, C]."""
        return state.image

    def _given(
        self,
        loss: Loss,
        limits: Limits,
        state: GaussNewtonState,
        rows: jax.Array,
        r: jax.Array,
        source: jax.Array,
    ) -> jax.Array:
        """The first trial's p [D]: back towards the source while the target is far, then on as the last step did."""
        moves_on = (loss.weight > 0) & _is_far(loss, r)
        onward = jnp.where(moves_on, jnp.float32(_MOMENTUM), 0) * state.step.ravel()
        if self.stride is None:
            return onward
        ways = jax.vmap(limits.smooth)(rows)
        unfelt = jacobian.null_part(rows, ways, (source - state.image).ravel())
        length = jnp.maximum(jnp.linalg.norm(unfelt), 1e-20)
        back = jnp.minimum(_RETURN, state.radius / length) * unfelt
        return jnp.where(loss.weight > 0, onward, back)

    def _attempt(
        self,
        loss: Loss,
        limits: Limits,
        coordinates: Callable[[jax.Array], jax.Array],
        trial: Trial,
        given: jax.Array,
    ) -> tuple[Trial, None]:
        """One step of one image, taken if it lowers the loss; rows and radius learn either way."""
        image, r, rows, radius = trial
        slope = loss.slope(r) @ rows
        # With this damping Jᵀλ is no longer than the radius, and not held back near the target.
        steepness = jnp.sqrt(jnp.maximum(slope @ limits.smooth(slope), 0))
        radius = jnp.minimum(radius, self._reach(loss, r, steepness, image.size))
        damping = jnp.maximum(steepness / radius, 1e-10)
        step = prox_linear.bounded_step(loss, limits, image, r, rows, damping, given)
        moved = jnp.clip(image + step, limits.low, limits.high)
        step = moved - image
        foretold, found = r + rows @ step, coordinates(moved)

        before, foretold_loss, found_loss = (loss.value(x) for x in (r, foretold, found))
        gain, foretold_gain = before - found_loss, before - foretold_loss
        agreement = gain / jnp.maximum(foretold_gain, 1e-30)
        end = Trial(
            jnp.where(gain > 0, moved, image),
            jnp.where(gain > 0, found, r),
            jacobian.broyden(rows, step, found - foretold),
            trust.next_radius(radius, jnp.linalg.norm(step), agreement),
        )
        return end, None

    def _reach(self, loss: Loss, r: jax.Array, steepness: jax.Array, size: int) -> jax.Array:
        """How far a step of an image of `size` pixels may go, whatever its radius: [], L2 norm.

        `steepness` is the norm of ℓ's slope. Their quotient ℓ/‖∇ℓ‖ is Polyak's step (1987), which would end at ℓ = 0 if
        ℓ were linear.
        """
        if self.stride is None:
            return jnp.float32(jnp.inf)
        polyak = loss.divergence(r) / jnp.maximum(steepness, 1e-20)
        far = jnp.maximum(_SHORTEST_REACH * size**0.5, self.stride * polyak)
        return jnp.where(loss.weight > 0, jnp.inf, far)


def gauss_newton(
    *,
    steps: int = STEPS,
    trials: int = TRIALS,
    stride: float | None = STRIDE,
    floor: float = FLOOR,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> GaussNewton:
    """Changes an image by Gauss–Newton steps; see `solvers.gauss_newton` for the equations.

    Every step lowers the loss. It has no tolerance of its own: pass one to `synthesize`, which then stops most images
    long before `steps`. A few images converge slowly: `og.exact` restarts them.

    A softmax of up to 32 classes gets a row of the Jacobian for every class but one. Of more classes, those that the
    target names get a row each, at most 64, and the others share one.

    Args:
      steps: the largest number of steps, one Jacobian each.
      trials: trials with each Jacobian, one forward pass of the network each.
      stride: limit on the length of a step while the divergence is large, as a share of Polyak's step (divergence over
        norm of its gradient). Smaller values make smaller changes and need more steps. None: no limit, and changes
        without effect on the output are kept; for few `steps`, or where only time matters.
      floor: a probability whose target is less than this may lie anywhere between 0 and this.
      mask: [H, W] or [H, W, C], the same for all images: only pixels whose entry is not 0 change.
      max_change: no pixel changes by more than this (L∞).
      lowpass_radius: the change consists of frequencies up to about this many cycles per image side. None: of all, and
        every step is the smallest in L2.

    Raises:
      ValueError: a negative number of steps; no trials; a stride, `floor`, `max_change` or radius that is not positive;
        a mask that is not of rank 2 or 3, or that lets nothing change.

    >>> import outgen_jax as og
    >>> og.gauss_newton(steps=7) == og.gauss_newton(steps=7)
    True
    """
    check_integers(caller="gauss_newton", steps=steps, trials=trials)
    if steps < 0 or trials < 1:
        raise ValueError(
            f"gauss_newton: steps must not be negative and trials at least 1, got {steps} and {trials}; "
            f"the defaults are {STEPS} and {TRIALS}"
        )
    if stride is not None and not stride > 0:
        raise ValueError(f"gauss_newton: stride must be positive, got {stride}; None: no limit")
    if not 0 < floor < 0.5:
        raise ValueError(
            f"gauss_newton: floor must lie in (0, 0.5), got {floor}; a tenth of the tolerance is usual"
        )
    limits = restriction(mask, max_change, lowpass_radius, caller="gauss_newton")
    return GaussNewton(steps=steps, trials=trials, stride=stride, floor=floor, restriction=limits)


def _is_far(loss: Loss, r: jax.Array) -> jax.Array:
    """Whether a coordinate that may lie anywhere on one side is far on the other: [] bool."""
    errors = loss.objective.errors(r, loss.goals, loss.floor)
    one_sided = loss.objective.one_sided(loss.goals, loss.floor)
    return jnp.where(one_sided, jnp.abs(errors), 0).max(initial=0) > _FAR
