"""What scripts share: their name and flags, how they start and end, and a cache of compiled programs."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

_INTERRUPTED = 130  # exit code, as shells have it


def start(main: Callable[[list[str]], None]) -> None:
    """Runs the `main` of a script: an error in flags or input is one line on stderr and exit code 2."""
    from absl import app

    try:
        app.run(guarded(main), flags_parser=_parse_flags)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            leave(_INTERRUPTED)
        raise


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


def leave(code: int) -> None:
    """Ends the process at once: a program that still runs on a device must not outlive the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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


def own_flags() -> dict[str, Any]:
    """Flags that the script defines, or adopts from a module (`flags.adopt_module_key_flags`); none without absl."""
    if "absl.flags" not in sys.modules:
        return {}
    from absl import flags

    main = sys.modules["__main__"]
    defined = flags.FLAGS.flags_by_module_id_dict().get(id(main), [])
    adopted = flags.FLAGS.key_flags_by_module_dict().get(sys.argv[0], [])
    return {flag.name: flag.value for flag in (*defined, *adopted)}


def apply_preset(values: Mapping[str, Any]) -> None:
    """Gives every absl flag named in `values` its value there, unless the command line has one."""
    from absl import flags

    for name, value in values.items():
        if not flags.FLAGS[name].present:
            setattr(flags.FLAGS, name, value)


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
