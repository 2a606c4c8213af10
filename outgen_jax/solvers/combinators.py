"""Solvers made of solvers: hand over from one to another, restart images that have not converged.

A combinator does not see single images. It asks a pool to run other solvers on some of its images, and which of these
images are not finished.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
import optax

from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.solver import Solver
from outgen_jax.whole_numbers import check_integers

Start = Callable[[int], np.ndarray]  # row -> image [H, W, C] float32 where a solver starts

# Of the noise of a new start: below half a grey level, so that the image still rounds to its source.
_NOISE = 0.499 / 255
# A further start makes progress if it brings the distance below this share of the nearest before.
_PROGRESS = 0.5
# After a rescue the first solver starts at this share of the change. The tables are in docs/decisions.md.
_BACK = 0.7


class Pool(Protocol):
    """The images of one call, as combinators see them; rows are numbered."""

    def run(
        self,
        solver: "Solver | Combinator",
        rows: np.ndarray,
        tolerance: float,
        *,
        start: Start | None = None,
    ) -> None:
        """Runs a solver on some rows, from the source where there is no `start`."""

    def unfinished(self, rows: np.ndarray, tolerance: float) -> np.ndarray:
        """Those of `rows` that are outside `tolerance` and have not failed."""

    def reached(self, rows: np.ndarray, tolerance: float) -> np.ndarray:
        """Those of `rows` that are within `tolerance`."""

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """The distance of the best image of each of `rows` so far."""

    def give_up(self, rows: np.ndarray) -> None:
        """Notes that a solver has ended early for `rows`, which made no progress."""

    def source(self, row: int) -> np.ndarray:
        """The source image of a row."""

    def best(self, row: int) -> np.ndarray:
        """The best image of a row so far."""

    def last(self, row: int) -> np.ndarray:
        """The last image of the last solver; the best image if the row has converged there."""

    def named(self, row: int) -> int | None:
        """How many classes the target of a row names; None: an output is not a softmax of more than 32 classes."""

    def coordinates(self, row: int) -> int | None:
        """How many coordinates the target of a row has; None: too many for a Jacobian."""


class Combinator(abc.ABC):
    """A solver made of other solvers."""

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """The largest number of steps of all parts."""

    @property
    @abc.abstractmethod
    def parts(self) -> tuple[Any, ...]:
        """The solvers it is made of."""

    @property
    def tolerance(self) -> float | None:
        """The tolerance where the caller of `og.synthesize` gives none; None: all steps are made."""
        return None

    @abc.abstractmethod
    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Changes the images `rows` of a pool until they are within `tolerance`, or for all steps."""


def kept_limits(solver: Any) -> Restriction:
    """The limits on the change that all parts of a solver have; none where they differ, or a part has none.

    >>> from outgen_jax.solvers.gauss_newton import gauss_newton
    >>> kept_limits(restarted(gauss_newton(max_change=0.1), times=2)).max_change
    0.1
    """
    own = getattr(solver, "restriction", None)
    if own is not None:
        return own
    found = {kept_limits(part) for part in getattr(solver, "parts", ())}
    return found.pop() if len(found) == 1 else Restriction()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Then(Combinator):
    """A solver followed by another one: see `then`."""

    first: Solver | Combinator
    second: Solver | Combinator
    at: float

    @property
    def parts(self) -> tuple[Any, ...]:
        """Both."""
        return self.first, self.second

    @property
    def steps(self) -> int:
        """Of both."""
        return self.first.steps + self.second.steps

    @property
    def tolerance(self) -> float | None:
        """The second's own."""
        return self.second.tolerance

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Runs the first solver on all rows, then the second on those that need it."""
        pool.run(self.first, rows, max(self.at, tolerance), start=start)
        pool.run(self.second, pool.unfinished(rows, tolerance), tolerance, start=pool.best)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restarted(Combinator):
    """A solver that starts again for images that have not converged: see `restarted`."""

    solver: Solver | Combinator
    times: int
    from_source: bool = False
    via: Solver | None = None
    later: Solver | Combinator | None = None
    patience: int | None = None
    beyond: float = 0.0

    @property
    def parts(self) -> tuple[Any, ...]:
        """All that are given."""
        return tuple(s for s in (self.solver, self.via, self.later) if s is not None)

    @property
    def steps(self) -> int:
        """Of all starts."""
        later = self.solver if self.later is None else self.later
        between = 0 if self.via is None else self.via.steps
        return self.solver.steps + self.times * (between + later.steps)

    @property
    def tolerance(self) -> float | None:
        """The solver's own."""
        return self.solver.tolerance

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Runs the solver on all rows, then again on those that have not converged."""
        pool.run(self.solver, rows, tolerance, start=start)
        rows = pool.unfinished(rows, tolerance)
        nearest, stalled = pool.nearest(rows), np.zeros(len(rows), int)
        for attempt in range(self.times):
            if not len(rows):
                return
            again: Start = _near_source(pool, attempt) if self.from_source else pool.last
            remaining = rows
            if self.via is not None:
                pool.run(self.via, rows, tolerance, start=again)
                remaining, again = pool.unfinished(rows, tolerance), pool.last
            later = self.solver if self.later is None else self.later
            pool.run(later, remaining, tolerance, start=again)

            now = pool.nearest(rows)
            stalled = np.where(now > _PROGRESS * nearest, stalled + 1, 0)
            goes_on = np.isin(rows, pool.unfinished(rows, tolerance))
            if self.patience is not None:
                hopeless = (stalled >= self.patience) & (now > self.beyond)
                pool.give_up(rows[goes_on & hopeless])
                goes_on &= ~hopeless
            rows, nearest, stalled = rows[goes_on], now[goes_on], stalled[goes_on]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rescued(Combinator):
    """A solver, and another one for the images that it leaves: see `rescued`."""

    solver: Solver | Combinator
    by: Solver | Combinator

    @property
    def parts(self) -> tuple[Any, ...]:
        """Both."""
        return self.solver, self.by

    @property
    def steps(self) -> int:
        """Of all three runs."""
        return 2 * self.solver.steps + self.by.steps

    @property
    def tolerance(self) -> float | None:
        """The solver's own."""
        return self.solver.tolerance

    def run(
        self, pool: Pool, rows: np.ndarray, tolerance: float, *, start: Start | None = None
    ) -> None:
        """Runs the solver on all rows, `by` on the unfinished ones, and the solver again on those `by` finishes."""
        pool.run(self.solver, rows, tolerance, start=start)
        left = pool.unfinished(rows, tolerance)
        pool.run(self.by, left, tolerance, start=pool.last)
        pool.run(self.solver, pool.reached(left, tolerance), tolerance, start=_part_way(pool))


def then(first: Solver | Combinator, second: Solver | Combinator, *, at: float) -> Then:
    """Runs one solver until the distance is at most `at`, then another one.

    An image that does not come this close is handed over after the last step of the first solver. The second
    solver starts at the best image of the first, and its `tolerance` is that of the combination.

    Args:
      first: the first solver, such as `og.preset("adam")`.
      second: the second solver, such as `og.gauss_newton()`.
      at: the distance of the hand-over, in the measure of `og.outputs`; 3e-4 is usual.

    Raises:
      ValueError: `first` or `second` is not a solver, or `at` is not positive.

    >>> import outgen_jax as og
    >>> og.then(og.preset("adam"), og.gauss_newton(), at=3e-4).steps
    140
    """
    for name, part in (("first", first), ("second", second)):
        check_is_solver(part, name, caller="then")
    if not at > 0:
        raise ValueError(f"then: at must be a positive distance, got {at}; 3e-4 is usual")
    return Then(first=first, second=second, at=float(at))


def restarted(
    solver: Solver | Combinator,
    *,
    times: int,
    from_source: bool = False,
    via: Solver | None = None,
    later: Solver | Combinator | None = None,
    patience: int | None = None,
    beyond: float = 0.0,
) -> Restarted:
    """Starts a solver again for images that have not converged.

    Args:
      solver: the solver; its `tolerance` is that of the combination.
      times: the largest number of further starts.
      from_source: whether to start again at the source, with noise below half a grey level; otherwise the solver starts
        at its last image.
      via: a solver that changes the image before each further start; None: there is none.
      later: the solver of the further starts; None: `solver`.
      patience: an image is given up after so many further starts in a row, none of which halved its distance, and
        `gave_up` of the result says so; None: never.
      beyond: images within this distance are not given up.

    Raises:
      ValueError: `solver`, `via` or `later` is not a solver; `times` or `beyond` is negative; a patience below 1.

    >>> import outgen_jax as og
    >>> og.restarted(og.gauss_newton(steps=40), times=2).steps
    120
    """
    check_is_solver(solver, "solver", caller="restarted")
    for name, part in (("via", via), ("later", later)):
        if part is not None:
            check_is_solver(part, name, caller="restarted")
    check_integers(caller="restarted", times=times, patience=patience)
    if times < 0:
        raise ValueError(
            f"restarted: times must not be negative, got {times}; 0 means no further start"
        )
    if patience is not None and patience < 1:
        raise ValueError(
            f"restarted: patience must be at least 1, got {patience}; None never gives up"
        )
    if not beyond >= 0:
        raise ValueError(
            f"restarted: beyond must be a distance of at least 0, got {beyond}; 0 spares no image"
        )
    return Restarted(
        solver=solver,
        times=int(times),
        from_source=from_source,
        via=via,
        later=later,
        patience=None if patience is None else int(patience),
        beyond=float(beyond),
    )


def rescued(solver: Solver | Combinator, *, by: Solver | Combinator) -> Rescued:
    """Hands the images that a solver leaves outside the tolerance to another one, and back.

    The other solver starts at the last image of the first. Its changes are often larger than they need be. So images
    that it brings within the tolerance go back to the first solver, which starts on the line to the source, at 0.7 of
    the change. Of two images within the tolerance, the one with the smaller change is kept.

    Args:
      solver: the solver of all images, such as `og.smallest_change()`; its `tolerance` is that of the combination.
      by: the solver of the images that are left, such as `og.restarted(og.gauss_newton(), times=6)`.

    Raises:
      ValueError: `solver` or `by` is not a solver.

    >>> import outgen_jax as og
    >>> og.rescued(og.smallest_change(steps=30), by=og.gauss_newton(steps=40)).steps
    100
    """
    for name, part in (("solver", solver), ("by", by)):
        check_is_solver(part, name, caller="rescued")
    return Rescued(solver=solver, by=by)


def check_is_solver(solver: Any, name: str, *, caller: str) -> None:
    """Refuses what is passed for a solver and is none, such as its name, and a solver that is no pytree.

    Raises:
      ValueError: in the name of `caller`, for its argument `name`.
    """
    if isinstance(solver, Solver) and jax.tree_util.all_leaves([solver]):
        raise ValueError(
            f"{caller}: {name} must be a pytree, but {type(solver).__name__} is not registered; decorate the class "
            "with @jax.tree_util.register_dataclass and @dataclasses.dataclass(frozen=True)"
        )
    if isinstance(solver, Solver | Combinator):
        return
    if isinstance(solver, str):
        remedy = f"pass og.preset({solver!r})"
    elif isinstance(solver, optax.GradientTransformation):
        remedy = "pass og.gradient_descent(optimizer)"
    elif callable(solver):
        remedy = f"call it, as in og.{getattr(solver, '__name__', 'exact')}()"
    else:
        remedy = "pass one such as og.exact()"
    raise ValueError(f"{caller}: {name} must be a solver, got {solver!r:.60}; {remedy}")


def _part_way(pool: Pool) -> Start:
    """Sources with a part of the change of the best image."""

    def start(row: int) -> np.ndarray:
        source = pool.source(row)
        return source + np.float32(_BACK) * (pool.best(row) - source)

    return start


def _near_source(pool: Pool, attempt: int) -> Start:
    """Sources with noise that depends on the attempt alone, so that the other images do not matter."""
    noise: Any = None

    def start(row: int) -> np.ndarray:
        nonlocal noise
        source = pool.source(row)
        if noise is None:
            noise = np.random.default_rng(attempt).uniform(-_NOISE, _NOISE, source.shape)
        return np.clip(source + noise, 0, 1).astype(np.float32)

    return start
