"""The shards of a data set: made on all devices at the same time, while others are read and written.

Each device works on a shard of its own, so their number does not change what is in a file.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from outgen_jax.data import fields, sharded_set
from outgen_jax.generation import data_card, shard
from outgen_jax.synthesis import programs


class _Cancelled(Exception):  # noqa: N818 (no error: another thread has failed, or was interrupted)
    """The shard is no longer wanted."""


def make(
    plan: shard.Plan,
    written: sharded_set.ShardedSet,
    missing: Sequence[int],
    advance: Callable[[float], object],
) -> None:
    """Makes the missing shards, one on each device at a time, reading rows ahead and writing behind in threads.

    Args:
      plan: what is to be made.
      written: where to.
      missing: indices of shards.
      advance: called with the number of images that are done.
    """
    if not missing:
        return
    fields.import_writers()
    places = shard.on_each_device(plan)
    if len(places) == 1:  # in the caller's thread, which Ctrl+C interrupts at once

        def at_once(inputs: shard.Inputs) -> Future[shard.ChangedImages]:
            done: Future[shard.ChangedImages] = Future()
            done.set_result(shard.change_images(plan, inputs, advance))
            return done

        _stream(plan, written, missing, at_once, number=1)
        return
    free: queue.SimpleQueue[shard.Plan] = queue.SimpleQueue()
    for place in places:
        free.put(place)
    settings, cancelled, lock = programs.kept_settings(), threading.Event(), threading.Lock()

    def advance_in_turn(images: float) -> None:
        if cancelled.is_set():
            raise _Cancelled
        with lock:
            advance(images)

    def on_a_free_device(inputs: shard.Inputs) -> shard.ChangedImages:
        place = free.get()
        try:
            with settings():
                return shard.change_images(place, inputs, advance_in_turn)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as threads:

        def submit(inputs: shard.Inputs) -> Future[shard.ChangedImages]:
            return threads.submit(on_a_free_device, inputs)

        try:
            _stream(plan, written, missing, submit, number=len(places))
        finally:
            cancelled.set()


def _stream(
    plan: shard.Plan,
    written: sharded_set.ShardedSet,
    missing: Sequence[int],
    submit: Callable[[shard.Inputs], Future[shard.ChangedImages]],
    *,
    number: int,
) -> None:
    """Reads, makes and writes shards, so many of them at work; at most two more are in memory."""
    at_work: dict[Future[shard.ChangedImages], tuple[int, shard.Inputs]] = {}
    with ThreadPoolExecutor(2) as threads:
        writing: Future[None] | None = None

        def write_one() -> None:
            nonlocal writing
            (made, *_), _ = wait(at_work, return_when=FIRST_COMPLETED)
            index, inputs = at_work.pop(made)
            changed = made.result()
            if writing is not None:
                writing.result()
            writing = threads.submit(_write, plan, written, index, inputs, changed)

        reading = threads.submit(shard.read, plan, missing[0])
        for index, following in itertools.zip_longest(missing, missing[1:]):
            rows = reading.result()
            if following is not None:
                reading = threads.submit(shard.read, plan, following)
            inputs = shard.inputs_of(plan, rows)
            if len(at_work) == number:
                write_one()
            at_work[submit(inputs)] = index, inputs
            while any(future.done() for future in at_work):  # what is made is kept, whatever comes
                write_one()
        while at_work:
            write_one()
        if writing is not None:
            writing.result()


def _write(
    plan: shard.Plan,
    written: sharded_set.ShardedSet,
    index: int,
    inputs: shard.Inputs,
    changed: shard.ChangedImages,
) -> None:
    sharded_set.write(
        written,
        index,
        shard.examples(plan, inputs, changed),
        inputs=inputs.digest,
        converged=int(changed.converged.sum()),
        within=data_card.within(changed.distance),
    )
