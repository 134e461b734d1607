"""Tables of results: aligned text for a person, CSV for a spreadsheet, JSON for a program.

Numbers keep six decimals. What is absent (the temperature of a native, the score of a sequence of unknown residues) is
an empty cell in CSV, null in JSON and a dash in text.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reed_core.errors import InputError
from reed_core.files import write_text

Cell = str | int | float | None
SUFFIXES = (".csv", ".json")
_DECIMALS = 6


@dataclass(frozen=True)
class Table:
    """Rows of named columns.

    Attributes:
        columns: Their names.
        rows: A cell per column.
        about: What the table is; written in JSON beside the rows.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    about: Mapping[str, str]


def check_table_path(path: Path, option: str) -> None:
    """Refuses a file whose suffix does not say which format is wanted.

    Raises:
        InputError: If it ends neither in .csv nor in .json.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {path}: a table is written as .csv or .json; give it one of these endings")


def write_table(path: Path, table: Table, option: str = "--out") -> None:
    """Writes a table as CSV or JSON, by the suffix, whole or not at all.

    Raises:
        InputError: If the suffix is another, or the file cannot be written.
    """
    check_table_path(path, option)
    write_text(path, json_text(table) if path.suffix.lower() == ".json" else csv_text(table))


def csv_text(table: Table) -> str:
    """The table as CSV with a line of column names."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_written(cell, "") for cell in row] for row in table.rows)
    return stream.getvalue()


def json_text(table: Table) -> str:
    """The table as a JSON object: what it is about, and `rows`, an object each."""
    rows = [dict(zip(table.columns, map(_plain, row), strict=True)) for row in table.rows]
    return json.dumps({**table.about, "rows": rows}, indent=1) + "\n"


def aligned_text(table: Table, hidden: Sequence[str] = ()) -> str:
    """The table for a person: columns aligned, those named in `hidden` and those that are empty left out."""
    shown = [
        index
        for index, name in enumerate(table.columns)
        if name not in hidden and any(_plain(row[index]) not in (None, "") for row in table.rows)
    ]
    cells = [[table.columns[index] for index in shown]]
    cells += [[_written(row[index], "-") for index in shown] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [all(isinstance(row[index], str) for row in table.rows) for index in shown]
    lines = (
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(line, widths, words, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join([*lines, ""])


def _plain(cell: Cell) -> Cell:
    if isinstance(cell, float):
        return round(cell, _DECIMALS) if math.isfinite(cell) else None
    return cell


def _written(cell: Cell, absent: str) -> str:
    cell = _plain(cell)
    if cell is None or cell == "":
        return absent
    return f"{cell:.{_DECIMALS}f}" if isinstance(cell, float) else str(cell)
