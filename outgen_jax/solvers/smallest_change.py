r"""The smallest change: images within the tolerance that are as close to their source as possible.

.. math:: \min \tfrac12 \|x - x_0\|^2 \quad \text{subject to} \quad \text{distance}(f(x)) ≤ \text{tolerance}

The constraint becomes a penalty with a parameter c. A step minimises, over Δ with x + Δ in the box,

.. math:: ℓ(r + J Δ) + \frac{1}{2c} \|x + Δ - x_0\|^2 + \frac{ν}{2} \|Δ\|^2

that is, the network is linearised and the loss is not (`prox_linear`), and the change is measured from the *source*. At
a fixed point x − x₀ is a combination of the rows of J: where the box is inactive, the change has no component in the
null space of J. ν keeps the step where the linear model is accurate (Levenberg, 1944; Marquardt, 1963); see `trust`.

*Correction.* The network is not linear along a step, and close to the target a merit function would refuse every step
of useful length (the Maratos effect; Nocedal and Wright, "Numerical optimization", 2006, chapter 15). So every trial
is made twice from the same iterate: with J, and again with J corrected by its error of prediction (Broyden, 1965). The
better of the two is accepted if it does not raise the merit. The corrected J serves the next trials.

*Penalty.* c starts at the value for which the first image is about stationary, but not below a least value. It grows
while the distance is above 0.9 times the tolerance, and shrinks below; see `penalty`. The iterates follow a path of
smallest changes for decreasing tolerances.

*Loss.* ℓ is the divergence, and a penalty on probabilities that should be 0 or 1; see `convex_loss.ExcessLoss`. The
divergence alone would hardly lower small probabilities.

In the equations an image is a vector [D].
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import jacobian
from outgen_jax.solvers.convex_loss import ExcessPenalty
from outgen_jax.solvers.limits import Restriction, restriction
from outgen_jax.solvers.objective import Outputs
from outgen_jax.solvers.penalty import PenaltySchedule
from outgen_jax.solvers.penalty_model import PenaltyModel, Point
from outgen_jax.solvers.solver import STATIC, Problem, Solver
from outgen_jax.solvers.trust import TrustRule
from outgen_jax.whole_numbers import check_integers

STEPS = 30
TRIALS = 2
TOLERANCE = 1e-5
_TRUST = TrustRule(good=0.5, poor=0.1, growth=2.0)


class Best(NamedTuple):
    """The best image within the tolerance so far; `change` is infinite where there is none."""

    image: jax.Array  # [H, W, C]
    outputs: Outputs
    change: jax.Array  # [], L2 distance from the source


class SmallestChangeState(NamedTuple):
    """The iterate, and the best image within the tolerance so far."""

    image: jax.Array  # [H, W, C]
    penalty: jax.Array  # [], c; 0 before the first step
    damping: jax.Array  # [], ν
    best: Best
    stalled: jax.Array  # [] int32, Jacobians since the change became smaller by a worthwhile share


class Trial(NamedTuple):
    """The iterate while one Jacobian serves."""

    image: jax.Array  # [D]
    r: jax.Array  # [M]
    jac: jax.Array  # [M, D]
    distance: jax.Array  # []
    penalty: jax.Array  # []
    damping: jax.Array  # []
    best: Best


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallestChange(Solver):
    """The solver that `smallest_change` returns.

    Attributes:
      steps, trials, tolerance: as `smallest_change` takes them.
      restriction: limits on the change.
      penalty: how c starts and changes.
      excess: the penalty on probabilities that should be 0 or 1.
      trust: how ν changes.
      correction: whether every trial is made again with the corrected J.
      secant: whether J is corrected by its error of prediction.
      newton_steps, rounds: of `prox_linear.bounded_step`; fewer than there, since trials follow one another.
      patience: an image is done once so many Jacobians have not made its change smaller by the share `worthwhile`.
      worthwhile: see `patience`.
    """

    steps: int = STEPS
    trials: int = dataclasses.field(default=TRIALS, metadata=STATIC)
    tolerance: float = TOLERANCE
    restriction: Restriction = dataclasses.field(default_factory=Restriction)
    penalty: PenaltySchedule = dataclasses.field(default_factory=PenaltySchedule, metadata=STATIC)
    excess: ExcessPenalty = dataclasses.field(default_factory=ExcessPenalty, metadata=STATIC)
    trust: TrustRule = dataclasses.field(default=_TRUST, metadata=STATIC)
    correction: bool = dataclasses.field(default=True, metadata=STATIC)
    secant: bool = dataclasses.field(default=True, metadata=STATIC)
    newton_steps: int = dataclasses.field(default=8, metadata=STATIC)
    rounds: int = dataclasses.field(default=2, metadata=STATIC)
    patience: int = dataclasses.field(default=3, metadata=STATIC)
    worthwhile: float = dataclasses.field(default=0.01, metadata=STATIC)

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
            penalty=jnp.float32(0),
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

        outputs, r, jac = jacobian.jacobian(problem.network, objective, state.image)
        jac = limits.of_free_pixels(jac)
        goals, distance = objective.goals(outputs), objective.distance(outputs)
        tolerance = jnp.maximum(problem.tolerance, 1e-30)
        best = _better(problem, state.best, state.image, outputs)
        is_first = state.penalty == 0
        first = self.penalty.start(
            objective.gradient_at(r, goals), jac, (state.image - source).ravel()
        )
        penalty = jnp.where(is_first, first, state.penalty)
        damping = jnp.where(is_first, 1 / first, state.damping)

        def once(trial: Trial, _: None) -> tuple[Trial, None]:
            loss = self.excess.loss(objective, goals, trial.distance, tolerance)
            model = PenaltyModel(
                objective=objective,
                network=flat,
                source=source.ravel(),
                limits=limits,
                loss=loss,
                penalty=trial.penalty,
                damping=trial.damping,
            )
            return self._attempt(problem, model, trial), None

        start = Trial(state.image.ravel(), r, jac, distance, penalty, damping, best)
        end, _ = jax.lax.scan(once, start, None, length=self.trials)

        # The outputs of the image that `image` returns for the state before.
        had_one = jnp.isfinite(state.best.change)
        seen = jax.tree.map(lambda a, b: jnp.where(had_one, a, b), state.best.outputs, outputs)
        gains = end.best.change < (1 - self.worthwhile) * state.best.change
        stalled = jnp.where(gains | jnp.isinf(end.best.change), 0, state.stalled + 1)
        image = end.image.reshape(source.shape)
        return SmallestChangeState(image, end.penalty, end.damping, end.best, stalled), seen

    def image(self, state: SmallestChangeState) -> jax.Array:
        """The best image of a state, or the iterate while none is within the tolerance [H, W, C]."""
        return jnp.where(jnp.isfinite(state.best.change), state.best.image, state.image)

    def is_done(self, state: SmallestChangeState) -> jax.Array:
        """Whether the change no longer becomes smaller: [] bool."""
        return state.stalled >= self.patience

    def _attempt(self, problem: Problem, model: PenaltyModel, trial: Trial) -> Trial:
        """One trial and its correction, accepted unless the merit rises. J and ν are always updated, c only then."""
        before = model.merit(trial.r, trial.image)
        chosen, merit, predicted, jac, best = self._points(problem, model, trial)
        reduction = before - merit
        ratio = reduction / jnp.maximum(before - predicted, 1e-30)
        reduces = reduction >= 0

        tolerance, has_met = jnp.maximum(problem.tolerance, 1e-30), jnp.isfinite(best.change)
        penalty = self.penalty.next(trial.penalty, chosen.distance, tolerance, has_met)
        penalty = jnp.where(reduces, penalty, trial.penalty)
        damping = trial.damping / self.trust.factor(ratio, reduces)
        image = jnp.where(reduces, chosen.image, trial.image)
        r = jnp.where(reduces, chosen.r, trial.r)
        distance = jnp.where(reduces, chosen.distance, trial.distance)
        return Trial(image, r, jac, distance, penalty, damping, best)

    def _points(
        self, problem: Problem, model: PenaltyModel, trial: Trial
    ) -> tuple[Point, jax.Array, jax.Array, jax.Array, Best]:
        """Of a trial and its correction: the one of lower merit, its merit, the predicted merit, J, the best image."""

        def once(found: Any, _: None) -> tuple[Any, Any]:
            image, r, jac, best = found
            point = model.minimum(
                trial.image,
                trial.r,
                jac,
                newton_steps=self.newton_steps,
                rounds=self.rounds,
            )
            predicted = model.merit(trial.r + jac @ (point.image - trial.image), point.image)
            merit = model.merit(point.r, point.image)
            jac = self._corrected(jac, point.image - image, point.r - r)
            best = _better(problem, best, point.image, point.outputs)
            return (point.image, point.r, jac, best), (point, merit, predicted)

        # A loop, not unrolled: the compiler would take twice as long.
        start = trial.image, trial.r, trial.jac, trial.best
        (*_, jac, best), (points, merits, predicted) = jax.lax.scan(
            once, start, None, length=2 if self.correction else 1
        )
        lower = jnp.where(jnp.isnan(merits), jnp.inf, merits).argmin()
        chosen = jax.tree.map(lambda x: x[lower], points)
        return chosen, merits[lower], predicted[0], jac, best

    def _corrected(self, jac: jax.Array, step: jax.Array, change: jax.Array) -> jax.Array:
        """J after the error of its prediction of the `change` [M] that a `step` [D] makes."""
        return jacobian.broyden(jac, step, change - jac @ step) if self.secant else jac


def smallest_change(
    *,
    steps: int = STEPS,
    trials: int = TRIALS,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
) -> SmallestChange:
    """Looks for the smallest change (L2) within the tolerance; see `solvers.smallest_change` for the equations.

    The search is local: it ends at a change that small steps do not make smaller. An image within the tolerance is
    changed further until three steps in a row have made its change less than 1% smaller. A larger tolerance allows a
    smaller change. Some images do not meet a small tolerance: `og.exact` has other solvers for those.

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
        steps=int(steps), trials=int(trials), tolerance=float(tolerance), restriction=limits
    )


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _better(problem: Problem, best: Best, image: jax.Array, outputs: Outputs) -> Best:
    """The best of before, or `image` if it is within the tolerance and has the smaller change."""
    found = image.reshape(problem.source.shape)
    change = jnp.linalg.norm((found - problem.source).ravel())
    is_within = problem.objective.distance(outputs) <= problem.tolerance
    is_better = is_within & problem.objective.is_finite(outputs) & (change < best.change)
    return _where(is_better, Best(found, outputs, change), best)
