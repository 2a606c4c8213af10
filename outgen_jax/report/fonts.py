"""Fonts for names in any script: what the font of the figures lacks is taken from another one.

matplotlib draws a box and warns where a font lacks a character. Classes and files are named as
their owners like, so the fonts installed are searched for one that has it.
"""

import functools
import itertools
import logging
from typing import NamedTuple

import matplotlib
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry
from matplotlib.text import Text

_LOG = logging.getLogger(__name__)
# Families whose Latin letters go well with the others, where several have a character.
_FIRST = (
    *("Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans", "IPAexGothic", "IPAGothic"),
    *("Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic", "Noto Sans", "Arial Unicode MS"),
)
_TIMES_SAID = itertools.count()
_PLACEHOLDER = "\N{WHITE SQUARE}"


class Drawable(NamedTuple):
    """Text that can be drawn as it is."""

    text: str  # a square for each character that no font has
    families: list[str]  # fonts to draw it with, the first that has a character


def drawable(text: str) -> Drawable:
    """The text with the fonts that have its characters.

    Characters that no installed font has become squares, and a log message says once what to
    install.

    >>> drawable("cat").text
    'cat'
    """
    families = list(matplotlib.rcParams["font.family"])
    # Fonts that are added later are seen by their number.
    number = len(font_manager.fontManager.ttflist)
    shown, lacking = [], []
    for character in text:
        family = _family_of(character, number)
        if family is None:
            lacking.append(character)
        elif family and family not in families:
            families.append(family)
        shown.append(_PLACEHOLDER if family is None else character)
    if lacking:
        _say_once("".join(dict.fromkeys(lacking)))
    return Drawable("".join(shown), families)


def set_text(label: Text, text: str) -> None:
    """Makes a text of a figure say `text`, literally, with fonts that have its characters."""
    found = drawable(text)
    label.set_text(found.text)
    label.set_fontfamily(found.families)
    label.set_parse_math(False)


@functools.lru_cache(maxsize=4096)
def _family_of(character: str, number_of_fonts: int) -> str | None:
    """The family to draw a character with, '' for the figures' own, None where there is none."""
    del number_of_fonts
    own = font_manager.findfont(font_manager.FontProperties())
    if character.isspace() or _has(own, character):
        return ""
    _add_new_fonts()
    fonts = sorted(font_manager.fontManager.ttflist, key=_rank)
    for font in fonts:
        # This one has a drawing of a box for every character.
        if not font.name.startswith("Last Resort") and _has(font.fname, character):
            return font.name
    return None


def _rank(font: FontEntry) -> tuple[int, bool, bool, str]:
    """Order of preference: known families, then upright ones of usual weight."""
    place = _FIRST.index(font.name) if font.name in _FIRST else len(_FIRST)
    usual = font.weight in (400, "normal", "regular", "book", "medium", 500)
    return place, font.style != "normal", not usual, font.name


def _has(path: str, character: str) -> bool:
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):  # no longer there, or a bitmap font, which cannot be drawn
        return False
    return bool(font.scalable and font.get_char_index(ord(character)))


@functools.cache
def _add_new_fonts() -> None:
    """Fonts installed since matplotlib listed them; it keeps its list between runs."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except Exception as error:  # damaged, or of a kind that matplotlib does not read
            _LOG.debug("left out the font %s: %s", path, error)


def _say_once(characters: str) -> None:
    if next(_TIMES_SAID):
        return
    _LOG.warning(
        "No installed font has the characters %r: they become squares in figures. Install one that "
        "has them, such as Noto Sans CJK for Chinese, Japanese and Korean (apt install "
        "fonts-noto-cjk), or name its file: matplotlib.font_manager.fontManager.addfont(path)",
        characters,
    )
