"""Lists of SMILES, plain or gzip: geometry by ETKDG and MMFF94s, hydrogen added.

Each line is a SMILES and, after a blank, a name or nothing. The seed of a molecule comes from (seed, its line), so the
geometry does not depend on the number of processes.
"""

import hashlib
from functools import partial
from pathlib import Path

from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from reed_molecule.molecule import Molecule
from reed_molecule.readers.bonds import checked
from reed_molecule.readers.source import Job, Source, stem_of, text_of
from reed_molecule.workers import UnusableError

_ITERATIONS = 2000
_HEADERS = ("smiles", "smile", "canonical_smiles")


def smiles(path: Path, seed: int = 0, conformers: int = 1, limit: int | None = None) -> Source:
    """Reads SMILES and makes one geometry for each: the lowest in energy of some conformers.

    Args:
        path: The list.
        seed: Seeds the embedding.
        conformers: How many to make of each.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If the file cannot be read.
    """
    rows = [line.split(maxsplit=1) for line in text_of(path).splitlines() if line.strip() and line.strip()[0] != "#"]
    if rows and rows[0][0].lower() in _HEADERS:
        rows = rows[1:]
    jobs: list[Job] = [
        (row[1].strip() if len(row) > 1 else f"{stem_of(path)}_{i}", (row[0], _seed_of(seed, i)))
        for i, row in enumerate(rows[:limit])
    ]
    described = f"ETKDGv3, lowest of {conformers} by MMFF94s, seed {seed}"
    return Source(path, "mmff94s", jobs, partial(_parse, conformers), described)


def _seed_of(seed: int, line: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {line}".encode()).digest()[:4], "big") & 0x7FFFFFFF


def _parse(conformers: int, job: Job) -> Molecule:
    name, payload = job
    text, seed = payload
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text)
        if mol is None or mol.GetNumAtoms() == 0:
            raise UnusableError("not readable", f"{name}: {text[:60]!r} is not a SMILES that RDKit reads")
        if len(Chem.GetMolFrags(mol)) != 1:
            raise UnusableError("several fragments", f"{name}: {text[:60]!r}; give salts without their counter-ion")
        if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
            raise UnusableError("radical", f"{name}: {text[:60]!r} has unpaired electrons")
        mol = Chem.AddHs(mol)
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            raise UnusableError("no MMFF parameters", f"{name}: {text[:60]!r}")
        settings = rdDistGeom.ETKDGv3()
        settings.randomSeed = seed
        made = list(rdDistGeom.EmbedMultipleConfs(mol, conformers, settings))
        if not made:
            raise UnusableError("no 3D embedding", f"{name}: ETKDG finds no geometry for {text[:60]!r}")
        results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, 1, _ITERATIONS, "MMFF94s")
    relaxed = [(energy, key) for key, (left, energy) in zip(made, results, strict=True) if left == 0]
    if not relaxed:
        raise UnusableError("MMFF not converged", f"{name}: {text[:60]!r} after {_ITERATIONS} iterations")
    return checked(Chem.Mol(mol, confId=min(relaxed)[1]), name)
