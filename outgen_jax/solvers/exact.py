"""The default solver: reaches the tolerance from far and near, whatever the outputs, without further settings."""

import dataclasses
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from outgen_jax.solvers.combinators import Pool, Restarted, Start
from outgen_jax.solvers.gauss_newton import GaussNewton
from outgen_jax.solvers.gauss_newton_cg import GaussNewtonCG
from outgen_jax.solvers.limits import Restriction, restriction
from outgen_jax.solvers.momentum import Momentum

TOLERANCE = 1e-5
# Images stop at this share of the tolerance: judged in another batch, the distance differs by rounding.
AIM = 0.9
# Probabilities that should be 0 may be this share of the tolerance.
_FLOOR = 0.1
# Jacobians of the first pass and of later ones.
_PASS = 48
_LATER_PASS = 24
# Further passes with momentum between them, then new starts from the source.
_RESTARTS = 6
_NEW_STARTS = 4
_CG_STEPS = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
    """What `exact` returns; see there."""

    tolerance: float = TOLERANCE
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    @property
    def steps(self) -> int:
        """Of all parts, at most."""
        return self.by_rows().steps

    @property
    def parts(self) -> tuple[Any, ...]:
        """For few outputs, and for many."""
        return self.by_rows(), self.without_rows()

    def by_rows(self) -> Restarted:
        """For targets with a row of the Jacobian for every output."""
        floor, limits = min(_FLOOR * self.tolerance, 0.01), self.restriction
        first = GaussNewton(steps=_PASS, floor=floor, restriction=limits)
        later = dataclasses.replace(first, steps=_LATER_PASS)
        via = Momentum(floor=floor, restriction=limits)
        passes = Restarted(solver=first, times=_RESTARTS, via=via, later=later)
        return Restarted(solver=passes, times=_NEW_STARTS, from_source=True)

    def without_rows(self) -> GaussNewtonCG:
        """For targets over so many outputs that a row for each would be too expensive."""
        return GaussNewtonCG(steps=_CG_STEPS)

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Chooses by the number of outputs that each target steers."""
        aim = AIM * tolerance
        has_rows = np.array([pool.coordinates(row) is not None for row in rows], bool)
        for solver, chosen in (
            (self.by_rows(), rows[has_rows]),
            (self.without_rows(), rows[~has_rows]),
        ):
            if len(chosen):
                pool.run(solver, chosen, aim, start=start)


def exact(
    *,
    tolerance: float = TOLERANCE,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> Exact:
    """The default solver: images whose output is the target, to the tolerance.

    Gauss–Newton moves every image. The few that converge slowly take steps of momentum and start again from there, and
    in the end from their sources with noise below half a grey level. Targets over more than 64 classes of a larger
    network are reached by conjugate gradients, less exactly.

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
