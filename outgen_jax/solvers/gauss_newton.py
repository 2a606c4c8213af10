r"""Gauss-Newton: exact targets in few steps, each with a Jacobian of the network.

The loss is convex in the outputs; only the network is not. So the network is linearised and the loss is not (the
prox-linear method; Burke, "Descent methods for composite nondifferentiable optimization problems", 1985);
`prox_linear` has the step.

A Jacobian costs a backward pass for each row, a trial one forward pass. So every Jacobian serves several trials. After
each trial it is corrected by its error of prediction (Broyden, 1965). The Jacobian also fluctuates from step
to step, so it is averaged with the corrected one of the step before.

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
from outgen_jax.solvers.convex_loss import RatioLoss
from outgen_jax.solvers.limits import Limits, Restriction, restriction
from outgen_jax.solvers.objective import Outputs
from outgen_jax.solvers.solver import STATIC, Problem, Solver
from outgen_jax.solvers.trust import TrustRule
from outgen_jax.whole_numbers import check_integers

STEPS = 40
TRIALS = 4
STRIDE = 0.5
FLOOR = 1e-6


class GaussNewtonState(NamedTuple):
    """The iterate, and how far its Jacobian is trusted."""

    image: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    jac: jax.Array  # [M, D], the last J, corrected
    is_first: jax.Array  # [] bool: there is no last J
    radius: jax.Array  # [], L2 norm of a step
    weight: jax.Array  # [], w


class Trial(NamedTuple):
    """The best image so far with its coordinates, while one Jacobian serves."""

    image: jax.Array  # [D]
    r: jax.Array  # [M]
    jac: jax.Array  # [M, D]
    radius: jax.Array  # []


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewton(Solver):
    """The solver that `gauss_newton` returns.

    Attributes:
      steps, trials, stride, floor: as `gauss_newton` takes them.
      restriction: limits on the change.
      trust: how the radius changes.
      near: w is 0 while the mean divergence of the rows is above this. Earlier it would press down classes that hardly
        count, at twice the change.
      first_weight: w from then on, decaying by `weight_decay` a Jacobian. An image that cannot have all it is asked
        for then ends where the probabilities are nearest.
      weight_decay: see `first_weight`.
      memory: share of the last J in the next.
      return_share: α, while the target is far.
      momentum: β, while a probability that should be 0 or 1 is more than `far` nats outside the floor.
      far: see `momentum`.
      shortest_limit: the shortest limit on a step while the target is far, over the square root of the number of values
        of an image: 0.05 for 32×32×3.
    """

    steps: int = STEPS
    trials: int = dataclasses.field(default=TRIALS, metadata=STATIC)
    stride: float | None = dataclasses.field(default=STRIDE, metadata=STATIC)
    floor: float = FLOOR
    restriction: Restriction = dataclasses.field(default_factory=Restriction)
    trust: TrustRule = dataclasses.field(default_factory=TrustRule, metadata=STATIC)
    near: float = dataclasses.field(default=2e-3, metadata=STATIC)
    first_weight: float = dataclasses.field(default=0.1, metadata=STATIC)
    weight_decay: float = dataclasses.field(default=0.93, metadata=STATIC)
    memory: float = dataclasses.field(default=0.5, metadata=STATIC)
    return_share: float = dataclasses.field(default=0.2, metadata=STATIC)
    momentum: float = dataclasses.field(default=0.8, metadata=STATIC)
    far: float = dataclasses.field(default=1.0, metadata=STATIC)
    shortest_limit: float = dataclasses.field(default=0.0009, metadata=STATIC)

    by_coordinates = True

    def passes(self, num_coordinates: int) -> int:
        """Backward passes of one image that run at once; sets the default batch size."""
        return min(num_coordinates, jacobian.BLOCK)

    def init(self, problem: Problem, image: jax.Array) -> GaussNewtonState:
        """The state at an image [H, W, C]."""
        shape = (problem.objective.num_coordinates, image.size)
        image = self.restriction.nearest(problem.source, image)
        return GaussNewtonState(
            image=image,
            step=jnp.zeros_like(image),
            jac=jnp.zeros(shape, jnp.float32),
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

        outputs, r, jac = jacobian.jacobian(problem.network, objective, state.image)
        loss = RatioLoss(objective, objective.goals(outputs), state.weight, self.floor)
        memory = jnp.where(state.is_first, 0, jnp.float32(self.memory))
        averaged = memory * state.jac + (1 - memory) * limits.of_free_pixels(jac)
        first_shift = self._shift(loss, limits, state, averaged, r, problem.source)

        def once(trial: Trial, index: jax.Array) -> tuple[Trial, None]:
            shift = jnp.where(index == 0, first_shift, 0)
            return self._attempt(
                loss, limits, lambda x: objective.coordinates(flat(x)), trial, shift
            ), None

        start = Trial(state.image.ravel(), r, averaged, state.radius)
        end, _ = jax.lax.scan(once, start, jnp.arange(self.trials, dtype=jnp.int32))

        image = end.image.reshape(shape)
        is_near = loss.divergence(end.r) < self.near * objective.num_rows
        first = jnp.where(is_near, jnp.float32(self.first_weight), 0)
        weight = jnp.where(state.weight > 0, self.weight_decay * state.weight, first)
        return GaussNewtonState(
            image, image - state.image, end.jac, jnp.bool_(False), end.radius, weight
        ), outputs

    def image(self, state: GaussNewtonState) -> jax.Array:
        """The image of a state [H, W, C]."""
        return state.image

    def _shift(
        self,
        loss: RatioLoss,
        limits: Limits,
        state: GaussNewtonState,
        jac: jax.Array,
        r: jax.Array,
        source: jax.Array,
    ) -> jax.Array:
        """The first trial's p [D]: towards the source while the target is far, then a share of the last step."""
        has_momentum = (loss.weight > 0) & self._is_far(loss, r)
        onward = jnp.where(has_momentum, jnp.float32(self.momentum), 0) * state.step.ravel()
        if self.stride is None:
            return onward
        directions = jax.vmap(limits.smooth)(jac)
        part = jacobian.null_space_part(jac, directions, (source - state.image).ravel())
        length = jnp.maximum(jnp.linalg.norm(part), 1e-20)
        back = jnp.minimum(self.return_share, state.radius / length) * part
        return jnp.where(loss.weight > 0, onward, back)

    def _is_far(self, loss: RatioLoss, r: jax.Array) -> jax.Array:
        """Whether a coordinate that may lie anywhere on one side is far on the other: [] bool."""
        errors = loss.objective.errors(r, loss.goals, loss.floor)
        one_sided = loss.objective.one_sided(loss.goals, loss.floor)
        return jnp.where(one_sided, jnp.abs(errors), 0).max(initial=0) > self.far

    def _attempt(
        self,
        loss: RatioLoss,
        limits: Limits,
        coordinates: Callable[[jax.Array], jax.Array],
        trial: Trial,
        shift: jax.Array,
    ) -> Trial:
        """One trial, accepted if it lowers the loss; J and the radius are updated either way."""
        image, r, jac, radius = trial
        gradient = loss.gradient(r) @ jac
        # Without a shift, the step is then no longer than the radius in the norm of S⁻¹, and not held back close to
        # the target.
        gradient_norm = jnp.sqrt(jnp.maximum(gradient @ limits.smooth(gradient), 0))
        radius = jnp.minimum(radius, self._longest_step(loss, r, gradient_norm, image.size))
        damping = jnp.maximum(gradient_norm / radius, 1e-10)
        step = prox_linear.bounded_step(loss, limits, image, r, jac, damping, shift)
        moved = jnp.clip(image + step, limits.low, limits.high)
        step = moved - image
        predicted, actual = r + jac @ step, coordinates(moved)

        before, predicted_loss, actual_loss = (loss.value(x) for x in (r, predicted, actual))
        reduction, predicted_reduction = before - actual_loss, before - predicted_loss
        ratio = reduction / jnp.maximum(predicted_reduction, 1e-30)
        return Trial(
            jnp.where(reduction > 0, moved, image),
            jnp.where(reduction > 0, actual, r),
            jacobian.broyden(jac, step, actual - predicted),
            trust.next_radius(radius, jnp.linalg.norm(step), ratio, self.trust),
        )

    def _longest_step(
        self, loss: RatioLoss, r: jax.Array, gradient_norm: jax.Array, size: int
    ) -> jax.Array:
        """How long a step of an image of `size` pixels may be, whatever its radius: [], L2 norm.

        ℓ/‖∇ℓ‖ is Polyak's step (1987), which would end at ℓ = 0 if ℓ were linear.
        """
        if self.stride is None:
            return jnp.float32(jnp.inf)
        polyak = loss.divergence(r) / jnp.maximum(gradient_norm, 1e-20)
        far = jnp.maximum(self.shortest_limit * size**0.5, self.stride * polyak)
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
    """Changes an image by Gauss-Newton steps; see `solvers.gauss_newton` for the equations.

    No step raises the loss. The solver has no tolerance of its own: pass one to `synthesize`, which then stops most
    images long before `steps`. A few images converge slowly: `og.exact` restarts them.

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
    # Python's numbers: those of numpy have a type, which would widen arrays under jax_enable_x64.
    return GaussNewton(
        steps=int(steps),
        trials=int(trials),
        stride=None if stride is None else float(stride),
        floor=float(floor),
        restriction=limits,
    )
