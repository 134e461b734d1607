"""Properties that lie beside the molecules of a source, read record by record in the order of its jobs.

format                    where                                                 taken when no name is asked for
npz                       arrays of one number for each molecule                those of QM9
SDF                       data fields, `> <NAME>`; a table FILE.csv beside it   those of QM9 in the table
folder of dsgdb9nsd xyz   line 2 of each file                                   all
archive of QM9            the same (`readers.qm9`)                              all
EDM keeps the units of gdb9. gdb9's table writes u0, u298, h298, g298 and cv for U0, U, H, G and Cv.
"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.properties import QM9_UNITS, Table
from reed_molecule.readers.source import Source, text_of

_GDB = "gdb "
_ROTATIONS = 3  # rotational constants, before the properties in a line of gdb9
_IN_TABLE = {"u0": "U0", "u298": "U", "h298": "H", "g298": "G", "cv": "Cv"}
_SDF = (".sdf", ".sd", ".mol", ".sdf.gz", ".sd.gz", ".mol.gz")


def with_properties(source: Source, wanted: Sequence[str] = ()) -> Source:
    """A source with the properties that its file holds.

    Args:
        source: Records; those it was opened with stay, in their order.
        wanted: Names of properties; none takes those of QM9.

    Raises:
        InputError: If the file cannot be read.
    """
    path = source.path
    if source.properties is not None:
        table = source.properties
    elif path.suffix.lower() == ".npz":
        table = _of_arrays(path, len(source.jobs))
    elif path.name.lower().endswith(_SDF):
        table = _of_fields(source, wanted)
    elif path.is_dir():
        table = _of_headers(source)
    else:
        table = Table.empty(len(source.jobs))
    kept = [name for name in table.names if name in (wanted or QM9_UNITS)]
    return replace(source, properties=Table({name: table.units[name] for name in kept}, table.columns(kept)))


def missing(sources: Sequence[Source], wanted: Sequence[str]) -> None:
    """Checks that every property asked for is somewhere.

    Raises:
        InputError: If one is nowhere, with the names that are.
    """
    for name in wanted:
        if not any(source.properties and name in source.properties.names for source in sources):
            there = list(dict.fromkeys(name for source in sources for name in _names(source)))
            raise InputError(
                f"--property {name}: no record has it; the files hold {', '.join(there[:20]) or 'no properties'}"
            )


def gdb_values(line: str) -> list[float]:
    """The properties of a molecule in the second line of a dsgdb9nsd file; NaN where the line is another one."""
    words = line.replace("*^", "e").split()[2 + _ROTATIONS :] if line.startswith(_GDB) else []
    return [number(word) for word in [*words, *[""] * len(QM9_UNITS)][: len(QM9_UNITS)]]


def number(text: str) -> float:
    """A number, or NaN where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def _of_arrays(path: Path, count: int) -> Table:
    """The arrays of one number for each molecule of an npz file."""
    columns: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as data:
        as_edm = "num_atoms" in data.files
        total = len(data["num_atoms"]) if as_edm else len(data["offsets"]) - 1
        for name in data.files:
            column = data[name]
            if column.shape == (total,) and column.dtype.kind == "f":
                columns[name] = np.where(np.isfinite(column), column, np.nan).astype(np.float64)[:count]
    return _table(columns, count, tuple(QM9_UNITS) if as_edm else ())


def _of_fields(source: Source, wanted: Sequence[str]) -> Table:
    """Data fields of an SDF that are asked for, and the table of gdb9 beside it."""
    count = len(source.jobs)
    columns: dict[str, np.ndarray] = {}
    beside = source.path.with_name(f"{source.path.name.removesuffix('.gz')}.csv")
    if beside.is_file():
        rows = list(csv.DictReader(text_of(beside).splitlines()))
        by_name = {row.get("mol_id") or "": row for row in rows}
        for column in rows[0] if rows else {}:
            name = _IN_TABLE.get(column, column)
            if name in QM9_UNITS:
                found = [number(by_name.get(job[0], {}).get(column) or "") for job in source.jobs]
                columns[name] = np.array(found, dtype=np.float64)
    told = tuple(columns)
    fields = [_fields(job[1]) for job in source.jobs] if wanted else []
    for name in wanted:
        values = np.array([number(one.get(name, "")) for one in fields], dtype=np.float64)
        if name not in told and np.isfinite(values).any():
            columns[name] = values
    return _table(columns, count, told)


def _of_headers(source: Source) -> Table:
    """The second line of every dsgdb9nsd file of a folder."""
    rows = []
    for name, _ in source.jobs:
        file = source.path / f"{name}.xyz"
        lines = text_of(file).splitlines() if name.startswith("dsgdb9nsd_") and file.is_file() else []
        rows.append(gdb_values(lines[1] if len(lines) > 1 else ""))
    values = np.array(rows, dtype=np.float64).reshape(-1, len(QM9_UNITS))
    if not np.isfinite(values).any():
        return Table.empty(len(source.jobs))
    return Table(QM9_UNITS, values)


def _table(columns: dict[str, np.ndarray], count: int, of_qm9: Sequence[str]) -> Table:
    """A table of columns; those that are known to be of QM9 have its units."""
    units = {name: QM9_UNITS.get(name, "") if name in of_qm9 else "" for name in columns}
    return Table(units, np.stack(list(columns.values()), 1) if columns else np.zeros((count, 0)))


def _fields(block: object) -> dict[str, str]:
    """The data fields of an SDF record: the first line after each `> <NAME>`."""
    lines = str(block).splitlines()
    found: dict[str, str] = {}
    for here, after in pairwise(lines):
        name = here[here.find("<") + 1 : here.rfind(">")] if here.startswith(">") and "<" in here else ""
        if name:
            found.setdefault(name, after.strip())
    return found


def _names(source: Source) -> list[str]:
    """What a source holds: of an SDF the data fields of its first records."""
    if source.path.suffix.lower() == ".npz":
        return list(_of_arrays(source.path, len(source.jobs)).names)
    if source.path.name.lower().endswith(_SDF):
        return [name for job in source.jobs[:20] for name in _fields(job[1])]
    return list(source.properties.names) if source.properties else []
