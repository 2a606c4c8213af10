"""Unpickling that calls nothing but what its reader lists.

A pickle may name any function and have it called with any arguments. The readers of published
files, `data.cifar` and `models.pytorch.torch_file`, list the few harmless names that such files need.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any


class RefusedError(Exception):
    """A sound file that asks for, or holds, what its reader does not accept."""


class Unpickler(pickle.Unpickler):
    """A `pickle.Unpickler` to which `allowed`, by module and name, is all there is to import.

    A pickle calls what it gets, and sets attributes on it: list immutable objects, or fresh ones.
    The encoding is that of Python 2's strings, 'bytes' to leave them as they are. `load` raises
    `RefusedError` for another name, and any exception for a damaged pickle.
    """

    def __init__(
        self,
        file: io.BytesIO,
        allowed: Mapping[tuple[str, str], Any],
        *,
        encoding: str = "ASCII",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle gets for a name; called by `load`."""
        if (module, name) not in self._allowed:
            raise RefusedError(
                f"asks for '{module}.{name}', which no such file needs and which may run code"
            )
        return self._allowed[module, name]
