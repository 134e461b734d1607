"""Bonds from coordinates: RDKit's DetermineBonds, for formats that give atoms alone. Run it under a time limit."""

import numpy as np
from jaxtyping import Float, Integer
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds
from rdkit.Geometry import Point3D

from reed_molecule.molecule import Molecule, sanitised
from reed_molecule.vocabulary import MAX_ATOMIC_NUMBER
from reed_molecule.workers import UnusableError


def perceived(
    numbers: Integer[np.ndarray, " n"], positions: Float[np.ndarray, "n 3"], charge: int, name: str
) -> Molecule:
    """A molecule with bonds and formal charges found from its coordinates.

    Args:
        numbers: Atomic numbers.
        positions: Coordinates, angstrom.
        charge: The total charge.
        name: Its name.

    Raises:
        UnusableError: If bonds are not found, are not of one connected molecule, or need a radical.
    """
    if len(numbers) == 0 or numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        raise UnusableError("not a molecule", f"{name}: expected atoms of atomic number 1 to {MAX_ATOMIC_NUMBER}")
    if not np.isfinite(positions).all():
        raise UnusableError("not a molecule", f"{name}: a coordinate is not a finite number")
    mol = Chem.RWMol()
    for number in numbers.tolist():
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    conformer = Chem.Conformer(len(numbers))
    conformer.Set3D(True)
    for i, position in enumerate(positions.astype(float).tolist()):
        conformer.SetAtomPosition(i, Point3D(*position))
    mol.AddConformer(conformer, assignId=True)
    try:
        with rdBase.BlockLogs():
            rdDetermineBonds.DetermineBonds(mol, charge=charge)
    except (ValueError, RuntimeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableError("bonds not found", f"{name}: {line}") from error
    return checked(sanitised(mol, name), name)


def checked(mol: Chem.Mol, name: str) -> Molecule:
    """A sanitised RDKit molecule as ours, if it is one connected molecule without radicals.

    Raises:
        UnusableError: If it is not.
    """
    if len(Chem.GetMolFrags(mol)) != 1:
        raise UnusableError("several fragments", f"{name}: {len(Chem.GetMolFrags(mol))} of them; give salts apart")
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        raise UnusableError("radical", f"{name}: unpaired electrons, or missing hydrogens")
    return Molecule.from_rdkit(mol, name)
