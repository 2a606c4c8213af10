"""Runs the Python blocks of a page of Markdown one after another, in one namespace.

python docs/_ext/code_blocks.py PAGE     prints what each block gives, as JSON, for the hook `notebooks`
"""

import base64
import contextlib
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

# Packages that only the reader of a page needs. A block that imports one runs where it is installed.
OPTIONAL = ("torch",)
# A block, and the text below it that it prints, where the page has that.
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


class Given(NamedTuple):
    """What a block gives."""

    printed: str
    figures: list[str]  # PNG, as base64
    missing: list[str]  # packages for want of which it did not run


def missing(code: str) -> list[str]:
    """Packages of `OPTIONAL` that a block imports and that are not installed."""
    absent = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    return [name for name in absent if re.search(rf"^(import|from) {name}\b", code, re.MULTILINE)]


def run_block(code: str, names: dict[str, Any], *, file: str, line: int) -> str:
    """Runs a block, which begins below `line` of `file`; returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * line + code, file, "exec"), names)
    return printed.getvalue()


def run_page(page: Path) -> list[Given]:
    """Runs all blocks of a page. A block that needs an absent package is left out."""
    names: dict[str, Any] = {"__name__": "__main__"}
    text = page.read_text(encoding="utf-8")
    given = []
    for found in BLOCK.finditer(text):
        absent = missing(found[1])
        line = text[: found.start()].count("\n") + 1
        printed = "" if absent else run_block(found[1], names, file=str(page), line=line)
        given.append(Given(printed, _figures(), absent))
    return given


def _figures() -> list[str]:
    """The figures of pyplot that are open, which are then closed."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    pictures = []
    for number in pyplot.get_fignums():
        buffer = io.BytesIO()
        pyplot.figure(number).savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        pictures.append(base64.b64encode(buffer.getvalue()).decode())
    pyplot.close("all")
    return pictures


if __name__ == "__main__":
    print(json.dumps([given._asdict() for given in run_page(Path(sys.argv[1]))]))
