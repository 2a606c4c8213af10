"""Keeps a second run out of a directory that a first one is writing in.

The lock is the operating system's, on the directory itself: nothing is left behind, and it ends with the process,
however that ends. On network file systems it holds among the processes of one computer. Where there are no locks, as on
Windows, nothing is kept out.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Protocol

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock(Protocol):
    """Locks a directory, or changes the lock that is there."""

    def __call__(self, *, alone: bool) -> None:
        """Locks it for this process `alone`, or together with other processes that do so.

        Raises:
          BlockingIOError: a process of another run has locked it.
        """


@contextlib.contextmanager
def opened(directory: Path, *, caller: str) -> Iterator[Lock]:
    """A function that locks a directory, until the end of the block; error messages name `caller`."""
    descriptor = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY)

    def lock(*, alone: bool) -> None:
        if fcntl is None or descriptor is None:
            return
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{caller}: another run is writing in {str(directory)!r}; wait until it has ended, or choose another "
                "directory"
            ) from error
        except OSError:  # the file system has no locks
            return

    try:
        yield lock
    finally:
        if fcntl is not None and descriptor is not None:
            # A child process may share the descriptor: closing it alone would leave the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
