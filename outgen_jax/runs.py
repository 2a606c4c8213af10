"""What scripts share: the directory of a run, what computed its results, flags, and exit codes.

A run writes into one directory. `run.json` there holds the flags that identify the run, so that the same
command resumes it and another command is refused. `results.json` holds the results, the flags, and the version of
the code that computed them. Directories and results also work where absl has parsed no flags.
"""

import functools
import json
import math
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

from outgen_jax import files
from outgen_jax.versions import installed_version

# These flags may differ between two calls of one run: where it writes, whether it replaces another run, and which of
# its jobs run now.
_FREE_FLAGS = frozenset({"out", "overwrite", "data_dir", "only"})
_INTERRUPTED = 130  # exit code, as shells have it
_COMMIT, _TREE_CLEAN = "_commit", "_tree_clean"  # names in the files of `kept`


class CodeVersion(NamedTuple):
    """The version of this code: its git commit, and whether the files are those of the commit.

    Both are None where the package does not run from a git repository of its own.
    """

    commit: str | None
    tree_clean: bool | None


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
            "script": program_name(sys.argv[0]),
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
    current = json.loads(to_json(_script_flags() if flags is None else flags))
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


@functools.cache  # a commit made while a script runs does not change what the script has loaded
def code_version() -> CodeVersion:
    """The version of the package's code when this process first asked.

    The tree is clean if no tracked file differs from the commit and no Python file is untracked. Files in folders
    named `results` do not count, since runs write them.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", here.name)  # else this is the repository of someone else
        commit = git("rev-parse", "HEAD").strip()
        everything_else = (":(top)", ":(top,exclude,glob)**/results/**")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *everything_else)
        added = git("ls-files", "--others", "--exclude-standard", "--", ":(top)*.py")
    except (OSError, subprocess.CalledProcessError):
        return CodeVersion(None, None)
    return CodeVersion(commit, not changed + added)


def to_json(value: Any) -> str:
    """`value` as indented JSON text that ends a line; NaN and infinities become null, NumPy's scalars numbers.

    >>> print(to_json({"mean": 0.5, "p": float("nan")}), end="")
    {
     "mean": 0.5,
     "p": null
    }
    """
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def program_name(script: str) -> str:
    """How messages and `results.json` name a script: its file, or the package whose `__main__` it is.

    >>> program_name("experiments/synthesize.py")
    'synthesize.py'
    """
    path = Path(script)
    if path.name != "__main__.py":
        return path.name
    parts = [path.parent.name]
    for folder in path.parent.parents:
        if not (folder / "__init__.py").exists():
            break
        parts.insert(0, folder.name)
    return ".".join(parts)


def apply_preset(values: Mapping[str, Any]) -> None:
    """Gives every absl flag named in `values` its value there, unless the command line has one."""
    from absl import flags

    for name, value in values.items():
        if not flags.FLAGS[name].present:
            setattr(flags.FLAGS, name, value)


def start(main: Callable[[list[str]], None]) -> None:
    """Runs the `main` of a script: an error in flags or input is one line on stderr and exit code 2."""
    from absl import app

    try:
        app.run(guarded(main), flags_parser=_parse_flags)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            leave(_INTERRUPTED)
        raise


def leave(code: int) -> None:
    """Ends the process at once: a program that still runs on a device must not outlive the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def guarded(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Turns errors of bad input into one line on stderr and exit code 2, and Ctrl-C into code 130."""

    def wrapped(argv: list[str]) -> None:
        from absl import flags, logging

        if not flags.FLAGS["verbosity"].present:  # app.run's INFO would drown the progress bars
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise ValueError(
                    f"unexpected arguments {argv[1:]}; options are --name=value, see --help"
                )
            main(argv)
        except (ValueError, OSError, FloatingPointError) as error:
            print(f"{program_name(argv[0])}: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; the same command resumes where it can", file=sys.stderr)
            sys.exit(_INTERRUPTED)

    return wrapped


def enable_compilation_cache() -> None:
    """Keeps compiled programs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/outgen_jax."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "outgen_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse_flags(argv: list[str]) -> list[str]:
    from absl import flags

    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"{program_name(argv[0])}: {error}; see --help", file=sys.stderr)
        sys.exit(2)


def _script_flags() -> dict[str, Any]:
    """Flags that the script defines, or adopts from a module (`flags.adopt_module_key_flags`)."""
    if "absl.flags" not in sys.modules:
        return {}
    from absl import flags

    main = sys.modules["__main__"]
    defined = flags.FLAGS.flags_by_module_id_dict().get(id(main), [])
    adopted = flags.FLAGS.key_flags_by_module_dict().get(sys.argv[0], [])
    own = {flag.name: flag.value for flag in (*defined, *adopted)}
    return {name: value for name, value in own.items() if name not in _FREE_FLAGS}


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


def _finite(value: Any) -> Any:
    """`value` with None in place of every float that is not finite, and Python's numbers in place of NumPy's."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
