"""The code of the README and of docs/ runs and prints what they say; the API reference leaves nothing out."""

import ast
import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

# Packages that only the reader of a page needs. A block that imports one runs where it is installed.
OPTIONAL = ("torch",)
PAGES = [ROOT / "docs" / "getting_started.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
_BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def run(page: Path) -> dict[str, Any]:
    """Runs the blocks of a page in one namespace, and compares what they print with the text below each."""
    names: dict[str, Any] = {}
    text = page.read_text()
    for found in _BLOCK.finditer(text):
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(page)


def test_the_readme_example_is_exact():
    names = run(ROOT / "README.md")
    result, classifier = names["result"], names["classifier"]
    assert result.converged.all()
    ship, dog = (classifier.class_names.index(name) for name in ("ship", "dog"))
    np.testing.assert_allclose(result.probs[:, ship], 0.9, atol=2e-5)
    np.testing.assert_allclose(result.probs[:, dog], 0.1, atol=2e-5)


def test_both_readmes_have_one_example():
    english, japanese = (
        _BLOCK.findall((ROOT / f).read_text()) for f in ("README.md", "README.ja.md")
    )
    assert len(english) == 1
    assert english == japanese


def test_what_a_page_prints_is_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n1\n```\n")
    assert run(page)["x"] == 1
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md, line 1"):
        run(page)


def exports() -> list[str]:
    """Dotted names of all that the package and its parts export, as `import x as x`."""
    found = []
    for path in (ROOT / "outgen_jax").glob("**/__init__.py"):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [f"{package}.{alias.name}" for alias in node.names if alias.asname]
    return found


REFERENCE = set(
    re.findall(
        r"^::: (\S+)$",
        "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md")),
        re.MULTILINE,
    )
)


@pytest.mark.parametrize("name", exports())
def test_an_export_is_in_the_reference(name):
    # Itself, the module that it stands in, or, of a module, anything in it.
    listed = ({name, name.rpartition(".")[0]} - {"outgen_jax"}) & REFERENCE
    assert listed or any(entry.startswith(f"{name}.") for entry in REFERENCE)


def test_every_page_of_the_reference_is_read():
    assert "outgen_jax.synthesize" in REFERENCE
    assert "outgen_jax.metrics.inception_score" in exports()
