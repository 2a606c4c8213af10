"""The default solver: chooses a method by the target, without further settings."""

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np
import optax
from jax.typing import ArrayLike

from outgen_jax import pixels
from outgen_jax.solvers.combinators import Combinator, Pool, Rescued, Restarted, Start, Then
from outgen_jax.solvers.descent import GradientDescent, gradient_descent
from outgen_jax.solvers.gauss_newton import GaussNewton
from outgen_jax.solvers.gauss_newton_cg import GaussNewtonCG
from outgen_jax.solvers.limits import Restriction, restriction
from outgen_jax.solvers.momentum import Momentum
from outgen_jax.solvers.smallest_change import SmallestChange
from outgen_jax.solvers.solver import Solver

TOLERANCE = 1e-5
# Of the tolerance, and what the rounding of float32 logits changes; see `_aim`.
_MARGIN, _ROUNDING = 0.25, 2.5e-6
# Probabilities that should be 0 may be this share of the tolerance, and at most this.
_FLOOR, _MOST_FLOOR = 0.1, 0.01
_FIRST_PASS = 16
_CG_STEPS = 80
# Few of many classes: Adam on the pixels goes nearly all the way, where few of the steps of a linear model would hold.
# Its rate and updates by the number of classes that are named, at most so many: the smaller the rate, the smaller the
# change.
_HAND_OVER = 3e-4
_ADAM = {1: (3e-4, 1000), 8: (5e-4, 1000), None: (3e-3, 2000)}
# Names of the methods for the other targets: with a Jacobian of a row for each coordinate, or without.
_BY_ROWS, _WITHOUT_ROWS = "by rows", "without rows"
_Method = str | int | None  # one of these, or a key of `_ADAM`


def _adam(rate: float, updates: int) -> GradientDescent:
    """Adam on the pixels themselves, its rate falling to 0 along a cosine."""
    return gradient_descent(
        optax.adam(optax.cosine_decay_schedule(rate, updates)),
        pixels=pixels.identity(),
        weight_decay=0.0,
        steps=updates,
    )


# Built once: solvers are equal only if they hold the same optimiser.
_DESCENTS = {named: _adam(*options) for named, options in _ADAM.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact(Combinator):
    """What `exact` returns; see there.

    Attributes:
      tolerance: as `exact` takes it.
      restriction: limits on the change; every part gets it.
      smallest: the solver of most targets.
      newton: the first pass of Gauss-Newton, for the images that `smallest` leaves.
      momentum: what changes an image before each further pass; None: nothing does.
      later_steps: steps of a further pass, and of a last one. The last pass starts from the best image so far: where
        the target cannot be met, it ends nearer.
      restarts: further passes at most.
      patience, beyond: an image is given up after so many passes in a row, none of which halved its distance, if it is
        farther than `beyond`. Images that converge late are nearer.
    """

    tolerance: float = TOLERANCE
    restriction: Restriction = dataclasses.field(default_factory=Restriction)
    smallest: SmallestChange = dataclasses.field(default_factory=SmallestChange)
    newton: GaussNewton = dataclasses.field(default_factory=lambda: GaussNewton(steps=_FIRST_PASS))
    momentum: Momentum | None = dataclasses.field(default_factory=Momentum)
    later_steps: int = 24
    restarts: int = 12
    patience: int | None = 4
    beyond: float = 0.01

    @property
    def steps(self) -> int:
        """Of the longest part, at most."""
        return max(part.steps for part in self.parts)

    @property
    def parts(self) -> tuple[Any, ...]:
        """With a Jacobian, with Adam first, and with conjugate gradients."""
        return tuple(self._methods(self.tolerance).values())

    def _methods(self, tolerance: float) -> dict[_Method, Solver | Combinator]:
        """The solver of each kind of target; see `_method_of`."""
        far: dict[_Method, Then] = {n: self.from_afar(n, tolerance) for n in _DESCENTS}
        return {_BY_ROWS: self.by_rows(tolerance), **far, _WITHOUT_ROWS: self.without_rows()}

    def _method_of(self, pool: Pool, row: int) -> _Method:
        """Which of `_methods` is for the target of a row."""
        if pool.coordinates(row) is None:
            return _WITHOUT_ROWS
        # Adam knows no limits but [0, 1].
        named = None if self.restriction != Restriction() else pool.named(row)
        if named is None:
            return _BY_ROWS
        return next(limit for limit in _DESCENTS if limit is None or named <= limit)

    def by_rows(self, tolerance: float) -> Rescued | Then:
        """For targets whose Jacobian has a row for every coordinate.

        `SmallestChange` minimises the L2 norm, so changes of low frequencies are left to Gauss-Newton.
        """
        persistent = self.persistent(tolerance)
        if self.restriction.lowpass_radius is not None:
            return persistent
        smallest = dataclasses.replace(self.smallest, restriction=self.restriction)
        return Rescued(solver=smallest, by=persistent)

    def persistent(self, tolerance: float) -> Then:
        """Gauss-Newton, with momentum and restarts for the images that converge slowly."""
        limits, floor = self.restriction, min(_FLOOR * tolerance, _MOST_FLOOR)
        first = dataclasses.replace(self.newton, floor=floor, restriction=limits)
        later = dataclasses.replace(first, steps=self.later_steps)
        via = self.momentum
        if via is not None:
            via = dataclasses.replace(via, floor=floor, restriction=limits)
        passes = Restarted(
            solver=first,
            times=self.restarts,
            via=via,
            later=later,
            patience=self.patience,
            beyond=self.beyond,
        )
        return Then(first=passes, second=later, at=_aim(tolerance))

    def from_afar(self, named: int | None, tolerance: float) -> Then:
        """For targets that name at most `named` of a network's many classes; None: more than all the limits.

        Gauss-Newton finishes: the smaller changes of `SmallestChange` would not survive rounding to 8 bits.
        """
        return Then(first=_DESCENTS[named], second=self.persistent(tolerance), at=_HAND_OVER)

    def without_rows(self) -> GaussNewtonCG:
        """For targets of so many coordinates that a Jacobian would be too expensive."""
        return GaussNewtonCG(steps=_CG_STEPS, restriction=self.restriction)

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Groups the rows by the method for their targets, and runs each group."""
        # A combinator without a tolerance runs its parts with none; this one has its own then.
        tolerance = tolerance if tolerance > 0 else self.tolerance
        groups: defaultdict[_Method, list[int]] = defaultdict(list)
        for row in rows:
            groups[self._method_of(pool, row)].append(row)
        methods = self._methods(tolerance)
        for method, chosen in groups.items():
            pool.run(methods[method], np.array(chosen), _aim(tolerance), start=start)


def _aim(tolerance: float) -> float:
    """Where images stop: a little below the tolerance. Judged in another batch, a distance differs by rounding."""
    return tolerance - min(_MARGIN * tolerance, _ROUNDING)


def exact(
    *,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> Exact:
    """The default solver: changes images until their outputs are within the tolerance of the targets.

    The method depends on the target:

    - Most targets: `smallest_change`, so a larger tolerance makes a smaller change (L2). Images that it leaves outside
      the tolerance go to Gauss-Newton, with momentum and restarts between its passes, and from there back to
      `smallest_change` (`rescued`). With `lowpass_radius`: Gauss-Newton alone.
    - A softmax of more than 32 classes of which the target names at most 64, and no limits on the change: Adam on the
      pixels down to a distance of 3e-4 (or the tolerance, if larger), then Gauss-Newton.
    - A softmax target that names more than 64 classes, or more than 512 coordinates in all: `gauss_newton_cg`, which is
      less exact.

    A class is named if it is not masked; in a full target, if its probability is positive.

    Args:
      tolerance: distance at which an image is finished, in the measure of `og.outputs`. The `tolerance` of
        `synthesize` overrides it.
      mask: [H, W] or [H, W, C], the same for all images: only pixels whose entry is not 0 change.
      max_change: no pixel changes by more than this (L∞).
      lowpass_radius: the change consists of frequencies up to about this many cycles per image side; None: of all.

    Raises:
      ValueError: a tolerance, `max_change` or radius that is not positive; a mask that is not of rank 2 or 3, or that
        lets nothing change.

    >>> import outgen_jax as og
    >>> og.exact() == og.exact(tolerance=1e-5)
    True
    """
    if not 0 < tolerance < np.inf:
        raise ValueError(f"exact: tolerance must be positive, got {tolerance}; 1e-5 is the default")
    limits = restriction(mask, max_change, lowpass_radius, caller="exact")
    return Exact(tolerance=float(tolerance), restriction=limits)
