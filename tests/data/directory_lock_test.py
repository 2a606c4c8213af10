"""Who may lock a directory at the same time."""

import errno
import os
import subprocess
import sys

import pytest

from outgen_jax.data import directory_lock

fcntl = pytest.importorskip("fcntl")


def opened(directory):
    return directory_lock.opened(directory, caller="test")


def assert_refused(directory, *, alone):
    with opened(directory) as lock, pytest.raises(BlockingIOError, match=r"^test: another run"):
        lock(alone=alone)


def test_one_alone_or_several_together(tmp_path):
    with opened(tmp_path) as first, opened(tmp_path) as second:
        first(alone=True)
        assert_refused(tmp_path, alone=True)
        assert_refused(tmp_path, alone=False)
        first(alone=False)
        second(alone=False)
        assert_refused(tmp_path, alone=True)
    with opened(tmp_path) as lock:
        lock(alone=True)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path):
    code = (
        "import pathlib, sys; from outgen_jax.data import directory_lock\n"
        "with directory_lock.opened(pathlib.Path(sys.argv[1]), caller='') as lock:\n"
        "    lock(alone=True); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        assert_refused(tmp_path, alone=True)
        process.kill()
    with opened(tmp_path) as lock:
        lock(alone=True)


def no_locks(descriptor, kind):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("reason", ["system", "file system", "directory"])
def test_where_there_are_no_locks_nothing_is_refused(tmp_path, monkeypatch, reason):
    if reason == "system":
        monkeypatch.setattr(directory_lock, "fcntl", None)
    if reason == "file system":
        monkeypatch.setattr(fcntl, "flock", no_locks)
    directory = tmp_path / "not there yet" if reason == "directory" else tmp_path
    with opened(directory) as first, opened(directory) as second:
        first(alone=True)
        second(alone=True)
