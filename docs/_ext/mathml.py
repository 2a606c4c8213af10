"""Equations as MathML, written at build time: no script and no fonts to fetch.

`pymdownx.arithmatex` marks equations in Markdown and in docstrings; this hook of MkDocs converts them.
"""

import html
import logging
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.pages import Page

# Of MkDocs, which counts its warnings: with `--strict` they are errors.
_logger = logging.getLogger("mkdocs.hooks.mathml")
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
# What the conversion must not leave.
_LEFT = re.compile(r'class="arithmatex"|(?<!<code>)\.\. math::')
# The name of a function before its argument, which stands in no parentheses.
_FUNCTION = re.compile(r"(<mi>[a-z]{2,}</mi>)(?=<m(?!o))")
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, *, page: Page, **kwargs: Any) -> str:
    """The page's HTML with every equation in MathML."""
    content = _INLINE.sub(lambda found: _mathml(found[1], "inline"), content)
    content = _BLOCK.sub(
        lambda found: f'<div class="equation">{_mathml(found[1], "block")}</div>', content
    )
    left = _LEFT.search(content)
    if left:
        _logger.warning(f"{page.file.src_uri}: an equation was not converted; found {left[0]!r}")
    return content


def _mathml(latex: str, display: str) -> str:
    written = convert(html.unescape(latex).strip(), display=display)
    return _FUNCTION.sub(r'\1<mspace width="0.17em" />', written)
