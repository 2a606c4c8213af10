"""The versions of installed packages."""

import importlib.metadata


def installed_version(package: str) -> str | None:
    """The version of a package, by its name on PyPI; None if it is not installed.

    >>> installed_version("a-package-that-nobody-has") is None
    True
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
