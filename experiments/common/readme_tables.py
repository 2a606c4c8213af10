"""Puts the tables of committed results into README.md and experiments/README.md.

Command   python experiments/readme_tables.py
Between `<!-- table: DIRECTORY -->` and `<!-- end -->` goes DIRECTORY/table.md, which the study wrote
beside its results.json.
"""

import re
from pathlib import Path

from outgen_jax import files, runs

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """`text` with every marked block replaced by its table."""
    return _BLOCK.sub(lambda m: m[1] + (ROOT / m[2] / "table.md").read_text() + m[3], text)


def main(argv: list[str]) -> None:
    del argv
    for page in (ROOT / "README.md", ROOT / "experiments" / "README.md"):
        files.write_atomic(page, filled(page.read_text()))


if __name__ == "__main__":
    runs.start(main)
