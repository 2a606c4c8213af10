"""CITATION.cff is of this version and names the papers' authors as the papers do."""

import pytest
import yaml
from conftest import ROOT

import outgen_jax as og


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_version_is_the_packages(citation):
    assert citation["version"] == og.__version__


def test_every_paper_is_cited_with_its_authors(citation):
    families = [
        [author["family-names"] for author in paper["authors"]] for paper in citation["references"]
    ]
    assert families == [
        ["平野", "岩村", "黄瀬"],
        ["鈴木", "鈴木"],
        ["Kataoka", "Matsubara", "Uehara"],
        ["Suzuki", "Tanida", "Kimata", "Shouno"],
    ]


def test_no_name_is_in_letters_that_its_paper_does_not_print(citation):
    """Papers A and B print their authors in Japanese characters alone."""
    for paper in citation["references"][:2]:
        for author in paper["authors"]:
            assert not any(c.isascii() and c.isalpha() for c in "".join(author.values()))
