"""Side-by-side timing: each side in a process of its own, the sides taking turns.

XLA's and PyTorch's threads spin for a while after their work; in one process they would take the
cores from whichever side works next, and share one heap whose peak belongs to neither. In processes
of their own the sides that wait sleep on a pipe. All inherit the same environment and cores. A side
that fails keeps the reason and takes no further turns.
"""

import ctypes
import importlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

# What one timing of an `Operations` function takes at least, by repetition.
_MIN_SECONDS = 0.1


class Worker:
    """An object in a process of its own, whose methods are called from here.

    Attributes:
      failure: why the process cannot go on; None while it can.
    """

    def __init__(self, factory: str, *args: Any, **options: Any) -> None:
        """Makes the object, by the function "module.name", and waits until it is made."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, args, options))
        self._process.start()
        theirs.close()
        self.failure: str | None = None
        self._exchange()

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns; None if it fails or the process has failed before."""
        if self.failure is not None:
            return None
        return self._exchange((method, args))

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _exchange(self, request: tuple[str, tuple[Any, ...]] | None = None) -> Any:
        """Sends the request, if any, and waits for the answer; the process may have ended before either."""
        try:
            if request is not None:
                self._pipe.send(request)
            value, self.failure = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            value, self.failure = None, f"failed: exit code {self._process.exitcode}"
        return value


def _serve(pipe: Connection, factory: str, args: Sequence[Any], options: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent closes the pipe instead
    module, name = factory.rsplit(".", 1)
    subject = _attempt(
        pipe, lambda: getattr(importlib.import_module(module), name)(*args, **options)
    )
    while subject is not None:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        _attempt(pipe, methodcaller(method, *arguments), subject)


def _attempt(pipe: Connection, function: Callable[..., Any], *args: Any) -> Any:
    """Calls the function and sends (what it returns if that can be sent, why it failed)."""
    try:
        value = function(*args)
    except ModuleNotFoundError as error:
        pipe.send((None, f"not installed: {error.name}"))
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        pipe.send((None, f"failed: {type(error).__name__}: {reason}"))
    else:
        pipe.send((value if _is_plain(value) else None, None))
        return value
    return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, dict, np.ndarray))


class Updates:
    """An iterative method: `run(n)` does n updates from the start and waits for their end.

    The time of one update is (t(long) − t(short)) / (long − short), which leaves out what happens
    once a call: transfers, first and last looks at the images, compilation (warmed up before).
    """

    def __init__(
        self,
        run: Callable[[int], Any],
        *,
        device: str,
        images: Callable[[int], np.ndarray] | None = None,
        memory: Callable[[], dict[str, int]] = dict,
    ) -> None:
        """`images(n)`: the best images after n updates [B, H, W, C], where they can be compared."""
        self._run, self._images, self._memory, self._device = run, images, memory, device
        self._resident = _resident_bytes("VmRSS")

    def device(self) -> str:
        return self._device

    def prepare(self, long: int, short: int) -> float:
        """Compiles and warms up -> seconds that the first long call took longer than the second."""
        first, second, _ = (self._seconds(n) for n in (long, long, short))
        _forget_peak()  # what the compiler needed is no part of it
        return max(0.0, first - second)

    def images(self, updates: int) -> np.ndarray | bool:
        return False if self._images is None else self._images(updates)

    def seconds(self, long: int, short: int) -> float:
        return (self._seconds(long) - self._seconds(short)) / (long - short)

    def memory(self) -> dict[str, int]:
        """Bytes: growth of the resident set at its peak, and what the side says of itself."""
        growth = _resident_bytes("VmHWM") - self._resident
        return {"resident_growth": growth, **self._memory()}

    def _seconds(self, updates: int) -> float:
        start = time.perf_counter()
        self._run(updates)
        return time.perf_counter() - start


class Operations:
    """Named functions without arguments, `wait` for what they return and `to_array` of it."""

    def __init__(
        self,
        functions: Mapping[str, Callable[[], Any]],
        *,
        wait: Callable[[Any], Any],
        to_array: Callable[[Any], np.ndarray],
    ) -> None:
        self._functions, self._wait, self._to_array = functions, wait, to_array

    def output(self, name: str) -> np.ndarray:
        return self._to_array(self._functions[name]())

    def seconds(self, name: str) -> float:
        """Of one call, after warming up, as the mean of as many as fill `_MIN_SECONDS`."""
        function, calls = self._functions[name], 0
        self._wait(function())
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _MIN_SECONDS:
            self._wait(function())  # each, or two calls would run at once
            calls += 1
        return elapsed / calls


def alternate(
    sides: Mapping[str, Worker], rounds: int, method: str, *args: Any
) -> dict[str, list[float]]:
    """Calls `method` of every side in turn, `rounds` times -> the values of those that answered."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    turns = [name for _ in range(rounds) for name in sides]
    for name in tqdm.tqdm(turns, desc=method, mininterval=1, leave=False):
        value = sides[name].call(method, *args)
        if value is not None:
            values[name].append(value)
    return values


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows with the same columns -> a Markdown table, aligned, with the first column to the left."""
    rows = list(rows)
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, rule)
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
        for line in lines
    )


def _resident_bytes(field: str) -> int:
    """Of this process now ("VmRSS") or at its peak ("VmHWM"); 0 where /proc does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(found.get(field, "0 kB").split()[0]) * 1024


def _forget_peak() -> None:
    """Gives free memory back to the system and starts the peak anew, where Linux and glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
