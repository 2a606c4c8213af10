r"""The smallest change: images within the tolerance that are as close to their source as possible.

.. math:: \min \tfrac12 \|x - x_0\|^2 \quad \text{subject to} \quad \text{distance}(f(x)) ≤ \text{tolerance}

The constraint becomes a penalty with a weight c. A step minimises, over Δ with x + Δ in the box,

.. math:: ℓ(r + J Δ) + \frac{1}{2c} \|x + Δ - x_0\|^2 + \frac{ν}{2} \|Δ\|^2

that is, the network is linearised and the loss is not (`prox_linear`), and the change is measured from the *source*. At
a fixed point x − x₀ is a combination of the rows of J, so every part of the change affects the output. ν keeps the step
where the linear model is accurate (Levenberg, 1944; Marquardt, 1963).

*Correction.* The network is not linear along a step, and close to the target a merit function would refuse every step
of useful length (the Maratos effect; Nocedal and Wright, "Numerical optimization", 2006, section 15.6). So every trial
is made twice: with the rows of J, and again with the rows corrected by their error of prediction (Broyden, 1965). The
better of the two is accepted if it lowers the merit. The corrected rows serve the next trials.

*Weight.* c starts where the source is nearly stationary. It grows while the distance is above the tolerance, and
shrinks below it. The iterates follow a path of smallest changes for decreasing tolerances.

*Loss.* ℓ is the divergence D, and a part for probabilities that should be 0 or 1:

.. math:: ℓ(r) = D(r) + w \sum_i h(\max(e_i, 0)), \quad h(e) = \sqrt{1 + e^2} - 1

e is the objective's `excess`: how many nats the total of these probabilities is above a share of the tolerance. D alone
would hardly lower small probabilities.

In the equations an image is a vector [D].
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import jacobian, prox_linear
from outgen_jax.solvers.limits import Limits, Restriction, restriction
from outgen_jax.solvers.objective import Goals, Objective, Outputs
from outgen_jax.solvers.solver import Problem
from outgen_jax.whole_numbers import check_integers

STEPS = 30
TRIALS = 3
TOLERANCE = 1e-5
# An image is done once so many Jacobians have not made its change smaller by this share.
_PATIENCE = 3
_WORTHWHILE = 0.01
# c at first, at least.
_FIRST_WEIGHT = 0.1
# c at most: where a target cannot be met it would grow without end.
_MOST_WEIGHT = 1e8
# c after a step, over c before: with the distance over the tolerance aimed at, within these bounds, before the
# tolerance has been met and afterwards.
_AIM = 0.9
_GROWTH = 1.5
_LATER_GROWTH = 1.1
_SHRINKAGE = 1.15
# ν after a step, by how much of the foretold gain was found.
_GOOD, _POOR = 0.5, 0.1
_TRUST_MORE, _TRUST_LESS, _REFUSED = 0.5, 2.0, 4.0
_LEAST_DAMPING = 0.02  # ν c
# w over the distance, which counts as at most `_FAR` here; share of the tolerance that zeros may take.
_PRESSURE = 10.0
_FAR = 1e-2
_SHARE = 0.7
# Newton steps on the multipliers, and rounds of the active set.
_NEWTON_STEPS = 8
_ROUNDS = 2


class Best(NamedTuple):
    """The best image within the tolerance so far; `change` is infinite where there is none."""

    image: jax.Array  # [H, W, C]
    outputs: Outputs
    change: jax.Array  # [], L2 distance from the source


class SmallestChangeState(NamedTuple):
    """Where an image is, and the best image within the tolerance so far."""

    image: jax.Array  # [H, W, C]
    weight: jax.Array  # [], c; 0 before the first step
    damping: jax.Array  # [], ν
    best: Best
    stalled: jax.Array  # [] int32, Jacobians since the change became smaller by a worthwhile share


class Trial(NamedTuple):
    """An image while one Jacobian serves."""

    image: jax.Array  # [D]
    r: jax.Array  # [M]
    rows: jax.Array  # [M, D]
    distance: jax.Array  # []
    weight: jax.Array  # []
    damping: jax.Array  # []
    best: Best


class Tried(NamedTuple):
    """An image with what was found there."""

    image: jax.Array  # [D]
    r: jax.Array  # [M]
    distance: jax.Array  # []


@dataclasses.dataclass(frozen=True)
class PressedLoss:
    """ℓ, for one image at one step."""

    objective: Objective
    goals: Goals
    weight: jax.Array  # [], w
    floor: jax.Array  # [], of `Output.excess`

    def value(self, r: jax.Array) -> jax.Array:
        """ℓ []."""
        return self.objective.divergence_at(r, self.goals) + self._pressure(r)

    def slope(self, r: jax.Array) -> jax.Array:
        """∇ℓ [M]."""
        return self.objective.slope(r, self.goals) + jax.grad(self._pressure)(r)

    def curvature(self, r: jax.Array) -> jax.Array:
        """∇²ℓ [M, M]."""
        return self.objective.curvature(r, self.goals) + jax.hessian(self._pressure)(r)

    def _pressure(self, r: jax.Array) -> jax.Array:
        excess = jnp.maximum(self.objective.excess(r, self.goals, self.floor), 0)
        return self.weight * (excess**2 / (jnp.sqrt(1 + excess**2) + 1)).sum()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallestChange:
    """The solver that `smallest_change` returns."""

    steps: int = STEPS
    trials: int = dataclasses.field(default=TRIALS, metadata={"static": True})
    tolerance: float = TOLERANCE
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    # Its programs depend on how many coordinates a target has.
    by_coordinates = True

    def passes(self, num_coordinates: int) -> int:
        """Backward passes of one image that run at once; sets the default batch size."""
        return min(num_coordinates, jacobian.BLOCK)

    def init(self, problem: Problem, image: jax.Array) -> SmallestChangeState:
        """The state at an image [H, W, C]."""
        start = self.restriction.nearest(problem.source, image)
        nothing = jax.tree.map(jnp.zeros_like, problem.objective.targets)
        return SmallestChangeState(
            image=start,
            weight=jnp.float32(0),
            damping=jnp.float32(0),
            best=Best(start, nothing, jnp.float32(jnp.inf)),
            stalled=jnp.int32(0),
        )

    def update(
        self, problem: Problem, state: SmallestChangeState
    ) -> tuple[SmallestChangeState, Outputs]:
        """One Jacobian and the trials it serves; also the outputs of the image before."""
        objective, source = problem.objective, problem.source
        limits = self.restriction.limits(source)

        def flat(image: jax.Array) -> Outputs:
            return problem.network(image.reshape(source.shape))

        outputs, r, rows = jacobian.jacobian(flat, objective, state.image.ravel())
        goals, distance = objective.goals(outputs), objective.distance(outputs)
        before = _better(problem, state.best, state.image, outputs)
        is_first = state.weight == 0
        first = _stationary_weight(objective.slope(r, goals), rows, (state.image - source).ravel())
        weight = jnp.where(is_first, first, state.weight)
        damping = jnp.where(is_first, 1 / first, state.damping)

        def once(trial: Trial, _: None) -> tuple[Trial, None]:
            return _attempt(problem, goals, limits, flat, trial), None

        start = Trial(state.image.ravel(), r, rows, distance, weight, damping, before)
        end, _ = jax.lax.scan(once, start, None, length=self.trials)

        # As `image` says.
        had_one = jnp.isfinite(state.best.change)
        seen = jax.tree.map(lambda a, b: jnp.where(had_one, a, b), state.best.outputs, outputs)
        worth = end.best.change < (1 - _WORTHWHILE) * state.best.change
        stalled = jnp.where(worth | jnp.isinf(end.best.change), 0, state.stalled + 1)
        image = end.image.reshape(source.shape)
        return SmallestChangeState(image, end.weight, end.damping, end.best, stalled), seen

    def image(self, state: SmallestChangeState) -> jax.Array:
        """The best image of a state, or where it is while none is within the tolerance [H, W, C]."""
        return jnp.where(jnp.isfinite(state.best.change), state.best.image, state.image)

    def is_done(self, state: SmallestChangeState) -> jax.Array:
        """Whether the change no longer becomes smaller: [] bool."""
        return state.stalled >= _PATIENCE


def smallest_change(
    *,
    steps: int = STEPS,
    trials: int = TRIALS,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
) -> SmallestChange:
    """Makes the change as small as the tolerance allows; see `solvers.smallest_change` for the equations.

    Within the tolerance an image goes on to smaller changes, until three steps in a row have made the change less than
    1 % smaller. A larger tolerance gives a smaller change. Some images do not meet a small tolerance: `og.exact` has
    other solvers for those.

    Args:
      steps: the largest number of steps, one Jacobian each.
      trials: trials with each Jacobian, two forward passes of the network each.
      tolerance: distance to stay within, in the measure of `og.outputs`. The `tolerance` of `synthesize` overrides it.
      mask: [H, W] or [H, W, C], the same for all images: only pixels whose entry is not 0 change.
      max_change: no pixel changes by more than this (L∞).

    Raises:
      ValueError: a negative number of steps; no trials; a tolerance or `max_change` that is not positive; a mask that
        is not of rank 2 or 3, or that lets nothing change.

    >>> import outgen_jax as og
    >>> og.smallest_change(tolerance=0.01).steps
    30
    """
    check_integers(caller="smallest_change", steps=steps, trials=trials)
    if steps < 0 or trials < 1:
        raise ValueError(
            f"smallest_change: steps must not be negative and trials at least 1, got {steps} and {trials}; "
            f"the defaults are {STEPS} and {TRIALS}"
        )
    if not 0 < tolerance < float("inf"):
        raise ValueError(
            f"smallest_change: tolerance must be positive, got {tolerance}; {TOLERANCE} is the default"
        )
    limits = restriction(mask, max_change, None, caller="smallest_change")
    return SmallestChange(
        steps=steps, trials=trials, tolerance=float(tolerance), restriction=limits
    )


def _attempt(
    problem: Problem,
    goals: Goals,
    limits: Limits,
    network: Callable[[jax.Array], Outputs],
    trial: Trial,
) -> Trial:
    """One step and its correction, taken if the merit falls; rows, c and ν learn either way."""
    objective, source = problem.objective, problem.source.ravel()
    tolerance = jnp.maximum(problem.tolerance, 1e-30)
    pressure = _PRESSURE * jnp.clip(trial.distance, tolerance, jnp.maximum(_FAR, tolerance))
    loss = PressedLoss(objective, goals, pressure, _SHARE * tolerance)
    pull, damping = 1 / trial.weight, trial.damping
    home = (source - trial.image) * pull / (pull + damping)

    def merit(r: jax.Array, image: jax.Array) -> jax.Array:
        return loss.value(r) + pull / 2 * ((image - source) ** 2).sum()

    def tried(rows: jax.Array) -> tuple[jax.Array, Outputs, jax.Array]:
        """The image of a step with these rows, its outputs and their coordinates."""
        step = prox_linear.bounded_step(
            *(loss, limits, trial.image, trial.r, rows, pull + damping, home),
            newton_steps=_NEWTON_STEPS,
            rounds=_ROUNDS,
        )
        image = jnp.clip(trial.image + step, limits.low, limits.high)
        outputs = network(image)
        return image, outputs, objective.coordinates(outputs)

    before = merit(trial.r, trial.image)
    image, outputs, r = tried(trial.rows)
    step = image - trial.image
    foretold = merit(trial.r + trial.rows @ step, image)
    rows = jacobian.broyden(trial.rows, step, r - trial.r - trial.rows @ step)
    again, again_outputs, again_r = tried(rows)
    step = again - image
    rows = jacobian.broyden(rows, step, again_r - r - rows @ step)

    best = _better(problem, trial.best, image, outputs)
    best = _better(problem, best, again, again_outputs)
    first_merit, again_merit = merit(r, image), merit(again_r, again)
    is_again = ~(first_merit <= again_merit) & ~jnp.isnan(again_merit)
    chosen = Tried(image, r, objective.distance(outputs))
    other = Tried(again, again_r, objective.distance(again_outputs))
    chosen = jax.tree.map(lambda a, b: jnp.where(is_again, b, a), chosen, other)

    gain = before - merit(chosen.r, chosen.image)
    agreement = gain / jnp.maximum(before - foretold, 1e-30)
    falls = gain >= 0
    taken = jax.tree.map(
        lambda new, old: jnp.where(falls, new, old),
        chosen,
        Tried(trial.image, trial.r, trial.distance),
    )
    growth = jnp.where(jnp.isfinite(best.change), _LATER_GROWTH, _GROWTH)
    factor = jnp.clip(chosen.distance / (_AIM * tolerance), 1 / _SHRINKAGE, growth)
    weight = jnp.where(falls, jnp.minimum(trial.weight * factor, _MOST_WEIGHT), trial.weight)
    return Trial(
        taken.image,
        taken.r,
        rows,
        taken.distance,
        weight,
        jnp.maximum(_next_damping(damping, agreement, falls), _LEAST_DAMPING / weight),
        best,
    )


def _next_damping(damping: jax.Array, agreement: jax.Array, falls: jax.Array) -> jax.Array:
    """ν after a step that lowered the merit `agreement` times as foretold, or was refused."""
    kept = jnp.where(agreement > _GOOD, _TRUST_MORE, jnp.where(agreement < _POOR, _TRUST_LESS, 1.0))
    return damping * jnp.where(falls, kept, _REFUSED)


def _stationary_weight(slope: jax.Array, rows: jax.Array, change: jax.Array) -> jax.Array:
    r"""The c for which an image is about stationary: ‖λ‖/‖∇D‖, λ the least squares solution of x − x₀ = Jᵀλ.

    Args:
      slope: ∇D [M].
      rows: J [M, D].
      change: x − x₀ [D]; 0 at the source, where c is the least.
    """
    multipliers = jacobian.solve_gram(rows @ rows.T, rows @ change)
    found = jnp.linalg.norm(multipliers) / jnp.maximum(jnp.linalg.norm(slope), 1e-30)
    return jnp.clip(found, _FIRST_WEIGHT, _MOST_WEIGHT)


def _better(problem: Problem, best: Best, image: jax.Array, outputs: Outputs) -> Best:
    """The best of before, or `image` if it is within the tolerance and has the smaller change."""
    found = image.reshape(problem.source.shape)
    change = jnp.linalg.norm((found - problem.source).ravel())
    is_within = problem.objective.distance(outputs) <= problem.tolerance
    is_better = is_within & problem.objective.is_finite(outputs) & (change < best.change)
    new = Best(found, outputs, change)
    return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), new, best)
