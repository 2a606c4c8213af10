"""Runs the pages of docs/notebooks/ while the site is built, and shows what their code prints and draws.

This hook of MkDocs runs each page in a process and an empty folder of its own. A page whose code fails ends the build.
"""

import atexit
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

FOLDER = "notebooks/"
RUNNER = Path(__file__).with_name("code_blocks.py")
_BLOCK = re.compile(r"```python\n.*?```\n", re.DOTALL)
_ENVIRONMENT = {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
# The pages of one build share the programs that XLA compiles.
_PROGRAMS = tempfile.mkdtemp(prefix="outgen_jax_")
atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": _PROGRAMS,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def on_page_markdown(markdown: str, *, page: Page, **kwargs: Any) -> str:
    """The page with the output of every block below it."""
    if not page.file.src_uri.startswith(FOLDER):
        return markdown
    return with_outputs(markdown, run(Path(str(page.file.abs_src_path))))


def run(path: Path) -> list[dict[str, Any]]:
    """What the blocks of a page give, as `code_blocks.Given` has it.

    Raises:
        PluginError: a block failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(RUNNER), str(path)],
            cwd=folder,
            env=_CACHE | os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise PluginError(f"{path.name}: its code failed\n{done.stderr}")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def with_outputs(markdown: str, outputs: list[dict[str, Any]]) -> str:
    """The page's text with what its blocks give, one for each block."""
    left: Iterator[dict[str, Any]] = iter(outputs)

    def block(found: re.Match[str]) -> str:
        return found[0] + _shown(next(left))

    return _BLOCK.sub(block, markdown)


def _shown(given: dict[str, Any]) -> str:
    parts = []
    if given["missing"]:
        parts.append(f"*Not run here: {', '.join(given['missing'])} is not installed.*")
    if given["printed"]:
        parts.append(f'<pre class="output">{html.escape(given["printed"].rstrip())}</pre>')
    parts += [f'<img alt="figure" src="data:image/png;base64,{png}">' for png in given["figures"]]
    return "".join(f"\n{part}\n" for part in parts)
