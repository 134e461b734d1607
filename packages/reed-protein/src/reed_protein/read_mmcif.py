"""The `_atom_site` loop of an mmCIF file, read through Biopython's `MMCIF2Dict` into an `AtomTable`.

Chains and numbers are the author's (`auth_asym_id`, `auth_seq_id`), as in the PDB file of the same entry and in papers;
where a file has none, the `label_` ones stand in and a note says so. An atom belongs to a polymer if it is an ATOM or
has a `label_seq_id`.
"""

import io
import re
from collections.abc import Mapping

from reed_core.errors import InputError

from reed_protein.atom_table import BLANK_CHAIN, Atom, AtomTable
from reed_protein.structure_file import StructureText

_PREFIX = "_atom_site."
_NOTHING = ("?", ".")


def atoms(source: StructureText, model: int = 1) -> AtomTable:
    """The atoms of one model of an mmCIF file; none if it has fewer.

    Args:
        source: The file.
        model: Which model, from 1 in the order of the file.

    Raises:
        InputError: If the file is not CIF, is cut short, or has no coordinates.
    """
    columns = _columns(source)
    numbers = columns.get("pdbx_PDB_model_num") or ["1"] * len(columns["Cartn_x"])
    models = list(dict.fromkeys(numbers))
    rows = [row for row, number in enumerate(numbers) if number == models[model - 1]] if model <= len(models) else []
    notes = []

    def column(name: str) -> list[str]:
        return [_text(value) for value in columns[name]] if name in columns else [""] * len(numbers)

    def author(auth: str, label: str, what: str) -> list[str]:
        if any(named := column(auth)):
            return named
        notes.append(f"the file has no author {what} ({auth}): {label} is used instead")
        return column(label)

    chain = author("auth_asym_id", "label_asym_id", "chain ids")
    number = author("auth_seq_id", "label_seq_id", "residue numbers")
    residue = [a or b for a, b in zip(column("label_comp_id"), column("auth_comp_id"), strict=True)]
    name = [a or b for a, b in zip(column("label_atom_id"), column("auth_atom_id"), strict=True)]
    insertion, altloc = column("pdbx_PDB_ins_code"), column("label_alt_id")
    x, y, z = (columns[f"Cartn_{axis}"] for axis in "xyz")
    occupancy, group, position = column("occupancy"), column("group_PDB"), column("label_seq_id")
    table = [
        Atom(
            chain=chain[row] or BLANK_CHAIN,
            number=number[row],
            insertion=insertion[row],
            residue=residue[row],
            name=name[row],
            altloc=altloc[row],
            x=x[row],
            y=y[row],
            z=z[row],
            occupancy=occupancy[row],
            polymer=group[row] != "HETATM" or bool(position[row]),
        )
        for row in rows
    ]
    return AtomTable(table, len(models), tuple(notes), model)


def _columns(source: StructureText) -> dict[str, list[str]]:
    """The columns of the atoms, by name, all of one length."""
    from Bio.PDB.MMCIF2Dict import MMCIF2Dict

    # A file may hold several blocks (a model, then ligand restraints); the dictionary reads one.
    blocks = re.split(r"^(?=data_)", source.text, flags=re.MULTILINE)
    block = next((block for block in blocks if f"{_PREFIX}Cartn_x" in block), source.text)
    try:
        parsed: Mapping[str, list[str]] = MMCIF2Dict(io.StringIO(block))
    except (ValueError, ZeroDivisionError, IndexError, KeyError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{source.name} is not a whole mmCIF file ({reason}); fetch it again") from error
    columns = {key.removeprefix(_PREFIX): value for key, value in parsed.items() if key.startswith(_PREFIX)}
    if not columns:
        raise InputError(f"{source.name} has no coordinates (no _atom_site loop); give a file with a model in it")
    missing = [f"{_PREFIX}{name}" for name in ("Cartn_x", "Cartn_y", "Cartn_z") if name not in columns]
    if missing:
        raise InputError(f"{source.name} has no column {', '.join(missing)}; an mmCIF file with coordinates has them")
    if len({len(value) for value in columns.values()}) != 1:
        raise InputError(f"the atoms of {source.name} end inside a row; the file is cut short, fetch it again")
    stray = next((key for key in parsed if not key.startswith(("_", "data_"))), None)
    if stray is not None:
        raise InputError(
            f"'{stray[:20]}' stands outside every loop of {source.name}; the file is damaged, fetch it again"
        )
    groups = columns.get("group_PDB", [])
    shifted = next((row for row, group in enumerate(groups) if group not in ("ATOM", "HETATM")), None)
    if shifted is not None:
        raise InputError(
            f"row {shifted + 1} of the atoms of {source.name} starts with '{groups[shifted][:20]}', "
            "expected ATOM or HETATM; the file is damaged, fetch it again"
        )
    return columns


def _text(value: str) -> str:
    return "" if value in _NOTHING else value
