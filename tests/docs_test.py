"""The code of docs/ runs and prints what the pages say; the API reference leaves nothing out."""

import ast
import base64
import json
import os
import re
import subprocess
import sys

import code_blocks
import pytest
from conftest import ROOT
from package_test import MAPPED
from pages import run

GUIDE = [ROOT / "docs" / "getting_started.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
PAGES = [page for page in GUIDE if "```python" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(page)


def test_the_japanese_page_has_the_code_of_the_english_one():
    english, japanese = (
        code_blocks.BLOCK.findall((ROOT / "docs" / page).read_text())
        for page in ("getting_started.md", "getting_started.ja.md")
    )
    assert english == japanese


def test_what_a_page_prints_is_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n1\n```\n")
    assert run(page)["x"] == 1
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md, line 1"):
        run(page)


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))


@pytest.mark.slow  # `make docs` runs them too
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_a_notebook_runs(page, tmp_path):
    given = run_in_process(page, tmp_path)
    assert len(given) == page.read_text().count("```python\n")
    assert any(block["figures"] for block in given) or page.stem in ("index", "data_set")


def run_in_process(page, folder) -> list[dict]:
    """What the blocks of a page give, in a process of its own, as the site's hook runs them."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "_ext" / "code_blocks.py"), str(page)],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_outputs_and_figures_of_a_notebook_are_collected(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    blocks = [
        "import matplotlib.pyplot as plt\nx = 2",
        "print(x < 3)\nplt.plot([x])",
        "import absent_package\nprint('never')",
    ]
    page.write_text("\n".join(f"```python\n{block}\n```\n" for block in blocks))
    monkeypatch.setattr(code_blocks, "OPTIONAL", ("absent_package",))
    given = code_blocks.run_page(page)
    assert [g.printed for g in given] == ["", "True\n", ""]
    assert [g.missing for g in given] == [[], [], ["absent_package"]]
    assert [len(g.figures) for g in given] == [0, 1, 0]
    assert base64.b64decode(given[1].figures[0]).startswith(b"\x89PNG")


def test_the_site_shows_them_below_their_blocks():
    pytest.importorskip("mkdocs")
    import notebooks

    page = "```python\na\n```\n\ntext\n\n```python\nb\n```\n"
    given = [
        {"printed": "1 < 2\n", "figures": ["AAAA"], "missing": []},
        {"printed": "", "figures": [], "missing": ["torch"]},
    ]
    shown = notebooks.with_outputs(page, given)
    assert re.sub("\n+", "\n", shown).splitlines() == [
        *("```python", "a", "```"),
        '<pre class="output">1 &lt; 2</pre>',
        '<img alt="figure" src="data:image/png;base64,AAAA">',
        "text",
        *("```python", "b", "```"),
        "*Not run here: torch is not installed.*",
    ]


def unknown(names: list[str]) -> list[str]:
    """Those of the names, as "metrics.prdc", that `import outgen_jax` alone does not lead to."""
    code = """
import json, operator, sys
import outgen_jax

def leads_nowhere(name):
    try:
        operator.attrgetter(name)(outgen_jax)
    except AttributeError:
        return True
    return False

print(json.dumps([name for name in json.load(sys.stdin) if leads_nowhere(name)]))
"""
    # A process of its own: here, other tests have imported modules that the package does not.
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=json.dumps(names),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names_that_messages_and_pages_mention_exist():
    """Every `og.a.b` of the package, in a message, a docstring or a comment, and of the documentation."""
    paths = [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]
    paths += (ROOT / "outgen_jax").rglob("*.py")
    mentioned: dict[str, list[str]] = {}
    for path in paths:
        for name in re.findall(r"\bog\.((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)", path.read_text()):
            mentioned.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert "synthesize" in mentioned
    assert "docs/guide/targets.md" in mentioned["targets.parse"]
    *found, last = unknown([*mentioned, "no_such.name"])
    assert {name: mentioned[name] for name in found} == {}
    assert last == "no_such.name"


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
