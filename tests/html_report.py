"""The page of a run as a test reads it."""

from html.parser import HTMLParser
from typing import Any

from outgen_jax import report

VOID = {"meta", "img", "input", "col", "br", "link"}


def make_page(run: report.SynthesisRun, **options: Any) -> str:
    """The page of a run, with a title and a command of no interest."""
    defaults = {"title": "A run", "summary": {}, "figures": (), "command": "python run.py"}
    return report.html_page(run, **(defaults | options))


class Page(HTMLParser):
    """Start tags with attributes, all text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def all(self, tag: str, cls: str | None = None) -> list[dict[str, Any]]:
        """Attributes of all tags of a name, and of a class if one is given."""
        found = (attributes for name, attributes in self.tags if name == tag)
        return [a for a in found if cls is None or cls in (a.get("class") or "").split()]
