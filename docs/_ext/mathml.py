"""Equations as MathML, written at build time: no script and no fonts to fetch.

`pymdownx.arithmatex` marks equations in Markdown and in docstrings; this hook of MkDocs converts them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
# The name of a function before its argument, which stands in no parentheses.
_FUNCTION = re.compile(r"(<mi>[a-z]{2,}</mi>)(?=<m(?!o))")
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **kwargs: Any) -> str:
    """The page's HTML with every equation in MathML."""
    content = _INLINE.sub(lambda found: _mathml(found[1], "inline"), content)
    return _BLOCK.sub(
        lambda found: f'<div class="equation">{_mathml(found[1], "block")}</div>', content
    )


def _mathml(latex: str, display: str) -> str:
    written = convert(html.unescape(latex).strip(), display=display)
    return _FUNCTION.sub(r'\1<mspace width="0.17em" />', written)
