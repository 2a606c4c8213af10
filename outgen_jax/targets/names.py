"""When two spellings are one name.

An accented letter is one code point or a letter and an accent (Unicode's forms NFC and NFD). Editors and file systems
differ in which of them they write, and both look the same.
"""

import unicodedata


def composed(name: str) -> str:
    r"""The name in the form NFC.

    >>> composed("cafe\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """The name in the form NFC, without regard to case."""
    return composed(composed(name).casefold())
