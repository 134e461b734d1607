"""SDF and MOL files, plain or gzip: records are cut apart here and read by RDKit in worker processes."""

from functools import partial
from pathlib import Path

from rdkit import Chem, rdBase

from reed_molecule.molecule import Molecule, sanitised
from reed_molecule.readers.bonds import checked
from reed_molecule.readers.source import Geometry, Job, Source, stem_of, text_of
from reed_molecule.workers import UnusableError

_END = "$$$$"


def sdf(path: Path, geometry: Geometry = "file", add_hydrogens: bool = False, limit: int | None = None) -> Source:
    """Reads the molecules of an SDF.

    Args:
        path: The file.
        geometry: Where the coordinates come from.
        add_hydrogens: Place missing hydrogens by RDKit's ideal geometry; otherwise such molecules are dropped.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If the file cannot be read.
    """
    jobs: list[Job] = []
    lines: list[str] = []
    for line in [*text_of(path).splitlines(), _END]:
        if line.startswith(_END):
            if any(part.strip() for part in lines) and (limit is None or len(jobs) < limit):
                jobs.append((lines[0].strip() or f"{stem_of(path)}_{len(jobs)}", "\n".join(lines) + "\n"))
            lines = []
        else:
            lines.append(line)
    described = "missing hydrogens placed" if add_hydrogens else "explicit hydrogens required"
    return Source(path, geometry, jobs, partial(_parse, add_hydrogens), described)


def _parse(add_hydrogens: bool, job: Job) -> Molecule:
    name, block = job
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    if mol is None:
        raise UnusableError("not readable", f"{name}: RDKit does not read the record")
    if mol.GetNumAtoms() == 0:
        raise UnusableError("not a molecule", f"{name}: no atoms")
    if mol.GetNumConformers() == 0 or not mol.GetConformer().Is3D():
        raise UnusableError("no 3D coordinates", f"{name}: give its SMILES to have them made")
    try:
        mol = sanitised(mol, name)
    except ValueError as error:
        raise UnusableError("not sanitised", str(error)) from error
    if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        if not add_hydrogens:
            raise UnusableError("hydrogens missing", f"{name}: implicit ones; have them added")
        mol = Chem.AddHs(mol, addCoords=True)
    return checked(mol, name)
