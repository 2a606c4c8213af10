"""Tables and pages are what the committed results make of them, and quote no other numbers."""

import hashlib
import json
import re
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT

from experiments.common import tables
from outgen_jax import report
from outgen_jax.models import pretrained

STUDIES = ("replaced_training", "augmented_gan", "draw_gan", "intermediate_constraint")
# Numbers in the text of a study that its tables do not have, and whose they are.
ELSEWHERE = {
    "replaced_training": {"92.476": "paper A", "92.560": "paper A"},
    "augmented_gan": {},
    "draw_gan": {"1.38": "results.json: attention, seed 1, the last discriminator_loss"},
    "intermediate_constraint": {
        "0.9": "a target",
        "0.1": "a target",
    },
}


@pytest.mark.parametrize("directory", tables.MODULES)
def test_a_table_is_what_its_results_make(directory):
    assert tables.made(directory) == (ROOT / directory / "table.md").read_text()


@pytest.mark.parametrize("name", pretrained.SHIPPED)
def test_a_model_card_is_what_the_weights_card_makes(name):
    path = ROOT / tables.WEIGHTS / f"{name}.md"
    made = tables.model_card_of(path.with_suffix(".json"))
    assert path.read_text() == made, "run python -m experiments.common.tables"
    card = json.loads(path.with_suffix(".json").read_text())
    found = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    assert f"`{found}`" in path.read_text()
    assert f"{card['test_accuracy']:.2%}" in path.read_text()


def test_all_committed_results_have_a_table_or_a_reason():
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in ("experiments", "benchmarks")
        for path in (ROOT / folder).glob("**/results*/**/results.json")
    }
    assert found == tables.MODULES.keys() | tables.WITHOUT_TABLE.keys()
    assert not tables.MODULES.keys() & tables.WITHOUT_TABLE.keys()


@pytest.mark.parametrize("page", list(tables.pages()), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_shows_the_tables_as_they_are(page):
    assert tables.filled(page.read_text()) == page.read_text()


def test_blocks_are_filled_by_table_or_by_part(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "table.md").write_text("| x |\n| 1 |\n\nSecond.\n\n| z |\n")
    page = (
        "Text.\n<!-- table: a/b -->\nold\n<!-- end -->\n<!-- table: a/b part 2 -->\n<!-- end -->\n"
    )
    once = tables.filled(page, tmp_path)
    assert once == (
        "Text.\n<!-- table: a/b -->\n| x |\n| 1 |\n\nSecond.\n\n| z |\n<!-- end -->\n"
        "<!-- table: a/b part 2 -->\nSecond.\n<!-- end -->\n"
    )
    assert tables.filled(once, tmp_path) == once
    with pytest.raises(FileNotFoundError, match=r"no file a/c/table\.md"):
        tables.filled(page.replace("a/b", "a/c"), tmp_path)
    with pytest.raises(ValueError, match=r"a/b/table\.md has 3 parts; got part 4"):
        tables.filled(page.replace("part 2", "part 4"), tmp_path)


def test_a_block_may_show_some_columns(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "table.md").write_text(
        "| x | y, mm | |\n| --- | ---: | --- |\n| 1 | 2 | 3 |\n"
    )
    page = "<!-- table: a part 1 columns: y, mm | x -->\nold\n<!-- end -->\n"
    assert tables.filled(page, tmp_path) == (
        "<!-- table: a part 1 columns: y, mm | x -->\n"
        "| y, mm | x |\n| ---: | --- |\n| 2 | 1 |\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match=r"a/table\.md, part 1 has the columns .*; got 'z'"):
        tables.filled(page.replace("| x", "| z"), tmp_path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one study and one page, whose table is out of date."""
    study = types.ModuleType("a_study")
    study.table = lambda results: f"| {results['x']} |\n"
    monkeypatch.setitem(sys.modules, "a_study", study)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "MODULES", {"experiments/a": "a_study"})
    folder = tmp_path / "experiments" / "a"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text('{"x": 2}')
    (folder / "table.md").write_text("| 1 |\n")
    page = "<!-- table: experiments/a -->\n| 1 |\n<!-- end -->\n"
    (tmp_path / "README.md").write_text(page)
    return tmp_path


def test_one_command_remakes_tables_and_pages(project):
    with pytest.raises(ValueError, match=r"experiments/a/table\.md; run without --check"):
        tables.remake(check=True)
    assert (project / "experiments" / "a" / "table.md").read_text() == "| 1 |\n"
    assert tables.remake(only=["experiments/b"]) == []
    assert tables.remake() == ["experiments/a/table.md", "README.md"]
    assert "| 2 |" in (project / "README.md").read_text()
    assert tables.remake(check=True) == []


def test_links_of_the_pages_lead_somewhere():
    pages = list(ROOT.glob("*.md"))
    for folder in ("docs", "experiments", "benchmarks"):
        pages += [p for p in (ROOT / folder).rglob("*.md") if p.name != "table.md"]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken


def prose(page: Path) -> str:
    """The page without its tables and commands."""
    text = re.sub(r"<!-- table:.*?<!-- end -->|```.*?```", "", page.read_text(), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


@pytest.mark.parametrize("study", STUDIES)
def test_the_text_of_a_study_quotes_its_tables(study):
    folder = ROOT / "experiments" / study
    shown = "\n".join(path.read_text() for path in folder.glob("results/*/table.md"))
    known = set(re.findall(r"\d+\.\d+", shown)) | ELSEWHERE[study].keys()
    quoted = set(re.findall(r"\d+\.\d+", prose(folder / "README.md")))
    assert quoted
    assert quoted <= known
    assert ELSEWHERE[study].keys() <= quoted, "a number that the text no longer quotes"


def test_the_loss_that_no_table_shows():
    results = json.loads((ROOT / "experiments/draw_gan/results/main/results.json").read_text())
    losses = [
        run["history"][-1]["discriminator_loss"]
        for name in ("attention", "attention_n4")
        for run in results["presets"][name]
    ]
    assert sorted(round(loss, 2) for loss in losses)[-1] == 1.38
    assert sorted(losses)[-2] < 0.2


def test_a_model_card_tells_held_out_images_from_test_images():
    card = json.loads((ROOT / tables.WEIGHTS / "mnist_lenet.json").read_text())
    assert "10000 of its test images" in report.model_card("lenet", card)
    assert "10000 held out of its images" in report.model_card("lenet", card | {"held_out": 0.1})


def test_a_model_card_names_the_attack_of_a_robust_network():
    card = json.loads((ROOT / tables.WEIGHTS / "mnist_lenet.json").read_text())
    recipe = card["recipe"] | {"robust_radius": 2.0, "robust_steps": None}
    attack = {"accuracy": 0.75, "radius": 2.0, "steps": 20}
    page = report.model_card("lenet", card | {"recipe": recipe, "robustness": attack})
    assert "75.00%, 20 steps of projected gradient in an L2 ball of radius 2" in page
    assert "| robust radius | 2.0 |" in page
    assert "robust steps" not in page
    assert "attack" not in report.model_card("lenet", card)
