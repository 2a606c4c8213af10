"""The versions of this code and of installed packages."""

import functools
import importlib.metadata
import subprocess
from pathlib import Path
from typing import NamedTuple


def installed_version(package: str) -> str | None:
    """The version of a package, by its name on PyPI; None if it is not installed.

    >>> installed_version("a-package-that-nobody-has") is None
    True
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class CodeVersion(NamedTuple):
    """The version of this code: its git commit, and whether the files are those of the commit.

    Both are None where the package does not run from a git repository of its own.
    """

    commit: str | None
    tree_clean: bool | None


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
