"""A design on its backbone: a PDB or mmCIF file whose residues carry the names of the design.

Atoms, chain ids, author numbers and insertion codes are the structure's; missing residues stay missing. The B-factor of
every atom is the confidence of its residue in percent: 100 p(residue | backbone, all other residues).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_protein.mmcif_writer import mmcif_text
from reed_protein.pdb_writer import pdb_text
from reed_protein.structure import Structure

PDB = (".pdb", ".ent")
MMCIF = (".cif", ".mmcif")


def check_threaded_path(path: Path, option: str = "--threaded") -> None:
    """Refuses a file whose suffix does not say which format is wanted.

    Raises:
        InputError: If it is neither a PDB nor an mmCIF suffix.
    """
    if path.suffix.lower() not in PDB + MMCIF:
        raise InputError(f"{option} {path}: a structure is written as .pdb or .cif; give it one of these endings")


def numbered_paths(path: Path, count: int) -> list[Path]:
    """The path itself for one design; for several `out_1.pdb`, `out_2.pdb` and so on."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, count + 1)]


def threaded_text(
    structure: Structure, sequence: str, confidence: Float32[np.ndarray, " l"], suffix: str, remarks: Sequence[str] = ()
) -> str:
    """The text of a threaded design.

    Args:
        structure: The backbone.
        sequence: The design, a letter per residue.
        confidence: The confidence in each residue, 0..1.
        suffix: `.pdb` or `.cif`, or another name for one of them.
        remarks: What the head of the file says.

    Raises:
        InputError: If the format cannot hold the structure (`pdb_writer`); mmCIF holds nearly all.
    """
    percent = 100.0 * confidence.astype(np.float64)
    notes = [*remarks, "B-factor: confidence in the residue, percent"]
    if suffix.lower() in MMCIF:
        return mmcif_text(structure, sequence, percent, ", ".join(notes))
    return pdb_text(structure, sequence, percent, notes)


def write_threaded(
    structure: Structure,
    sequence: str,
    confidence: Float32[np.ndarray, " l"],
    path: str | Path,
    remarks: Sequence[str] = (),
) -> None:
    """Writes a threaded design, whole or not at all, as PDB or mmCIF by the suffix of the path; as `threaded_text`.

    Raises:
        InputError: If the suffix is another, the format cannot hold the structure, or the file cannot be written.
    """
    check_threaded_path(Path(path))
    write_text(path, threaded_text(structure, sequence, confidence, Path(path).suffix, remarks))
