"""The loop that drives a primitive solver: images enter slots, converge or run out of steps, and leave.

The order in which they enter and leave does not change what happens to any of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from outgen_jax import chunking
from outgen_jax.solvers.combinators import Start
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import batch_sizes, blocks, coordinates, slot_sizes
from outgen_jax.synthesis import slots as device
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.slot_sizes import SlotSizes
from outgen_jax.synthesis.slots import Entry, Exit, Slot

# A device ends a call early once this share of its slots is done, while others wait for a slot.
_QUOTA = 1 / 16


class Stopped(Exception):  # noqa: N818 (no error: it leads out of solvers that are made of others)
    """The caller has asked to stop; the pool holds the best images so far."""


class Rows(Protocol):
    """The images of one call, as a stream sees them; see `engine.Pool`."""

    bound: Bound
    sources: np.ndarray
    targets: tuple[np.ndarray, ...]
    slot_sizes: dict[Any, SlotSizes]
    keeps_history: bool

    @property
    def is_watched(self) -> bool:
        """Whether the caller is told after every step, which then is a call of its own."""

    def asks_to_stop(self) -> bool:
        """Tells the caller how far all images are; whether the caller asks to stop."""

    def entry(self, row: int, start: np.ndarray) -> Entry:
        """What a slot needs of a row."""

    def went(self, row: int, curve: np.ndarray) -> None:
        """Hears of the divergences of a row that were seen [n]."""

    def moved(self, rows: np.ndarray, steps: np.ndarray) -> None:
        """Hears how many steps [n] `rows` [n] have made, or have been spared since the solver left them earlier."""

    def seen(self, rows: Sequence[int], found: Exit, tolerance: float) -> None:
        """Takes over results of a solver with this tolerance that are better than the ones before."""

    def ended(self, rows: Sequence[int], found: Exit, tolerance: float) -> None:
        """Takes over what has left the slots."""


class Stream:
    """Rows of a pool on their way through the slots with one primitive solver; it runs once."""

    def __init__(
        self,
        pool: Rows,
        solver: Solver,
        counts: tuple[int | None, ...],
        rows: list[int],
        tolerance: float,
        start: Start,
    ) -> None:
        self.pool, self.bound = pool, pool.bound
        self.solver, self.counts = solver, counts
        self.start_image = start
        self.tolerance = tolerance
        self.waiting = rows[::-1]  # the last is the next to enter
        self.slot_sizes = self._slot_sizes()
        self.size = self.slot_sizes.first(len(rows))
        self.rows = np.full(self.size, -1)  # the row in each slot; -1: empty
        self.steps = np.zeros(self.size, np.int64)
        self.done = np.zeros(self.size, bool)
        self.updates_made = 0  # by the last call

    def run(self) -> None:
        """Moves all rows until each is done.

        Raises:
          Stopped: the caller has asked for it.
        """
        slots = self._first()
        updates = self._updates_per_call(slots)
        at_once = self._at_once(slots) if updates > 1 else None
        while (self.rows >= 0).any():
            slots = self._advance(slots, updates, at_once)
            self._report(slots)
            slots = self._exchange(slots)
            working = int((self.rows >= 0).sum())
            if working > 0 and not self.waiting:
                passes = self._passes() * self.updates_made
                slots = self._resized(slots, self.slot_sizes.next(self.size, working, passes))

    # --- on the devices ---

    def _call(self, program: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return program(self.bound.network, *args, mesh=self.bound.mesh, **options)

    def _start(self, rows: Sequence[int], size: int) -> Slot:
        """Slots with some rows of the pool, and empty ones up to `size`."""
        filled = [*rows, *[rows[-1]] * (size - len(rows))]
        entries = [self.pool.entry(row, self.start_image(row)) for row in filled]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *entries)
        present = np.arange(size) < len(rows)
        placed = device.shared(self.bound.mesh, (stacked, present))
        return self._call(
            device.start,
            self.solver,
            self.bound.variables,
            np.float32(self.tolerance),
            *placed,
            kinds=self.bound.kinds,
            counts=self.counts,
        )

    def _first(self) -> Slot:
        rows = [self.waiting.pop() for _ in range(min(self.size, len(self.waiting)))]
        self.rows[: len(rows)] = rows
        return self._start(rows, self.size)

    def _advance(self, slots: Slot, updates: int, at_once: int | None) -> Slot:
        """One call; `self.done` says who is done.

        An image that has had all its steps is looked at by the first update of the next call.
        """
        share = self.size // self.bound.mesh.size
        quota = max(1, int(_QUOTA * share)) if self.waiting else share
        args = (self.solver, self.bound.variables, np.float32(self.tolerance))
        before = self.steps
        slots, curve = self._call(
            device.advance, *args, np.int32(quota), slots, updates=updates, at_once=at_once
        )
        after, active = jax.device_get((slots.steps, slots.active))
        after = after.astype(np.int64)
        made = after - before
        is_done = ~active | (before >= self.solver.steps)
        places = np.flatnonzero(self.rows >= 0)
        self.pool.moved(self.rows[places], made[places])
        if self.pool.keeps_history:
            divergences = np.asarray(curve)
            for place in places:
                seen = made[place] + is_done[place]
                self.pool.went(int(self.rows[place]), divergences[:seen, place])
        self.updates_made = int(made.max())
        self.steps, self.done = after, is_done
        return slots

    def _report(self, slots: Slot) -> None:
        """Tells the caller how far all images are; raises `Stopped` where they ask for that."""
        if not self.pool.is_watched:
            return
        places = np.flatnonzero(self.rows >= 0)
        rows = [int(r) for r in self.rows[places]]
        found = self._found(slots, self._padded(places))
        self.pool.seen(rows, found, self.tolerance)
        if self.pool.asks_to_stop():
            self.pool.ended(rows, found, self.tolerance)
            raise Stopped

    def _exchange(self, slots: Slot) -> Slot:
        """Takes out who is done, and fills their slots with those who wait."""
        places = np.flatnonzero(self.done & (self.rows >= 0))
        if not len(places):
            return slots
        padded = self._padded(places)
        size = len(padded)
        rows = [int(r) for r in self.rows[places]]
        self.pool.ended(rows, self._found(slots, padded), self.tolerance)
        self.pool.moved(np.array(rows), np.maximum(self.solver.steps - self.steps[places], 0))
        self.rows[places] = -1
        count = min(len(places), len(self.waiting))
        if count:
            new = [self.waiting.pop() for _ in range(count)]
            padded[count:] = self.size
            slots = self._call(device.enter, slots, padded, self._start(new, size))
            self.rows[places[:count]] = new
            self.steps[places[:count]] = 0
        return slots

    def _padded(self, places: np.ndarray) -> np.ndarray:
        """`places` filled up to a number that a program exists for; those from `size` on are none."""
        size = self._portion_size(len(places))
        return np.append(places, np.full(size - len(places), self.size)).astype(np.int32)

    def _found(self, slots: Slot, places: np.ndarray) -> Exit:
        """What is in some slots, on the host."""
        return jax.device_get(self._call(device.leave, self.solver, slots, places))

    def _resized(self, slots: Slot, size: int) -> Slot:
        """The same images in `size` slots, as many as there are or fewer."""
        if size == self.size:
            return slots
        places = np.flatnonzero(self.rows >= 0)
        empty = np.flatnonzero(self.rows < 0)[: size - len(places)]
        chosen = np.concatenate([places, empty])
        slots = self._call(device.fewer, slots, chosen.astype(np.int32))
        self.rows, self.steps, self.size = self.rows[chosen], self.steps[chosen], size
        return slots

    # --- sizes ---

    def _portion_size(self, count: int) -> int:
        """Slots that are exchanged at once: all or an eighth, so that two programs serve."""
        few = self._rounded(self.size // 8)
        return few if count <= few else self.size

    def _slot_sizes(self) -> SlotSizes:
        """Those of this solver, which all its streams of a call share."""
        key = jax.tree.structure(self.solver), self.counts
        if key not in self.pool.slot_sizes:
            largest = batch_sizes.largest(self.bound, self.pool.sources, passes=self._passes())
            sizes = slot_sizes.ladder(largest, devices=self.bound.mesh.size)
            self.pool.slot_sizes[key] = SlotSizes(sizes, on_cpu=self._on_cpu())
        return self.pool.slot_sizes[key]

    def _rounded(self, size: int) -> int:
        """At least `size`, and a multiple of the number of devices."""
        devices = self.bound.mesh.size
        return devices * max(1, -(-size // devices))

    def _on_cpu(self) -> bool:
        return self.bound.mesh.devices.flat[0].platform == "cpu"

    def _passes(self) -> int:
        """Of the network, that the solver makes at once for each image."""
        return self.solver.passes(
            coordinates.num_coordinates(self.bound.kinds, self.pool.targets, self.counts)
        )

    def _at_once(self, slots: Slot) -> int | None:
        """Images of a device that should be updated at the same time, at least; None: all of them."""
        if not self._on_cpu():
            return None
        gradient = device.gradient.program_of(self.bound.network)
        image = slots.source[:1]
        return blocks.least_images(gradient, self.bound.variables, image, passes=self._passes())

    def _updates_per_call(self, slots: Slot) -> int:
        if self.solver.steps == 0 or self.pool.is_watched:
            return 1
        gradient = device.gradient.program_of(self.bound.network)
        # Also where the solver makes fewer: a program for each number of steps would be one too many.
        return chunking.updates_per_call(gradient, self.bound.variables, slots.source[:1])
