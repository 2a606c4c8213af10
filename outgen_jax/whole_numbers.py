"""Options that count something must be integers: 2.5 steps would fail far from the call, or not at all."""

import operator
from typing import Any


def check_integers(*, caller: str, **options: Any) -> None:
    """Refuses options that are no integers; those that are None have been left out.

    Raises:
      ValueError: naming the option, in the name of `caller`.

    >>> check_integers(caller="f", steps=2, trials=None)
    """
    for name, value in options.items():
        try:
            value is None or operator.index(value)
        except TypeError:
            raise ValueError(
                f"{caller}: {name} must be an integer, got {value!r} of type {type(value).__name__}; round it with "
                f"int({name})"
            ) from None
