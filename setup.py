"""The description on an index of packages, from the README; setup.cfg has everything else."""

import re
from pathlib import Path

from setuptools import setup


def description(readme: str) -> str:
    """The README without pictures and with links as plain text: their files are not on the index."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", readme)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


if __name__ == "__main__":
    setup(long_description=description(Path(__file__).with_name("README.md").read_text("utf-8")))
