"""Markdown tables of results."""

import pytest

from outgen_jax import report


def test_a_line_a_row_under_the_headings():
    text = report.markdown_table(["arm", "gain, %"], (row for row in [["plain", "0"], ["µ", ""]]))
    assert text == "| arm | gain, % |\n| --- | --- |\n| plain | 0 |\n| µ |  |\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a"], r"row 1 has 1 cells, there are 2 headings: a"),
        (["a", "b", "c"], r"row 1 has 3 cells"),
        (["a", "b\nc"], r"neither line breaks nor '\|', got 'b\\nc'"),
        (["a|b", "c"], r"got 'a\|b'"),
    ],
)
def test_what_would_break_the_table_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        report.markdown_table(["x", "y"], [["fine", "too"], row])
