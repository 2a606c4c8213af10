"""The code of docs/ runs and prints what the pages say; the API reference leaves nothing out."""

import ast
import re

import pytest
from conftest import ROOT
from package_test import MAPPED
from pages import run

PAGES = [ROOT / "docs" / "getting_started.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(page)


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


@pytest.mark.parametrize("name", sorted({name for name, _ in MAPPED}))
def test_a_function_on_the_map_of_equations_is_linked_from_a_paper(name):
    papers = "\n".join(page.read_text() for page in (ROOT / "docs" / "papers").glob("*.md"))
    assert f"][outgen_jax.{name}]" in papers


def test_every_page_of_the_reference_is_read():
    assert "outgen_jax.synthesize" in REFERENCE
    assert "outgen_jax.metrics.inception_score" in exports()
