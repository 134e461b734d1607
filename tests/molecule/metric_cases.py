"""Hand-made molecules that the tests of building, metrics and writers share."""

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from reed_molecule.molecule import Molecule


def made(smiles: str, kekulised: bool = False, seed: int = 7) -> Molecule:
    """A molecule embedded from SMILES; kekulised on demand."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    if kekulised:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return Molecule.from_rdkit(mol, name=smiles)


def drawn(numbers: list[int], bonds: list[tuple[int, int, int]], charges: list[int] | None = None) -> Molecule:
    """A molecule given by its graph, atoms 1.4 angstrom apart on a bent line."""
    n = len(numbers)
    k = np.arange(n)
    positions = np.column_stack([1.2 * k, 0.7 * (k % 2), 0.1 * np.sin(k)]).astype(np.float32)
    return Molecule(
        numbers=np.array(numbers, dtype=np.int64),
        positions=positions,
        charges=np.array(charges or [0] * n, dtype=np.int64),
        bonds=np.array(bonds, dtype=np.int64).reshape(-1, 3),
    )


def moved(molecule: Molecule, order: np.ndarray, rotation: np.ndarray) -> Molecule:
    """The same molecule with its atoms in another order, rotated and shifted."""
    place = np.argsort(order)
    bonds = molecule.bonds.copy()
    bonds[:, :2] = place[bonds[:, :2]]
    return Molecule(
        numbers=molecule.numbers[order],
        positions=(molecule.positions[order] @ rotation + 3.0).astype(np.float32),
        charges=molecule.charges[order],
        bonds=bonds[::-1].copy(),
    )
