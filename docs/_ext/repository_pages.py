"""Pages of the repository outside of docs/, and the files that pages link to, as parts of the site.

The pages of docs/ and the READMEs of the studies link to each other by their paths in the repository, so that the links
work where the repository is read. This hook of MkDocs adds whatever such links lead to, and turns them into links
between pages of the site. Links to code and folders, which are no pages, become plain text.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Pages of the navigation that no page of docs/ needs to link to.
START = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.ja.md",
    "experiments/README.md",
    "benchmarks/README.md",
)
# Pages of the repository whose place another page of the site takes.
INSTEAD = {"README.md": "docs/index.md"}
_SHOWN = {".md", ".png", ".gif", ".json"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds what the pages link to, and what those pages link to in turn."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    waiting = [*pages, *START]
    known = set(pages)
    while waiting:
        path = waiting.pop()
        if path not in known and not path.startswith("docs/"):
            files.append(_file(path, config))
        known.add(path)
        if path.endswith(".md"):
            waiting += [target for target in _targets(path) if target not in known]
    return files


def on_page_markdown(markdown: str, *, page: Page, **kwargs: Any) -> str:
    """The page with its links between places of the repository as links between pages of the site."""
    source = page.file.src_uri
    here = _in_repository(page.file)

    def link(found: re.Match[str]) -> str:
        image, text, path, anchor = found.groups(default="")
        target = _resolved(here, path)
        if not (ROOT / target).exists():
            return found[0]  # MkDocs says what is wrong with it
        if not _is_shown(target):
            return text
        uri = target.removeprefix("docs/")
        return (
            f"{image}[{text}]({posixpath.relpath(uri, posixpath.dirname(source) or '.')}{anchor})"
        )

    return _LINK.sub(link, markdown)


def _targets(path: str) -> Iterator[str]:
    for found in _LINK.finditer((ROOT / path).read_text(encoding="utf-8")):
        target = _resolved(path, found[3])
        if (ROOT / target).is_file() and _is_shown(target):
            yield target


def _is_shown(path: str) -> bool:
    return Path(path).suffix in _SHOWN


def _resolved(here: str, link: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    return INSTEAD.get(path, path)


def _in_repository(file: File) -> str:
    """The path of a page's source, from the root of the repository."""
    return Path(str(file.abs_src_path)).relative_to(ROOT).as_posix()


def _file(path: str, config: MkDocsConfig) -> File:
    """A file of the repository at the same place of the site."""
    in_nav = path in str(config.nav)
    return File.generated(
        config,
        path,
        abs_src_path=str(ROOT / path),
        inclusion=InclusionLevel.INCLUDED if in_nav else InclusionLevel.NOT_IN_NAV,
    )
