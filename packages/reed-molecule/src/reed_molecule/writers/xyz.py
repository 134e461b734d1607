"""XYZ files: element symbols and coordinates in angstrom, one frame after another; no bonds, no charges."""

from collections.abc import Sequence
from pathlib import Path

from rdkit import Chem
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_molecule.molecule import Molecule


def write_xyz(path: Path | str, molecules: Sequence[Molecule], comments: Sequence[str] | None = None) -> None:
    """Writes molecules, or the frames of one, to an XYZ file.

    Args:
        path: The file.
        molecules: One for each frame.
        comments: The second line of each frame; None takes the names.

    Raises:
        InputError: If a comment is not one line or their number is not that of the frames, or the file cannot be
            written.
    """
    comments = [molecule.name for molecule in molecules] if comments is None else comments
    if len(comments) != len(molecules):
        raise InputError(f"{len(comments)} comments for {len(molecules)} molecules; expected one for each")
    frames = [_frame(molecule, comment) for molecule, comment in zip(molecules, comments, strict=True)]
    write_text(path, "".join(frames))


def _frame(molecule: Molecule, comment: str) -> str:
    if "\n" in comment or "\r" in comment:
        raise InputError(f"XYZ comment {comment!r}: expected one line")
    table = Chem.GetPeriodicTable()
    lines = [str(len(molecule)), comment]
    for number, (x, y, z) in zip(molecule.numbers.tolist(), molecule.positions.tolist(), strict=True):
        lines.append(f"{table.GetElementSymbol(number):<2} {x:14.6f} {y:14.6f} {z:14.6f}")
    return "\n".join(lines) + "\n"
