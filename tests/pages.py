"""Runs the code of a page, as its reader would, and compares what it prints."""

from pathlib import Path
from typing import Any

from code_blocks import BLOCK, missing, run_block
from matplotlib import pyplot


def run(page: Path) -> dict[str, Any]:
    """Runs the blocks of a page in one namespace, and compares what they print with the text below each."""
    names: dict[str, Any] = {}
    text = page.read_text()
    try:
        _run_blocks(page, text, names)
    finally:
        # A page shows its figures; the next test must not find them open.
        pyplot.close("all")
    return names


def _run_blocks(page: Path, text: str, names: dict[str, Any]) -> None:
    for found in BLOCK.finditer(text):
        code, expected = found.groups()
        if missing(code):
            continue
        line = text[: found.start()].count("\n") + 1
        printed = run_block(code, names, file=str(page), line=line)
        if expected is not None:
            assert printed == expected, f"{page.name}, line {line} printed {printed!r}"
