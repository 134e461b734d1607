"""A second reading of structure files, slow and simple, that shares nothing with the package's: the tests' witness.

It reads regular files only: an mmCIF file is one loop of atoms, whose values may be quoted.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

Residues = dict[str, tuple[str, dict[str, list[float]]]]
CODES = (
    *("ALA", "A", "ARG", "R", "ASN", "N", "ASP", "D", "CYS", "C", "GLN", "Q", "GLU", "E", "GLY", "G", "HIS", "H"),
    *("ILE", "I", "LEU", "L", "LYS", "K", "MET", "M", "PHE", "F", "PRO", "P", "SER", "S", "THR", "T", "TRP", "W"),
    *("TYR", "Y", "VAL", "V", "MSE", "M"),
)
PREFIX = "_atom_site."
CIF_WORD = re.compile(r"'((?:[^']|'(?=\S))*)'(?=\s|$)|\"((?:[^\"]|\"(?=\S))*)\"(?=\s|$)|([^\s#'\"]\S*)|(#.*)")
LETTERS = dict(zip(CODES[::2], CODES[1::2], strict=True))


class Row(NamedTuple):
    """One atom as written; `id` is chain, number and insertion code run together."""

    model: str
    id: str
    residue: str
    atom: str
    altloc: str
    occupancy: str
    xyz: tuple[str, str, str]


def lines_of(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def residue_of(chain: str, number: str, insertion: str) -> str:
    """`A52`, `_52` for a blank chain, `1:52` after a chain id that ends in a digit or a minus."""
    chain = chain.strip() or "_"
    between = ":" if chain[-1] in "0123456789-" else ""
    with suppress(ValueError):
        number = str(int(number))
    return f"{chain}{between}{number}{insertion.strip()}"


def pdb_rows(text: str) -> Iterator[Row]:
    model, fresh = 0, True
    for line in lines_of(text):
        if line.startswith(("MODEL", "ENDMDL")):
            fresh = True
        elif line.startswith(("ATOM", "HETATM")):
            model, fresh = model + fresh, False
            line = line.ljust(80)
            yield Row(
                str(model),
                residue_of(line[21], line[22:26], line[26]),
                line[17:21].strip(),
                line[12:16].strip(),
                line[16].strip(),
                line[54:60],
                (line[30:38], line[38:46], line[46:54]),
            )


def cif_tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Names and values, and whether each was quoted; a quote ends at a quote before a blank."""
    block: list[str] | None = None
    for line in lines_of(text):
        if line.startswith(";"):
            if block is None:
                block = [line[1:]]
                continue
            yield "\n".join(block), True
            block, line = None, line[1:]
        elif block is not None:
            block.append(line)
            continue
        for match in CIF_WORD.finditer(line):
            if match.lastindex in (1, 2, 3):
                yield match[match.lastindex], match.lastindex < 3


def cif_columns(text: str) -> list[str]:
    return [token.removeprefix(PREFIX) for token, quoted in cif_tokens(text) if token.startswith(PREFIX) and not quoted]


def cif_rows(text: str) -> Iterator[Row]:
    columns, values = list[str](), list[str]()
    for token, quoted in cif_tokens(text):
        if token.startswith(PREFIX) and not quoted:
            columns.append(token.removeprefix(PREFIX))
            values.clear()
        else:
            values.append("" if token in ("?", ".") and not quoted else token)
    if not columns:
        return
    for at in range(0, len(values) - len(columns) + 1, len(columns)):
        row = dict(zip(columns, values[at:], strict=False))

        def first(*wanted: str, row: dict[str, str] = row) -> str:
            return next((row[name] for name in wanted if row.get(name)), "")

        yield Row(
            first("pdbx_PDB_model_num"),
            residue_of(
                first("auth_asym_id", "label_asym_id"),
                first("auth_seq_id", "label_seq_id"),
                first("pdbx_PDB_ins_code"),
            ),
            first("label_comp_id", "auth_comp_id"),
            first("label_atom_id", "auth_atom_id"),
            first("label_alt_id"),
            first("occupancy"),
            (first("Cartn_x"), first("Cartn_y"), first("Cartn_z")),
        )


def rows_of(text: str, cif: bool) -> list[Row]:
    return list(cif_rows(text) if cif else pdb_rows(text))


def point(row: Row) -> list[float] | None:
    try:
        return [float(np.float32(float(value))) for value in row.xyz]
    except ValueError:
        return None


def slow_residues(text: str, cif: bool) -> Residues:
    """Letter and atoms of each residue of a whole file's first model, by id, in the order of the file."""
    rows = rows_of(text, cif)
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.model == rows[0].model and row.residue in LETTERS:
            found.setdefault(row.id, []).append(row)
    result: Residues = {}
    for name, group in found.items():
        labels = list(dict.fromkeys(row.altloc for row in group if row.atom in ("N", "CA", "C", "O")))
        best: list[Row] = []
        for label in [label for label in labels if label] or [""]:
            own = [row for row in group if row.altloc in ("", label) and row.atom in ("N", "CA", "C", "O")]
            if not best or sum(float(row.occupancy) for row in own) > sum(float(row.occupancy) for row in best):
                best = own
        atoms = {row.atom: at for row in best if (at := point(row)) is not None}
        if {"N", "CA", "C"} <= atoms.keys():
            result[name] = (LETTERS[best[0].residue], atoms)
    return result


def places(text: str, cif: bool) -> set[tuple[object, ...]]:
    """(residue, atom, x, y, z) of every atom of a file, whatever its model, group or location."""
    return {(row.id, row.atom, *at) for row in rows_of(text, cif) if (at := point(row)) is not None}


def excerpt(text: str, cif: bool, chains: str, window: range) -> str:
    """The atoms of some residues of some chains, with the records between them; residues count from 0 per model."""
    kept, seen = [], dict[tuple[str, str], list[str]]()
    model = 0
    columns = cif_columns(text) if cif else []
    for line in lines_of(text):
        if not line.startswith(("ATOM", "HETATM")):
            model += line.startswith("MODEL")
            between = "_atom_site." if cif else ("MODEL", "ENDMDL", "TER", "HEADER", "TITLE", "CRYST1")
            if line.startswith(between):
                kept.append(line)
            continue
        if cif:
            values = dict(zip(columns, line.split(), strict=False))
            if len(values) < len(columns):
                continue
            chain = values["auth_asym_id"]
            name = values["auth_seq_id"] + values.get("pdbx_PDB_ins_code", "?").strip("?")
            amino_acid = values["label_comp_id"] in LETTERS
        else:
            chain, name, amino_acid = line[21], line[22:27], line[17:20] in LETTERS
        if chain in chains and amino_acid:
            order = seen.setdefault((str(model), chain), [])
            if name not in order:
                order.append(name)
            if order.index(name) in window:
                kept.append(line)
    return "\n".join(["data_excerpt", "loop_", *kept, "#", ""] if cif else [*kept, "END", ""])


def as_cif(text: str) -> str:
    """The first location of every amino-acid atom of a PDB file as mmCIF, for runs without real data."""
    names = (
        *("group_PDB", "label_atom_id", "label_alt_id", "label_comp_id", "auth_asym_id", "auth_seq_id"),
        *("pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "pdbx_PDB_model_num"),
    )
    lines = [f"_atom_site.{name}" for name in names]
    for line in lines_of(text):
        if line.startswith("ATOM") and line[16] in " A":
            fields = (line[12:16], line[17:20], line[21], line[22:26], line[30:38], line[38:46], line[46:54])
            atom, residue, chain, number, x, y, z = map(str.strip, fields)
            atom = f'"{atom}"' if "'" in atom else atom
            lines.append(f"ATOM {atom} . {residue} {chain} {number} ? {x} {y} {z} 1.00 1")
    return "\n".join(["data_example", "loop_", *lines, "#", ""])
