"""Small molecules for the tests of several modules: made by RDKit, in three dimensions, hydrogens explicit."""

import os
import time
from functools import cache

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from reed_molecule.molecule import Molecule
from reed_molecule.workers import UnusableError

SMILES = (
    "C", "O", "CO", "C#N", "c1cc[nH]c1", "c1ccncc1", "CC(=O)[O-]", "C[NH3+]", "C[C@H](O)F", "C[C@@H](O)F", "F/C=C/F",
    "F/C=C\\F", "CS(C)(=O)=O", "C1CC1", "OB(O)c1ccccc1", "ClCBr", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "C[N+](=O)[O-]",
)  # fmt: skip


@cache
def molecule(smiles: str) -> Molecule:
    """The molecule with one ETKDG geometry."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = 7
    assert rdDistGeom.EmbedMolecule(mol, settings) == 0
    return Molecule.from_rdkit(mol, smiles)


def single_atom(number: int, name: str = "") -> Molecule:
    """An atom at the origin."""
    return Molecule(
        np.array([number]),
        np.zeros((1, 3), dtype=np.float32),
        np.zeros(1, dtype=np.int64),
        np.zeros((0, 3), dtype=np.int64),
        name,
    )


def awkward(payload: str) -> str:
    """A job for the pool that does what it is told."""
    match payload:
        case "hang":
            time.sleep(60)
        case "crash":
            os._exit(3)
        case "unusable":
            raise UnusableError("a reason", "a detail")
        case "bug":
            raise KeyError("a bug")
    return payload.upper()
