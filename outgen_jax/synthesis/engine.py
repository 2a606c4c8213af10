"""The one loop that drives solvers: images enter slots, converge or run out of steps, and leave.

`Pool` holds the images of a call on the host. `Pool.run` passes some of them through the slots on the devices; a solver
that is made of others, such as `og.exact`, calls it several times. The order in which images enter and leave does not
change what happens to any of them.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from outgen_jax import chunking
from outgen_jax.outputs import Output
from outgen_jax.outputs.distribution import MOST_CLASSES
from outgen_jax.solvers.combinators import Combinator
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import blocks, slot_sizes
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis import slots as device
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.slot_sizes import SlotSizes
from outgen_jax.synthesis.slots import Entry, Exit, Slot

# Pixels of a batch (height × width × images × passes) where no size is given: 128 images of 32×32 for gradient descent
# on CPU, 2,048 on a device that does not say how much memory it has.
_CPU_BATCH_PIXELS = 2**17
_ACCELERATOR_BATCH_PIXELS = 2**21
# Memory for each pixel, of a device that does. By an estimate (docs/scale.md), VGG16 takes less than half of it.
_BYTES_A_PIXEL = 2**13
_MIN_BATCH = 8
# Rows of a Jacobian at most.
MOST_ROWS = 512
# A device ends a call early once this share of its slots is done, while others wait for a slot.
_QUOTA = 1 / 16

# Rows by how many classes of each part have a coordinate each.
Groups = dict[tuple[int | None, ...], np.ndarray]


class Stopped(Exception):  # noqa: N818 (no error: it leads out of solvers that are made of others)
    """The caller's callback has asked to stop; the pool holds the best images so far."""


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
          keeps_history: whether `history` is kept.
          advance: called with the number of images that are done.
          callback: called after every step, which then is a call of its own; a true answer stops.
        """
        count = len(sources)
        self.bound, self.sources, self.targets, self.counts = bound, sources, targets, counts
        self.keeps_history, self.advance, self.callback = keeps_history, advance, callback
        self.images = networks.as_float(sources).copy()
        self.outputs = tuple(np.full(t.shape, np.nan, np.float32) for t in targets)
        self.divergence = np.full(count, np.inf, np.float32)
        self.distance = np.full(count, np.inf, np.float32)
        self.steps = np.zeros(count, np.int32)
        self.steps_at_work = np.zeros(count, np.int32)
        self.finite = np.ones(count, bool)
        self.gave_up = np.zeros(count, bool)
        self.history: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.tolerance = -1.0  # set by `move`
        self.slot_sizes: dict[Any, SlotSizes] = {}  # by what tells programs apart
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
        total = num_coordinates(self.bound.kinds, self.targets, counts)
        return total if total <= MOST_ROWS else None

    def run(
        self,
        solver: Solver | Combinator,
        rows: np.ndarray,
        tolerance: float,
        *,
        start: Callable[[int], np.ndarray] | None = None,
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
        groups: Groups = {(None,) * len(self.targets): rows} if len(rows) else {}
        if solver.by_coordinates:
            groups = grouped(self.counts, rows)
        for counts, group in groups.items():
            _Stream(self, solver, counts, group.tolist(), tolerance, start or self.source).run()

    def finish(self, rows: np.ndarray) -> None:
        """Tells the progress bar that nothing more happens to `rows`."""
        self.advance(float((1 - self._shown[rows]).sum()))
        self._shown[rows] = 1

    # --- what streams tell ---

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
        self.advance(float(shown.sum()))

    def seen(self, rows: Sequence[int], found: Exit) -> None:
        """Takes over results that have converged, or that are nearer than the ones before."""
        for place, row in enumerate(rows):
            self.steps_at_work[row] = found.steps[place]
            self.finite[row] &= found.finite[place]
            nearer = found.divergence[place] < self.divergence[row]
            had_converged = self.tolerance > 0 and self.distance[row] <= self.tolerance
            if not (found.converged[place] or (nearer and not had_converged)):
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

    def ended(self, rows: Sequence[int], found: Exit) -> None:
        """Takes over what has left the slots."""
        self.seen(rows, found)
        self.steps[rows] += self.steps_at_work[rows]
        self.steps_at_work[rows] = 0
        for place, row in enumerate(rows):
            if not found.converged[place]:
                self._last[row] = np.array(found.last_image[place])
            else:
                self._last.pop(row, None)
        done = np.array(rows)[self.distance[np.array(rows)] <= self.tolerance]
        self.finish(done)


class _Stream:
    """Rows of a pool on their way through the slots with one primitive solver."""

    def __init__(
        self,
        pool: Pool,
        solver: Solver,
        counts: tuple[int | None, ...],
        rows: list[int],
        tolerance: float,
        start: Callable[[int], np.ndarray],
    ) -> None:
        self.pool, self.bound = pool, pool.bound
        self.solver, self.counts = solver, counts
        self.start_image = start
        self.threshold = np.float32(tolerance)
        self.waiting = rows[::-1]  # the last is the next to enter
        self.slot_sizes = self._slot_sizes()
        self.size = self.slot_sizes.first(len(rows))
        self.rows = np.full(self.size, -1)  # the row in each slot; -1: empty
        self.steps = np.zeros(self.size, np.int64)
        self.done = np.zeros(self.size, bool)
        self.updates_made = 0  # by the last call

    def run(self) -> None:
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
            self.threshold,
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
        args = (self.solver, self.bound.variables, self.threshold)
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
        """Tells the callback how far all images are; raises `Stopped` where it asks for that."""
        if self.pool.callback is None:
            return
        places = np.flatnonzero(self.rows >= 0)
        rows = [int(r) for r in self.rows[places]]
        found = self._found(slots, self._padded(places))
        self.pool.seen(rows, found)
        if self.pool.callback(self.pool):
            self.pool.ended(rows, found)
            raise Stopped

    def _exchange(self, slots: Slot) -> Slot:
        """Takes out who is done, and fills their slots with those who wait."""
        places = np.flatnonzero(self.done & (self.rows >= 0))
        if not len(places):
            return slots
        padded = self._padded(places)
        size = len(padded)
        rows = [int(r) for r in self.rows[places]]
        self.pool.ended(rows, self._found(slots, padded))
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
        mesh = self.bound.mesh
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        key = jax.tree.structure(self.solver), self.counts
        if key not in self.pool.slot_sizes:
            share = self.bound.batch_size or self._default_size()  # of each device, at most
            largest = batch_for(len(self.pool.sources), share, mesh)
            sizes = slot_sizes.ladder(largest, devices=mesh.size)
            self.pool.slot_sizes[key] = SlotSizes(sizes, on_cpu=on_cpu)
        return self.pool.slot_sizes[key]

    def _rounded(self, size: int) -> int:
        """At least `size`, and a multiple of the number of devices."""
        devices = self.bound.mesh.size
        return devices * max(1, -(-size // devices))

    def _default_size(self) -> int:
        return default_batch_size(self.pool.sources, self.bound.mesh, passes=self._passes())

    def _passes(self) -> int:
        """Of the network, that the solver makes at once for each image."""
        return self.solver.passes(num_coordinates(self.bound.kinds, self.pool.targets, self.counts))

    def _at_once(self, slots: Slot) -> int | None:
        """Images of a device that should be updated at the same time, at least; None: all of them."""
        if self.bound.mesh.devices.flat[0].platform != "cpu":
            return None
        gradient = device.gradient.program_of(self.bound.network)
        image = slots.source[:1]
        return blocks.least_images(gradient, self.bound.variables, image, passes=self._passes())

    def _updates_per_call(self, slots: Slot) -> int:
        if self.solver.steps == 0 or self.pool.callback is not None:
            return 1
        gradient = device.gradient.program_of(self.bound.network)
        # Also where the solver makes fewer: a program for each number of steps would be one too many.
        return chunking.updates_per_call(gradient, self.bound.variables, slots.source[:1])


def default_batch_size(images: np.ndarray, mesh: Mesh, *, passes: int = 1) -> int:
    """Images at a time for each device, by its platform, the size of the images and how many passes run at once."""
    pixels = _batch_pixels(mesh.devices.flat[0])
    least = max(1, _MIN_BATCH // passes)
    return max(least, pixels // (images.shape[1] * images.shape[2] * passes))


def _batch_pixels(device: jax.Device) -> int:
    """Pixels of a batch for a device: a power of two, so that a little less memory makes no other programs."""
    if device.platform == "cpu":
        return _CPU_BATCH_PIXELS
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    pixels = memory // _BYTES_A_PIXEL
    return 1 << (pixels.bit_length() - 1) if pixels > 0 else _ACCELERATOR_BATCH_PIXELS


def batch_for(count: int, share: int, mesh: Mesh) -> int:
    """Images at a time on all devices, of `count` in all and `share` on each device at most.

    There may be room for more than `count`: calls with about as many images run the same programs.
    """
    return mesh.size * min(share, slot_sizes.rounded(-(-count // mesh.size)))


def grouped(counts: Sequence[tuple[int | None, ...]], rows: np.ndarray) -> Groups:
    """The `rows` by how many classes have a coordinate each, `MOST_CLASSES` at most; one program serves a group."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for row in rows:
        capped = tuple(None if count is None else min(count, MOST_CLASSES) for count in counts[row])
        groups[capped].append(int(row))
    return {counted: np.array(group) for counted, group in groups.items()}


def num_coordinates(
    kinds: tuple[Output, ...], targets: tuple[np.ndarray, ...], counts: tuple[int | None, ...]
) -> int:
    """M of targets [N, R, K], one a part."""
    parts = zip(kinds, targets, counts, strict=True)
    return sum(t.shape[1] * kind.num_coordinates(t.shape[2], count) for kind, t, count in parts)
