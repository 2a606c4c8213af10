"""The images of a call on the host: `Pool`.

`Pool.run` passes some of them through the slots on the devices, a `Stream` for each program; a solver that is made of
others, such as `og.exact`, calls it several times.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from outgen_jax.outputs.distribution import MOST_CLASSES
from outgen_jax.solvers.combinators import Combinator, Start
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import coordinates
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.slot_sizes import SlotSizes
from outgen_jax.synthesis.slots import Entry, Exit
from outgen_jax.synthesis.stream import Stream


class _Best(NamedTuple):
    """The best image of a row before a solver started it anew."""

    image: np.ndarray  # [H, W, C]
    outputs: tuple[np.ndarray, ...]  # [R, K] a part
    divergence: np.float32
    distance: np.float32


class Pool:
    """Images of one call, what is wanted of them, and where they have come to.

    Attributes (host arrays that lead with [N]):
      images: float32, the best so far. While a combination hands over at a distance above the tolerance and starts
        again, the best since it did; `restore_best` brings back a better one of before.
      outputs: of these, one [N, R, K] a part.
      divergence, distance: of these to their targets.
      steps: int32, so far.
      steps_at_work: int32, those of images in slots, which `steps` does not count yet.
      finite: False where the network returned NaN or infinity.
      gave_up: True where a solver ended early since it made no progress.
      tolerance: at which an image is finished for good; negative: none is.
      history: for each image a list of divergences, one before every update and one at every end.
    """

    def __init__(
        self,
        bound: Bound,
        sources: np.ndarray,
        targets: tuple[np.ndarray, ...],
        counts: Sequence[tuple[int | None, ...]],
        total_steps: int,
        *,
        tolerance: float,
        keeps_history: bool = False,
        advance: Callable[[float], object] = lambda images: None,
        callback: Callable[["Pool"], object] | None = None,
    ) -> None:
        """All images at their sources.

        Args:
          bound: the network.
          sources: [N, H, W, C], uint8 or float32 in [0, 1].
          targets: [N, R, K] a part.
          counts: for each image, how many classes of each part get a coordinate each.
          total_steps: how much work the progress bar is to expect.
          tolerance: at which an image is finished for good; negative: none is.
          keeps_history: whether `history` is kept.
          advance: called with the number of images that are done.
          callback: called after every step, which then is a call of its own; a true answer stops.
        """
        count = len(sources)
        self.bound, self.sources, self.targets, self.counts = bound, sources, targets, counts
        self.tolerance, self.keeps_history = tolerance, keeps_history
        self.images = networks.as_float(sources).copy()
        self.outputs = tuple(np.full(t.shape, np.nan, np.float32) for t in targets)
        self.divergence = np.full(count, np.inf, np.float32)
        self.distance = np.full(count, np.inf, np.float32)
        self.steps = np.zeros(count, np.int32)
        self.steps_at_work = np.zeros(count, np.int32)
        self.finite = np.ones(count, bool)
        self.gave_up = np.zeros(count, bool)
        self.history: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.slot_sizes: dict[Any, SlotSizes] = {}  # by what tells programs apart
        self._advance, self._callback = advance, callback
        self._last: dict[int, np.ndarray] = {}
        self._before: dict[int, _Best] = {}
        self._share_of_a_step = 1 / max(total_steps, 1)
        self._shown = np.zeros(count)

    def unfinished(self, rows: np.ndarray, tolerance: float) -> np.ndarray:
        """Those of `rows` that have not come within `tolerance`, and have not failed."""
        return rows[(self.distance[rows] > tolerance) & self.finite[rows]]

    def reached(self, rows: np.ndarray, tolerance: float) -> np.ndarray:
        """Those of `rows` that have come within `tolerance`."""
        return rows[(self.distance[rows] <= tolerance) & self.finite[rows]]

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """The distances of the best images of `rows`."""
        return self.distance[rows]

    def give_up(self, rows: np.ndarray) -> None:
        """Notes that a solver has ended early for `rows`."""
        self.gave_up[rows] = True

    def source(self, row: int) -> np.ndarray:
        """[H, W, C] float32 in [0, 1]."""
        return networks.as_float(self.sources[row])

    def best(self, row: int) -> np.ndarray:
        """The best image of a row so far [H, W, C]."""
        return self.images[row]

    def last(self, row: int) -> np.ndarray:
        """Where the last solver left a row [H, W, C]; the best image if it has converged there."""
        return self._last.get(row, self.images[row])

    def named(self, row: int) -> int | None:
        """How many of a network's many classes the target of a row names; None: there are few, or no classes."""
        counted = [count for count in self.counts[row] if count is not None]
        return max(counted) if len(counted) == len(self.counts[row]) else None

    def coordinates(self, row: int) -> int | None:
        """How many outputs the target of a row steers; None: more than a Jacobian should have rows."""
        counts = self.counts[row]
        if any(count is not None and count > MOST_CLASSES for count in counts):
            return None
        total = coordinates.num_coordinates(self.bound.kinds, self.targets, counts)
        return total if total <= coordinates.MOST_ROWS else None

    def move(self, solver: Solver | Combinator) -> None:
        """Moves all images to the pool's tolerance.

        Raises:
          Stopped: the callback has asked for it; the pool holds the best images so far.
        """
        rows = np.arange(len(self.sources))
        try:
            self.run(solver, rows, self.tolerance)
        finally:  # also where the callback stops
            self.restore_best()
        self.finish(rows)

    def run(
        self,
        solver: Solver | Combinator,
        rows: np.ndarray,
        tolerance: float,
        *,
        start: Start | None = None,
    ) -> None:
        """Moves the images `rows`, those of one program after another.

        Args:
          solver: how.
          rows: [n] int.
          tolerance: distance at which an image is done; negative: only after the last step.
          start: row -> image where the solver starts; None: the source.
        """
        if isinstance(solver, Combinator):
            solver.run(self, rows, tolerance, start=start)
            return
        groups: coordinates.Groups = {(None,) * len(self.targets): rows} if len(rows) else {}
        if solver.by_coordinates:
            groups = coordinates.grouped(self.counts, rows)
        for counts, group in groups.items():
            Stream(self, solver, counts, group.tolist(), tolerance, start or self.source).run()

    def finish(self, rows: np.ndarray) -> None:
        """Tells the progress bar that nothing more happens to `rows`."""
        self._advance(float((1 - self._shown[rows]).sum()))
        self._shown[rows] = 1

    # --- what streams tell ---

    @property
    def is_watched(self) -> bool:
        """Whether there is a callback."""
        return self._callback is not None

    def asks_to_stop(self) -> bool:
        """Calls the callback; whether it asks to stop."""
        return self._callback is not None and bool(self._callback(self))

    def entry(self, row: int, start: np.ndarray) -> Entry:
        """What a slot needs of a row."""
        return Entry(self.source(row), start, tuple(t[row] for t in self.targets))

    def went(self, row: int, curve: np.ndarray) -> None:
        """Hears of the divergences of a row that were seen [n]."""
        if len(curve):
            self.history[row].append(curve)

    def moved(self, rows: np.ndarray, steps: np.ndarray) -> None:
        """Hears how many steps [n] `rows` [n] have made, or have been spared since the solver left them earlier."""
        shown = np.minimum(steps * self._share_of_a_step, 1 - self._shown[rows])
        self._shown[rows] += shown
        self._advance(float(shown.sum()))

    def seen(self, rows: Sequence[int], found: Exit, tolerance: float) -> None:
        """Takes over results of a solver with this tolerance that are better than the ones before.

        A result is better if it is nearer or has converged; where the one before has, too, if its change is smaller.
        What is within the pool's tolerance stays within it.
        """
        for place, row in enumerate(rows):
            self.steps_at_work[row] = found.steps[place]
            self.finite[row] &= found.finite[place]
            nearer = found.divergence[place] < self.divergence[row]
            is_better = found.converged[place] or nearer
            is_within = self.tolerance > 0 and self.distance[row] <= self.tolerance
            # A solver may aim below the pool's tolerance, or hand over above it.
            if self.distance[row] <= (min(tolerance, self.tolerance) if is_within else tolerance):
                image = np.asarray(found.best_image[place])
                is_better = found.converged[place] and self._changes_less(row, image)
            if is_within:
                is_better &= found.distance[place] <= self.tolerance
            if not is_better:
                if not np.isfinite(self.divergence[row]):  # nothing but the source is known
                    self.images[row] = found.best_image[place]
                continue
            if not nearer and found.distance[place] > self.tolerance:
                self._remember(row)
            self.images[row] = found.best_image[place]
            self.divergence[row] = found.divergence[place]
            self.distance[row] = found.distance[place]
            for part, new in zip(self.outputs, found.outputs, strict=True):
                part[row] = new[place]

    def _changes_less(self, row: int, image: np.ndarray) -> bool:
        """Whether an image is at most as far from the source of a row as its best one."""
        source = self.source(row)
        return bool(np.linalg.norm(image - source) <= np.linalg.norm(self.images[row] - source))

    def _remember(self, row: int) -> None:
        """Keeps the best image of a row, which a farther one replaces that a next solver is to start from."""
        before = self._before.get(row)
        if before is None or self.divergence[row] < before.divergence:
            self._before[row] = _Best(
                self.images[row].copy(),
                tuple(part[row].copy() for part in self.outputs),
                self.divergence[row],
                self.distance[row],
            )

    def restore_best(self) -> None:
        """Brings back images that were nearer than those that are there now, unless these are within the tolerance."""
        for row, before in self._before.items():
            if self.distance[row] <= self.tolerance or self.divergence[row] <= before.divergence:
                continue
            self.images[row] = before.image
            self.divergence[row], self.distance[row] = before.divergence, before.distance
            for part, old in zip(self.outputs, before.outputs, strict=True):
                part[row] = old
        self._before.clear()

    def ended(self, rows: Sequence[int], found: Exit, tolerance: float) -> None:
        """Takes over what has left the slots."""
        self.seen(rows, found, tolerance)
        self.steps[rows] += self.steps_at_work[rows]
        self.steps_at_work[rows] = 0
        for place, row in enumerate(rows):
            if not found.converged[place]:
                self._last[row] = np.array(found.last_image[place])
            else:
                self._last.pop(row, None)
        done = np.array(rows)[self.distance[np.array(rows)] <= self.tolerance]
        self.finish(done)
