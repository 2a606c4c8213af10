"""Runs the code of a page, as its reader would, and compares what it prints."""

from pathlib import Path
from typing import Any

from code_blocks import BLOCK, missing, run_block


def run(page: Path) -> dict[str, Any]:
    """Runs the blocks of a page in one namespace, and compares what they print with the text below each."""
    names: dict[str, Any] = {}
    text = page.read_text()
    for found in BLOCK.finditer(text):
        code, expected = found.groups()
        if missing(code):
            continue
        line = text[: found.start()].count("\n") + 1
        printed = run_block(code, names, file=str(page), line=line)
        if expected is not None:
            assert printed == expected, f"{page.name}, line {line}"
    return names
