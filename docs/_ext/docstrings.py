"""Docstrings as the site's Markdown: equations, examples, and the comments beside the fields of a tuple."""

import inspect
import re
import textwrap
from typing import Any

import griffe

_EQUATION = re.compile(r"^( *)\.\. math:: *(.*(?:\n(?!\s*$).*)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
_COMMENT = re.compile(r"  # (.*)$")


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is loaded, and lists the fields of a tuple by the comments beside them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is None:
            return
        obj.docstring.value = to_markdown(obj.docstring.value)
        fields = _fields(obj) if isinstance(obj, griffe.Class) else ""
        if fields and "Attributes:" not in obj.docstring.value:
            obj.docstring.value += f"\n\nAttributes:\n{fields}"


def _fields(cls: griffe.Class) -> str:
    """Lines `name: comment` of the fields that have a comment and no docstring."""
    plain = [field for field in cls.attributes.values() if field.docstring is None]
    comments = {field.name: _COMMENT.search(field.source) for field in plain}
    return "\n".join(f"    {name}: {found[1]}" for name, found in comments.items() if found)


def to_markdown(docstring: str) -> str:
    """`.. math::` becomes an equation, a paragraph that begins with `>>>` a block of code."""

    def equation(found: re.Match[str]) -> str:
        return textwrap.indent(f"$$\n{inspect.cleandoc(found[2])}\n$$", found[1])

    def example(found: re.Match[str]) -> str:
        return textwrap.indent(f"```pycon\n{textwrap.dedent(found[0])}\n```", found[1])

    return _EXAMPLE.sub(example, _EQUATION.sub(equation, docstring))
