"""A backbone as PDB text: atoms N, CA, C and O of every residue, a TER record behind every chain.

What is written reads back the same to 0.001 A, the last digit of the format. What the format cannot hold is refused:
chain ids of several characters, more than 99,999 atoms, numbers outside -999 to 9999.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_protein import residues
from reed_protein.backbone_text import ATOMS, columns
from reed_protein.structure import Structure

_MAX_SERIAL = 99_999
_NUMBERS = (-999.0, 9999.0)
_COORDINATES = (-999.9994, 9999.9994)
_B_FACTORS = (-99.99, 999.99)


def write_pdb(
    structure: Structure,
    path: str | Path,
    sequence: str | None = None,
    b_factors: Float[np.ndarray, " l"] | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Writes a backbone, whole or not at all.

    Args:
        structure: The backbone.
        path: The file.
        sequence: L letters that name the residues (X as UNK); the structure's own if None.
        b_factors: A number per residue for the B-factor column, -99.99 to 999.99; 0 if None.
        remarks: Lines for the head of the file, below the one that names the structure.

    Raises:
        InputError: If the format cannot hold the structure, the lengths differ, or the file cannot be written.
    """
    write_text(Path(path), pdb_text(structure, sequence, b_factors, remarks))


def pdb_text(
    structure: Structure,
    sequence: str | None = None,
    b_factors: Float[np.ndarray, " l"] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """The text that `write_pdb` writes; arguments and errors are the same."""
    letters, temperature = columns(structure, sequence, b_factors)
    _check(structure, temperature)
    lines = [_remark(line) for line in (f"BACKBONE {structure.name}", *remarks)]
    serial = 0
    ends = [*np.flatnonzero(structure.chain_index[1:] != structure.chain_index[:-1]), len(structure) - 1]
    for index, letter in enumerate(letters):
        name = residues.three_letter(letter)
        chain, code = structure.chain_ids[index], structure.insertion_codes[index]
        place = f"{name} {chain}{structure.residue_numbers[index]:4d}{code or ' '}"
        for atom, (x, y, z) in zip(ATOMS, structure.coords[index].astype(float), strict=True):
            serial += 1
            lines.append(
                f"ATOM  {serial:5d}  {atom:<3s} {place}   {x:8.3f}{y:8.3f}{z:8.3f}"
                f"  1.00{temperature[index]:6.2f}          {atom[0]:>2s}"
            )
        if index in ends:
            serial += 1
            lines.append(f"TER   {serial:5d}      {place}".rstrip())
    return "\n".join([*lines, "END", ""])


def _remark(text: str) -> str:
    plain = " ".join(text.encode("ascii", "replace").decode().split())
    return f"REMARK 999 {plain}"[:80].rstrip()


def _check(structure: Structure, b_factors: Float[np.ndarray, " l"]) -> None:
    name = structure.name
    if b_factors.shape != (len(structure),):
        raise InputError(f"{name} has {len(structure)} residues, got {len(b_factors)} B-factors; give one each")
    wide = [chain for chain in structure.chains if len(chain) != 1 or not chain.isascii() or not chain.isprintable()]
    if wide:
        raise InputError(f"chain id '{wide[0]}' of {name} does not fit a PDB file, which has one character for it")
    if not _within(structure.residue_numbers, _NUMBERS):
        raise InputError(f"residue numbers of {name} do not fit a PDB file, which holds -999 to 9999")
    if not _within(structure.coords, _COORDINATES):
        raise InputError(f"coordinates of {name} do not fit a PDB file, which holds -999.999 to 9999.999 angstrom")
    if not _within(b_factors, _B_FACTORS):
        raise InputError(f"B-factors must lie in {_B_FACTORS[0]} to {_B_FACTORS[1]}; scale them")
    serials = 4 * len(structure) + len(structure.chains)
    if serials > _MAX_SERIAL:
        raise InputError(f"{name} has {serials} atom records, a PDB file holds {_MAX_SERIAL}; write fewer chains")


def _within(values: np.ndarray, limits: tuple[float, float]) -> bool:
    return bool(((values >= limits[0]) & (values <= limits[1])).all())
