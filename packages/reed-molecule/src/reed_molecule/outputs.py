"""The files of generated molecules, chosen by suffix before anything is computed: SDF, XYZ or PDB, and a PNG grid."""

from collections.abc import Sequence
from pathlib import Path

from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.writers.grid import MOST as MOST_CELLS
from reed_molecule.writers.grid import write_grid
from reed_molecule.writers.pdb import write_pdb
from reed_molecule.writers.sdf import Tags, write_sdf
from reed_molecule.writers.xyz import write_xyz

SUFFIXES = (".sdf", ".sdf.gz", ".xyz", ".pdb")


def check_outputs(out: Path, grid: Path | None = None, trajectory: Path | None = None) -> None:
    """Refuses names that cannot be written, before the work starts.

    Raises:
        InputError: If a suffix is not known, or the place is a folder.
    """
    wanted = [(out, SUFFIXES), (grid, (".png",)), (trajectory, (".xyz",))]
    for path, suffixes in wanted:
        if path is None:
            continue
        if not path.name.lower().endswith(suffixes):
            raise InputError(f"cannot write {path}: expected a name that ends in {', '.join(suffixes)}")
        if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.parents):
            raise InputError(f"cannot write {path}: it is a folder, or lies in a file; give the path of a file")
    paths = [path.resolve() for path, _ in wanted if path is not None]
    if len(set(paths)) != len(paths):
        raise InputError(f"{out}: two results cannot go to one file; give each its own")


def write_molecules(out: Path, molecules: Sequence[Molecule], tags: Sequence[Tags]) -> None:
    """Writes molecules in the format of the file's suffix; the tags go to SDF, and to the comments of XYZ.

    Raises:
        InputError: If the file cannot be written.
    """
    name = out.name.lower()
    if name.endswith((".sdf", ".sdf.gz")):
        write_sdf(out, molecules, tags)
    elif name.endswith(".xyz"):
        lines = [" ".join([molecule.name, *(f"{key}={value}" for key, value in said.items())])
                 for molecule, said in zip(molecules, tags, strict=True)]  # fmt: skip
        write_xyz(out, molecules, lines)
    else:
        write_pdb(out, molecules)


def write_picture(grid: Path, molecules: Sequence[Molecule], legends: Sequence[str]) -> int:
    """Draws the first molecules, as many as a grid holds; returns how many.

    Raises:
        InputError: If there is none, or the file cannot be written.
    """
    shown = min(len(molecules), MOST_CELLS)
    write_grid(grid, molecules[:shown], legends[:shown])
    return shown
