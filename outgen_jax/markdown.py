"""Tables that GitHub and most editors show as such."""

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a heading a column; every row has as many cells.

    Raises:
      ValueError: a row has more or fewer cells, or a cell has a line break or a column's bar.

    >>> from outgen_jax import report
    >>> print(report.markdown_table(("network", "accuracy"), [("LeNet", "99 %")]), end="")
    | network | accuracy |
    | --- | --- |
    | LeNet | 99 % |
    """
    lines = [_line(headings), "|" + " --- |" * len(headings)]
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(
                f"markdown_table: row {len(lines) - 2} has {len(row)} cells, there are "
                f"{len(headings)} headings: {', '.join(row)}"
            )
        lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    if broken := [cell for cell in cells if "\n" in cell or "|" in cell]:
        raise ValueError(
            f"markdown_table: a cell must have neither line breaks nor '|', got {broken[0]!r}"
        )
    return "| " + " | ".join(cells) + " |"
