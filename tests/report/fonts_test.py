"""Names in any script are drawn, with a font that has them or with squares and a word on it."""

import itertools
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from outgen_jax import report
from outgen_jax.names import printable
from outgen_jax.report import fonts

NAMES = ("猫", "犬", "кот", "🐱", "חתול", "\u200b", "\ue000")


@pytest.fixture(autouse=True)
def own_fonts(monkeypatch):
    """The fonts that come with matplotlib alone, whatever is installed here."""
    bundled = [f for f in font_manager.fontManager.ttflist if "mpl-data" in f.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [])
    monkeypatch.setattr(fonts, "_TIMES_SAID", itertools.count())
    caches = (fonts._family_of, fonts._add_new_fonts)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def cat_font(path: Path) -> Path:
    """A font of one character: a filled square for 猫."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cats Only", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def drawn(text: str) -> np.ndarray:
    """Pixels of a figure with the text in it, any warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = report.image_grid_figure({text: np.zeros((1, 4, 4, 3))})
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_what_no_font_has_becomes_squares_and_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        for name in NAMES:
            drawn(name)
    assert fonts.drawable("猫 cat кот").text == "□ cat кот"
    (record,) = caplog.records
    assert "has the characters '猫'" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()


def test_a_font_that_has_the_character_is_used(tmp_path, caplog):
    squares = drawn("猫")
    font_manager.fontManager.addfont(cat_font(tmp_path / "cats.ttf"))  # as the message says
    found = fonts.drawable("猫 cat")
    assert found.text == "猫 cat"
    assert found.families[-1] == "Cats Only"
    assert fonts.drawable("cat").families == found.families[:-1]
    caplog.clear()
    assert not np.array_equal(drawn("猫"), squares)
    assert caplog.records == []


def test_a_font_installed_since_matplotlib_listed_them_is_found(tmp_path, monkeypatch):
    path = cat_font(tmp_path / "cats.ttf")
    (tmp_path / "torn.ttf").write_bytes(path.read_bytes()[:100])
    installed = [str(path), str(tmp_path / "torn.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: installed)
    assert fonts.drawable("猫").text == "猫"


def test_a_font_that_is_gone_is_passed_over(tmp_path):
    path = cat_font(tmp_path / "cats.ttf")
    font_manager.fontManager.addfont(path)
    path.unlink()
    assert fonts.drawable("猫").text == "□"


def test_all_texts_of_all_figures_take_any_script(tmp_path):
    p = np.full((1, len(NAMES)), 1 / len(NAMES))
    image = np.zeros((1, 8, 8, 3), np.uint8)
    run = report.SynthesisRun(
        source=image,
        generated=image,
        parts=(report.Part(NAMES, p, p, p),),
        ids=("写真/猫.png",),
        steps=np.array([1]),
        distance=np.zeros(1),
        converged=np.array([True]),
    )
    figures = (
        report.synthesis_figure(run, rows=[0]),
        report.image_grid_figure({"犬": image}, row_labels=["猫"], captions={"犬": ["猫"]}),
        report.history_figure({"猫": [1.0, 0.1]}, ylabel="距離"),
    )
    for suffix in ("png", "pdf", "svg"):
        for figure in figures:
            report.save_figure(figure, tmp_path / f"figure.{suffix}", dpi=50)
    assert "猫" in report.html_page(run, title="猫", summary={}, figures=(), command="猫")


def test_wide_characters_count_twice():
    assert printable("猫" * 5, limit=10) == "猫" * 5
    assert printable("猫" * 6, limit=10) == "猫" * 4 + "…"
    assert printable("a" * 11, limit=10) == "a" * 9 + "…"
