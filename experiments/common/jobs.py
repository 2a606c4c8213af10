"""Jobs of a study: which of them to run now, and what the finished ones found."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def check_names(names: Sequence[str], *, flag: str) -> None:
    """Refuses names that are given twice, and a flag that names nothing.

    Raises:
      ValueError: in the name of the flag.
    """
    if not names:
        raise ValueError(f"--{flag} names nothing; give at least one, or leave the flag out")
    if len(set(names)) < len(names):
        raise ValueError(f"--{flag} names one twice: {', '.join(names)}")


def selected(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that the flag --only lists, in the order of `names`; all if it lists none.

    Raises:
      ValueError: --only names a job that this run does not have.

    >>> selected(["plain/0", "plain/1"], ["plain/1"])
    ['plain/1']
    """
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"--only: no job {unknown[0]!r}; this run's are {', '.join(names)}")
    return [name for name in names if not only or name in only]


def finished(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The results of the jobs that have written theirs, from JSON files."""
    return [json.loads(path.read_text()) for path in paths if path.exists()]
