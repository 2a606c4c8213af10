"""The shards of a data set: made on all devices at the same time, while others are read and written.

Each device works on a shard of its own, so their number does not change what is in a file.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from outgen_jax.data import fields, sharded_set
from outgen_jax.generation import block, data_card
from outgen_jax.synthesis import programs


class _Cancelled(Exception):  # noqa: N818 (no error: another thread has failed, or was interrupted)
    """The shard is no longer wanted."""


def make(
    job: block.Job,
    written: sharded_set.ShardedSet,
    missing: Sequence[int],
    advance: Callable[[float], object],
) -> None:
    """Makes the missing shards, one on each device at a time, reading rows ahead and writing behind in threads.

    Args:
      job: what is to be made.
      written: where to.
      missing: indices of shards.
      advance: called with the number of images that are done.
    """
    if not missing:
        return
    fields.import_writers()
    places = block.on_each_device(job)
    if len(places) == 1:  # in the caller's thread, which Ctrl+C interrupts at once

        def at_once(inputs: block.Inputs) -> Future[block.Outputs]:
            done: Future[block.Outputs] = Future()
            done.set_result(block.make_outputs(job, inputs, advance))
            return done

        _stream(job, written, missing, at_once, number=1)
        return
    free: queue.SimpleQueue[block.Job] = queue.SimpleQueue()
    for place in places:
        free.put(place)
    settings, cancelled, lock = programs.kept_settings(), threading.Event(), threading.Lock()

    def advance_in_turn(images: float) -> None:
        if cancelled.is_set():
            raise _Cancelled
        with lock:
            advance(images)

    def on_a_free_device(inputs: block.Inputs) -> block.Outputs:
        place = free.get()
        try:
            with settings():
                return block.make_outputs(place, inputs, advance_in_turn)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as threads:

        def submit(inputs: block.Inputs) -> Future[block.Outputs]:
            return threads.submit(on_a_free_device, inputs)

        try:
            _stream(job, written, missing, submit, number=len(places))
        finally:
            cancelled.set()


def _stream(
    job: block.Job,
    written: sharded_set.ShardedSet,
    missing: Sequence[int],
    submit: Callable[[block.Inputs], Future[block.Outputs]],
    *,
    number: int,
) -> None:
    """Reads, makes and writes shards, so many of them at work; at most two more are in memory."""
    at_work: dict[Future[block.Outputs], tuple[int, block.Inputs]] = {}
    with ThreadPoolExecutor(2) as threads:
        writing: Future[None] | None = None

        def write_one() -> None:
            nonlocal writing
            (made, *_), _ = wait(at_work, return_when=FIRST_COMPLETED)
            index, inputs = at_work.pop(made)
            outputs = made.result()
            if writing is not None:
                writing.result()
            writing = threads.submit(_write, job, written, index, inputs, outputs)

        reading = threads.submit(block.read, job, missing[0])
        for index, following in itertools.zip_longest(missing, missing[1:]):
            rows = reading.result()
            if following is not None:
                reading = threads.submit(block.read, job, following)
            inputs = block.inputs_of(job, rows)
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
    job: block.Job,
    written: sharded_set.ShardedSet,
    index: int,
    inputs: block.Inputs,
    outputs: block.Outputs,
) -> None:
    sharded_set.write(
        written,
        index,
        block.examples(job, inputs, outputs),
        inputs=inputs.digest,
        converged=int(outputs.converged.sum()),
        within=data_card.within(outputs.distance),
    )
