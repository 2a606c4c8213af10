"""Docstrings as the site's Markdown: equations, examples, comments beside fields, and the values of defaults."""

import inspect
import re
import textwrap
from typing import Any

import griffe

_EQUATION = re.compile(r"^( *)\.\. math:: *(.*(?:\n(?!\s*$).*)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
_COMMENT = re.compile(r"  # (.*)$")
_NONE = "&nbsp;"  # an empty text would not be read as one


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is loaded. Lists the fields of a tuple by the comments beside them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if isinstance(obj, griffe.Function):
            _show_defaults(obj)
        if obj.docstring is None:
            return
        obj.docstring.value = to_markdown(obj.docstring.value)
        fields = _fields(obj) if isinstance(obj, griffe.Class) else ""
        if fields and "Attributes:" not in obj.docstring.value:
            obj.docstring.value += f"\n\nAttributes:\n{fields}"


def _show_defaults(function: griffe.Function) -> None:
    """Puts the value of a constant of the module where it is the default of a parameter."""
    for parameter in function.parameters:
        constant = function.module.attributes.get(str(parameter.default))
        if isinstance(parameter.default, griffe.Expr) and constant is not None:
            parameter.default = constant.value


def _fields(cls: griffe.Class) -> str:
    """Lines `name: comment` of the fields without docstrings, if one of them has a comment."""
    fields = [f for f in cls.attributes.values() if f.docstring is None and f.annotation]
    comments = {field.name: _COMMENT.search(field.source) for field in fields}
    if not any(comments.values()):
        return ""
    return "\n".join(
        f"    {name}: {found[1] if found else _NONE}" for name, found in comments.items()
    )


def to_markdown(docstring: str) -> str:
    """`.. math::` becomes an equation, a paragraph that begins with `>>>` a block of code.

    A section `Example:` becomes `Examples:`, as griffe calls it.
    """

    def equation(found: re.Match[str]) -> str:
        return textwrap.indent(f"$$\n{inspect.cleandoc(found[2])}\n$$", found[1])

    def example(found: re.Match[str]) -> str:
        return textwrap.indent(f"```pycon\n{textwrap.dedent(found[0])}\n```", found[1])

    docstring = re.sub(r"^( *)Example:$", r"\1Examples:", docstring, flags=re.MULTILINE)
    return _EXAMPLE.sub(example, _EQUATION.sub(equation, docstring))
