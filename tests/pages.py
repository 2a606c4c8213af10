"""Runs the code of a page, as its reader would: block by block, in one namespace."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

# Packages that only the reader of a page needs. A block that imports one runs where it is installed.
OPTIONAL = ("torch",)
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def run(page: Path) -> dict[str, Any]:
    """Runs the blocks of a page in one namespace, and compares what they print with the text below each."""
    names: dict[str, Any] = {}
    text = page.read_text()
    for found in BLOCK.finditer(text):
        code, expected = found.groups()
        if not _is_runnable(code):
            continue
        line = text[: found.start()].count("\n") + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(page), "exec"), names)
        if expected is not None:
            assert printed.getvalue() == expected, f"{page.name}, line {line}"
    return names


def _is_runnable(code: str) -> bool:
    missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    return not any(re.search(rf"^(import|from) {name}\b", code, re.MULTILINE) for name in missing)
