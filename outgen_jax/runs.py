"""What all scripts share: a run's directory, `results.json`, exit codes, compilation cache."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging

from outgen_jax import files

# May change between two calls of the same run: where it goes, whether it may replace another, and which of its jobs
# are done now.
_FREE_FLAGS = frozenset({"out", "overwrite", "data_dir", "only"})


class Run(NamedTuple):
    """One run of a script: where it writes, and the flags that make it this run and no other."""

    directory: Path
    flags: dict[str, Any]

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Writes `results.json`: flags, commit, versions and device, then `results`."""
        path = self.directory / "results.json"
        files.write_atomic(path, json.dumps({**self._about(), **results}, indent=1) + "\n")
        return path

    def _about(self) -> dict[str, Any]:
        packages = ("outgen_jax", "jax", "flax", "optax", "numpy")
        return {
            "script": Path(sys.argv[0]).name,
            "flags": self.flags,
            "commit": _commit(),
            "versions": {name: _version(name) for name in packages},
            "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }


def open_run(directory: str | Path, *, overwrite: bool = False) -> Run:
    """Opens the directory of a run, to start it or to go on with it, and records its flags there.

    Raises:
      FileExistsError: the directory holds another run's files and `overwrite` is not set.
    """
    directory = Path(directory)
    current = _script_flags()
    record = directory / "run.json"
    if directory.exists() and any(directory.iterdir()) and not overwrite:
        found = json.loads(record.read_text()) if record.exists() else None
        if found != current:
            raise FileExistsError(
                f"--out={directory} holds {_difference(found, current)}; choose another --out, or "
                "add --overwrite"
            )
    elif overwrite and record.exists():
        _empty(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_atomic(record, json.dumps(current, indent=1) + "\n")
    return Run(directory, current)


def kept(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The named arrays that `compute` returns; it runs once, and `path` keeps them for the next start."""
    if path.exists():
        return files.load_arrays(path)
    arrays = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.save_arrays(path, arrays)
    return arrays


def apply_preset(values: Mapping[str, Any]) -> None:
    """Gives every flag named in `values` its value there, unless the command line has one."""
    for name, value in values.items():
        if not flags.FLAGS[name].present:
            setattr(flags.FLAGS, name, value)


def start(main: Callable[[list[str]], None]) -> None:
    """Runs a script's `main`: what is wrong with its flags or its input is one line and exit code 2."""
    app.run(guarded(main), flags_parser=_parse_flags)


def guarded(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Turns errors of bad input into one line on stderr and exit code 2, Ctrl-C into code 130."""

    def wrapped(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:  # app.run's INFO would drown the progress bars
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise ValueError(
                    f"unexpected arguments {argv[1:]}; options are --name=value, see --help"
                )
            main(argv)
        except (ValueError, OSError, FloatingPointError) as error:
            print(f"{Path(argv[0]).name}: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; the same command resumes where it can", file=sys.stderr)
            sys.exit(130)

    return wrapped


def enable_compilation_cache() -> None:
    """Keeps compiled programs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/outgen_jax."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "outgen_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"{Path(argv[0]).name}: {error}; see --help", file=sys.stderr)
        sys.exit(2)


def _script_flags() -> dict[str, Any]:
    own = flags.FLAGS.flags_by_module_dict().get(sys.argv[0], [])
    return {f.name: f.value for f in own if f.name not in _FREE_FLAGS}


def _difference(found: dict[str, Any] | None, current: dict[str, Any]) -> str:
    if found is None:
        return "files that no run of this script wrote"
    changed = sorted(k for k in {*found, *current} if found.get(k) != current.get(k))
    return "a run with other flags (" + ", ".join(f"{k}={found.get(k)!r}" for k in changed) + ")"


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
