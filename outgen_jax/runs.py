"""The directory of a run: what identifies it, arrays that are computed once, and results.

`run.json` there holds the flags that identify the run, so that the same command resumes it and another command is
refused. `results.json` holds the results, the flags, and the version of the code that computed them. Both also work
where absl has parsed no flags.
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from outgen_jax import files, scripts
from outgen_jax.json_text import to_json
from outgen_jax.versions import CodeVersion, code_version, installed_version

# These flags may differ between two calls of one run: where it writes, whether it replaces another run, and which of
# its jobs run now.
_FREE_FLAGS = frozenset({"out", "overwrite", "data_dir", "only"})
_COMMIT, _TREE_CLEAN = "_commit", "_tree_clean"  # names in the files of `kept`


class Run(NamedTuple):
    """One run: its directory, the flags that identify it, and the code that started it."""

    directory: Path
    flags: dict[str, Any]
    code: CodeVersion

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Writes `results.json`: flags, code version, package versions and device, then `results`.

        `computed_by` names, for every file of `kept` in the directory, the code version that computed it. NaN and
        infinities are written as null, so that every JSON parser reads the file.

        Returns:
          The path of the file.
        """
        path = self.directory / "results.json"
        files.write_atomic(path, to_json({**self._about(), **results}))
        return path

    def _about(self) -> dict[str, Any]:
        packages = ("outgen_jax", "jax", "flax", "optax", "numpy")
        return {
            "script": scripts.program_name(sys.argv[0]),
            "flags": self.flags,
            **self.code._asdict(),
            "computed_by": _kept_in(self.directory),
            "versions": {name: installed_version(name) for name in packages},
            "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }


def open_run(
    directory: str | Path, *, overwrite: bool = False, flags: Mapping[str, Any] | None = None
) -> Run:
    """Opens the directory of a run, to start the run or to resume it.

    A directory that holds nothing but `run.json` is that of a run that failed at its start: it is taken over.

    >>> import tempfile
    >>> run = open_run(tempfile.mkdtemp(), flags={"steps": 3})
    >>> run.write_results({"accuracy": 0.5}).name
    'results.json'

    Args:
      directory: where the run writes; it is created.
      overwrite: whether the run that is there is deleted first, also one with these flags.
      flags: what identifies the run, as JSON values; by default the absl flags of the script, none without absl.

    Raises:
      FileExistsError: the directory holds another run's files and `overwrite` is False, or files that are not a run's:
        those are never deleted.
    """
    directory = Path(directory).expanduser()
    current = json.loads(to_json(_identifying_flags() if flags is None else flags))
    record = directory / "run.json"
    present = list(directory.iterdir()) if directory.exists() else []
    others = any(path != record and not files.is_temporary(path) for path in present)
    is_run = record.exists() or (directory / "results.json").exists()
    if others and not is_run:
        raise FileExistsError(
            f"open_run: {directory} holds files that are not a run's; choose another directory (--out)"
        )
    if overwrite and is_run:
        _empty(directory, last=record)
    elif others:
        found = json.loads(record.read_text()) if record.exists() else None
        if found != current:
            raise FileExistsError(
                f"open_run: {directory} holds {_difference(found, current)}; choose another directory "
                "(--out), or replace what is there (--overwrite)"
            )
    directory.mkdir(parents=True, exist_ok=True)
    files.write_atomic(record, to_json(current))
    return Run(directory, current, code_version())


def kept(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the named arrays that `compute` returns, and keeps them in the .npz file `path`.

    If the file exists, its arrays are returned and `compute` is not called. The file also records the version of the
    code that computed the arrays; `Run.write_results` copies it into `results.json`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "job.npz"
    >>> kept(path, lambda: {"seconds": np.ones(1)})["seconds"]
    array([1.])
    >>> kept(path, lambda: {"seconds": np.zeros(1)})["seconds"]  # not computed again
    array([1.])
    """
    if not path.exists():
        commit, clean = code_version()
        about: dict[str, Any] = {
            _COMMIT: commit or "",
            _TREE_CLEAN: -1 if clean is None else int(clean),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save_arrays(path, {**compute(), **about})
    arrays = files.load_arrays(path)
    return {name: array for name, array in arrays.items() if name not in (_COMMIT, _TREE_CLEAN)}


def _identifying_flags() -> dict[str, Any]:
    return {name: v for name, v in scripts.own_flags().items() if name not in _FREE_FLAGS}


def _difference(found: dict[str, Any] | None, current: dict[str, Any]) -> str:
    if found is None:
        return "the results of a run whose flags are not known"
    changed = sorted(k for k in {*found, *current} if found.get(k) != current.get(k))
    return "a run with other flags (" + ", ".join(f"{k}={found.get(k)!r}" for k in changed) + ")"


def _empty(directory: Path, *, last: Path) -> None:
    """Deletes all files, `last` at the end: a call that is interrupted is known as a run, and emptied again."""
    for path in sorted(directory.iterdir(), key=lambda path: path == last):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _kept_in(directory: Path) -> dict[str, dict[str, Any]]:
    """By path within the directory: the code version of every file of `kept`."""
    found = {}
    for path in sorted(directory.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as saved:  # reads only the arrays asked for
            if _COMMIT in saved:
                clean = int(saved[_TREE_CLEAN])
                version = CodeVersion(str(saved[_COMMIT]) or None, None if clean < 0 else clean > 0)
                found[path.relative_to(directory).as_posix()] = version._asdict()
    return found
