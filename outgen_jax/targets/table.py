"""Reading a table of targets: CSV in UTF-8, a header row, then one record per image.

Rows are numbered as a spreadsheet shows them: the header is row 1, blank rows count.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outgen_jax.targets.names import composed
from outgen_jax.targets.text import listed

# What spreadsheets write instead of commas, and what a message calls it.
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class Record(NamedTuple):
    """One row of the table."""

    number: int  # as a spreadsheet shows it
    cells: list[str]


def read_table(path: str | os.PathLike[str], *, caller: str) -> tuple[list[str], list[Record]]:
    """The header and the records below it, blank rows left out, cells stripped."""
    path = Path(path).expanduser()
    try:
        # The signature is what spreadsheets put before UTF-8.
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = [
                Record(number, [cell.strip() for cell in row])
                for number, row in enumerate(csv.reader(file, strict=True), start=1)
            ]
    except FileNotFoundError:
        raise FileNotFoundError(f"{caller}: no file {str(path)!r}. Check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{caller}: {str(path)!r} must be CSV in UTF-8 ({error}). "
            "Save the table as 'CSV UTF-8 (comma delimited)'"
        ) from None
    table = [record for record in table if any(record.cells)]
    if not table:
        raise ValueError(f"{caller}: {str(path)!r} is empty. Write a header and one row per image")
    header, records = table[0].cells, table[1:]
    _check_separator(header, caller=caller)
    for record in records:
        if len(record.cells) != len(header):
            raise ValueError(
                f"{caller}: row {record.number} must have {len(header)} cells like the header; it "
                f"has {len(record.cells)}. Quote a cell that holds commas"
            )
    return header, records


def _check_separator(header: Sequence[str], *, caller: str) -> None:
    """Refuses a header that is one cell because others than commas separate its names."""
    found = [word for mark, word in _OTHER_SEPARATORS.items() if mark in header[0]]
    if len(header) == 1 and found:
        raise ValueError(
            f"{caller}: cells must be separated by commas; those of the header {header[0]!r} are separated by "
            f"{found[0]}. Save the table as 'CSV UTF-8 (comma delimited)', with points in its decimals"
        )


def in_order_of(ids: Sequence[str], records: Sequence[Record], *, caller: str) -> list[Record]:
    """The records by their first cell, an id, in the order of `ids`; that cell is left out."""
    found: dict[str, Record] = {}
    wanted, spelled = Counter(ids), {composed(name): name for name in ids}
    for number, (written, *cells) in records:
        name = written if written in wanted else spelled.get(composed(written), written)
        if wanted[name] > 1:
            raise ValueError(
                f"{caller}: {name!r}, in row {number}, is the id of several images. Leave the "
                "column 'id' out and give one row per image, in their order"
            )
        if name in found:
            raise ValueError(
                f"{caller}: ids must not repeat; {name!r} is in rows {found[name].number} and {number}. Remove one"
            )
        found[name] = Record(number, cells)
    unknown = [f"{name!r} (row {found[name].number})" for name in found if name not in wanted]
    if unknown:
        raise ValueError(
            f"{caller}: ids must be those of the images; no image has {listed(unknown)}. "
            "Remove the rows, or name the images by image_ids"
        )
    missing = [repr(name) for name in dict.fromkeys(ids) if name not in found]
    if missing:
        raise ValueError(
            f"{caller}: every image must have a row; there is none for {listed(missing)}. Add them"
        )
    return [found[name] for name in ids]


def numbers_in(records: Sequence[Record], header: Sequence[str], *, caller: str) -> np.ndarray:
    """The cells as float64 [n, columns]; an empty one is 0."""
    cells = [[cell or "0" for cell in record.cells] for record in records]
    try:
        return np.array(cells, dtype=np.float64).reshape(len(records), len(header))
    except ValueError:
        for record in records:
            for name, cell in zip(header, record.cells, strict=True):
                if not _is_number(cell or "0"):
                    raise ValueError(
                        f"{caller}: expected a number in row {record.number}, column {name!r}; it "
                        f"holds {cell!r}. Head the column 'target' if it holds text"
                    ) from None
        raise


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
