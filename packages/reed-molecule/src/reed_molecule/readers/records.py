"""Reading molecules to be judged: nothing is dropped or repaired, what is no molecule is a `Failure` in its place.

The other readers keep what can be trained on. Here an SDF record counts as it stands: its atoms are all there are
(a missing hydrogen is an unpaired electron), its bonds are as written, then made aromatic where RDKit finds them so.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase
from reed_core.errors import InputError

from reed_molecule.build import Failure, FailureKind, rdkit_of
from reed_molecule.molecule import Molecule
from reed_molecule.readers.choose import open_source
from reed_molecule.readers.sdf import sdf
from reed_molecule.readers.source import Job
from reed_molecule.vocabulary import AROMATIC, DOUBLE, SINGLE, TRIPLE
from reed_molecule.workers import Dropped, Pool

_SDF = (".sdf", ".sd", ".mol", ".sdf.gz", ".sd.gz", ".mol.gz")
_CLASSES = {
    Chem.BondType.SINGLE: SINGLE,
    Chem.BondType.DOUBLE: DOUBLE,
    Chem.BondType.TRIPLE: TRIPLE,
    Chem.BondType.AROMATIC: AROMATIC,
}


def read_records(
    path: Path, limit: int | None = None, charge: int = 0, workers: int = 1, timeout: float = 30.0
) -> list[Molecule | Failure]:
    """Reads every record of a file.

    Args:
        path: SDF or MOL, read as they stand; other formats (XYZ, npz, ...) through their readers.
        limit: How many to read, from the start; None reads all.
        charge: Total charge of each molecule of an XYZ file, for its bonds.
        workers: Processes for formats whose bonds have to be found.
        timeout: Seconds for one record there.

    Raises:
        InputError: If the file cannot be read, has no record, or has no hydrogen anywhere where some are missing.
    """
    if path.name.lower().endswith(_SDF):
        items = [_as_it_stands(job) for job in sdf(path, limit=limit).jobs]
        built = [item for item in items if isinstance(item, Molecule)]
        if built and not any((item.numbers == 1).any() for item in built) and any(_open(item) for item in built):
            raise InputError(f"{path}: no record has hydrogens; give molecules with explicit ones, in 3D")
    else:
        source = open_source(path, charge=charge, limit=limit)
        with Pool(source.parse, workers, timeout) as pool:
            answers = list(pool.map(source.jobs))
        items = [
            Failure(FailureKind.SANITISE, f"{answer.reason}: {answer.detail}", _atoms(job))
            if isinstance(answer, Dropped)
            else answer
            for job, answer in zip(source.jobs, answers, strict=True)
        ]
    if not items:
        raise InputError(f"{path} holds no molecule; give a file with some")
    return items


def _as_it_stands(job: Job) -> Molecule | Failure:
    name, block = job
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
    if mol is None:
        return Failure(FailureKind.SANITISE, f"{name}: RDKit does not read the record", 0)
    atoms = mol.GetNumAtoms()
    if not atoms:
        return Failure(FailureKind.EMPTY, f"{name}: no atoms", 0)
    if mol.GetNumConformers() == 0 or not (mol.GetConformer().Is3D() or atoms == 1):
        return Failure(FailureKind.COORDINATES, f"{name}: no 3D coordinates", atoms)
    kinds = [bond.GetBondType() for bond in mol.GetBonds()]
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if numbers.min() < 1 or any(kind not in _CLASSES for kind in kinds):
        return Failure(FailureKind.CLASS, f"{name}: a dummy atom, or another kind of bond", atoms)
    positions = np.asarray(mol.GetConformer().GetPositions(), dtype=np.float32)
    if not np.isfinite(positions).all():
        return Failure(FailureKind.COORDINATES, f"{name}: a coordinate is not a finite number", atoms)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), _CLASSES[kind])
             for bond, kind in zip(mol.GetBonds(), kinds, strict=True)]  # fmt: skip
    charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64)
    raw = Molecule(numbers, positions, charges, np.array(bonds, dtype=np.int64).reshape(-1, 3), name)
    found = rdkit_of(raw)
    return raw if isinstance(found, Failure) else Molecule.from_rdkit(found, name)


def _open(molecule: Molecule) -> bool:
    found = rdkit_of(molecule)
    return not isinstance(found, Failure) and any(atom.GetNumRadicalElectrons() for atom in found.GetAtoms())


def _atoms(job: Job) -> int:
    """Atoms of a record that gave no molecule, where its payload is a list of lines."""
    payload = job[1]
    return len(payload) if isinstance(payload, Sequence) and not isinstance(payload, str) else 0
