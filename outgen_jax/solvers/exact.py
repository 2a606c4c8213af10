"""The default solver: reaches the tolerance from far and near, whatever the outputs, without further settings."""

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
# Judged in another batch, a distance differs by rounding. So images stop below the tolerance, by this share of it, or
# by what probabilities differ by in float32.
_MARGIN, _ROUNDING = 0.1, 1e-6
# Probabilities that should be 0 may be this share of the tolerance.
_FLOOR = 0.1
# Steps of Gauss-Newton's first pass and of later ones.
_PASS = 48
_LATER_PASS = 24
# Further passes with momentum between them, then new starts from the source.
_RESTARTS = 6
_NEW_STARTS = 1
_CG_STEPS = 80
# Few of many classes: Adam on the pixels goes nearly all the way, where few of the steps of a linear model would hold.
# Its rate and updates by the number of classes that are named, at most so many: the smaller the rate, the smaller the
# change.
_HAND_OVER = 3e-4
_ADAM = {1: (3e-4, 1000), 8: (5e-4, 1000), None: (3e-3, 2000)}


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
class Exact:
    """What `exact` returns; see there."""

    tolerance: float = TOLERANCE
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    @property
    def steps(self) -> int:
        """Of the longest part, at most."""
        return max(part.steps for part in self.parts)

    @property
    def parts(self) -> tuple[Any, ...]:
        """For few outputs, for few of many, and for many."""
        far = (self.from_afar(named, self.tolerance) for named in _DESCENTS)
        return self.by_rows(self.tolerance), *far, self.without_rows()

    def by_rows(self, tolerance: float) -> Rescued | Restarted:
        """For targets with a row of the Jacobian for every output.

        The smallest change is one in L2; a change of low frequencies is Gauss-Newton's alone.
        """
        persistent = self.persistent(tolerance)
        if self.restriction.lowpass_radius is not None:
            return persistent
        return Rescued(solver=SmallestChange(restriction=self.restriction), by=persistent)

    def persistent(self, tolerance: float) -> Restarted:
        """Gauss-Newton, with momentum and new starts for the images that converge slowly."""
        limits = self.restriction
        floor = min(_FLOOR * tolerance, 0.01)
        first = GaussNewton(steps=_PASS, floor=floor, restriction=limits)
        later = dataclasses.replace(first, steps=_LATER_PASS)
        via = Momentum(floor=floor, restriction=limits)
        passes = Restarted(solver=first, times=_RESTARTS, via=via, later=later)
        return Restarted(solver=passes, times=_NEW_STARTS, from_source=True)

    def from_afar(self, named: int | None, tolerance: float) -> Then:
        """For targets that name few of a network's many classes, at most so many; None: more.

        Gauss-Newton ends it: smaller changes of large images would not survive 8 bits.
        """
        return Then(first=_DESCENTS[named], second=self.persistent(tolerance), at=_HAND_OVER)

    def without_rows(self) -> GaussNewtonCG:
        """For targets over so many outputs that a row for each would be too expensive."""
        return GaussNewtonCG(steps=_CG_STEPS, restriction=self.restriction)

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Chooses by the number of outputs that each target steers."""
        aim = tolerance - min(_MARGIN * tolerance, _ROUNDING)
        groups: defaultdict[Solver | Combinator, list[int]] = defaultdict(list)
        for row in rows:
            groups[self._chosen(pool, row, tolerance)].append(row)
        for solver, chosen in groups.items():
            pool.run(solver, np.array(chosen), aim, start=start)

    def _chosen(self, pool: Pool, row: int, tolerance: float) -> Solver | Combinator:
        steered, named = pool.coordinates(row), pool.named(row)
        if steered is None:
            return self.without_rows()
        # Adam knows no limits but [0, 1].
        if named is None or self.restriction != Restriction():
            return self.by_rows(tolerance)
        limit = next(n for n in _DESCENTS if n is None or named <= n)
        return self.from_afar(limit, tolerance)


def exact(
    *,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> Exact:
    """The default solver: images whose output is the target, to the tolerance.

    `smallest_change` moves every image, and stops where its change becomes no smaller: the looser the tolerance, the
    smaller the change. The few images that it leaves outside the tolerance go to Gauss–Newton, which takes steps of
    momentum between its passes, and starts once more from the source with noise below half a grey level; those that
    it brings inside go back. Where a target names a few of more than 32 classes, Adam makes most of the way, and
    Gauss–Newton the rest. Targets over more than 64 classes are reached by conjugate gradients, less exactly: a
    total variation of about 0.002 on ImageNet's classes.

    Args:
      tolerance: distance at which an image is done, in the output's own measure. `synthesize(tolerance=...)` overrides
        it.
      mask: as in `gauss_newton`.
      max_change: as there.
      lowpass_radius: as there.

    Raises:
      ValueError: a tolerance that is not positive; limits as in `gauss_newton`.

    >>> import outgen_jax as og
    >>> og.exact() == og.exact(tolerance=1e-5)
    True
    """
    if not 0 < tolerance < np.inf:
        raise ValueError(f"exact: tolerance must be positive, got {tolerance}; 1e-5 is the default")
    limits = restriction(mask, max_change, lowpass_radius, caller="exact")
    return Exact(tolerance=tolerance, restriction=limits)
