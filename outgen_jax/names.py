"""Names as they are shown: told apart where they are alike, and safe to print."""

import collections
import unicodedata
from collections.abc import Sequence


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with their place behind those that occur more than once.

    >>> told_apart(["zero", "crane", "two", "crane"])
    ('zero', 'crane (1)', 'two', 'crane (3)')
    """
    occurs = collections.Counter(names)
    return tuple(
        name if occurs[name] == 1 else f"{name} ({place})" for place, name in enumerate(names)
    )


def printable(name: str, *, limit: int | None = None) -> str:
    """The name with control characters and lone surrogates replaced, cut to `limit` columns.

    A wide character, as of Chinese, takes two columns.
    """
    shown = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    if limit is None:
        return shown
    widths = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown]
    if sum(widths) <= limit:
        return shown
    while sum(widths) > limit - 1:
        widths.pop()
    return shown[: len(widths)].rstrip() + "…"
