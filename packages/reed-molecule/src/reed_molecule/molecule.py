"""One molecule as arrays, and its passage to RDKit and back. Imports no torch: worker processes load it.

All atoms are explicit, hydrogen too. Aromatic bonds stay aromatic (class 4); RDKit's own perception, run whenever a
molecule is read, decides which bonds are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from rdkit import Chem, rdBase
from rdkit.Geometry import Point3D
from reed_core.errors import InputError

from reed_molecule.vocabulary import AROMATIC, DOUBLE, MAX_ATOMIC_NUMBER, SINGLE, TRIPLE

_ORDERS = {
    SINGLE: Chem.BondType.SINGLE,
    DOUBLE: Chem.BondType.DOUBLE,
    TRIPLE: Chem.BondType.TRIPLE,
    AROMATIC: Chem.BondType.AROMATIC,
}
_CLASSES = {order: class_ for class_, order in _ORDERS.items()}


@dataclass(frozen=True, eq=False)
class Molecule:
    """Atoms, positions and bonds.

    Attributes:
        numbers: Atomic numbers.
        positions: Coordinates, angstrom.
        charges: Formal charges.
        bonds: One row (i, j, class) for each bond; i differs from j, classes 1 to 4, no pair twice.
        name: Its name, or empty.
        smiles: Its canonical SMILES, stereo included, without explicit hydrogen; empty if not known.
    """

    numbers: Int64[np.ndarray, " n"]
    positions: Float32[np.ndarray, "n 3"]
    charges: Int64[np.ndarray, " n"]
    bonds: Int64[np.ndarray, "m 3"]
    name: str = ""
    smiles: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    def as_drawn(self) -> Chem.RWMol:
        """An RDKit molecule of exactly these atoms, bonds and positions; nothing checked, nothing sanitised."""
        mol = Chem.RWMol()
        for number, charge in zip(self.numbers.tolist(), self.charges.tolist(), strict=True):
            atom = Chem.Atom(number)
            atom.SetFormalCharge(charge)
            atom.SetNoImplicit(True)
            mol.AddAtom(atom)
        for i, j, class_ in self.bonds.tolist():
            mol.AddBond(i, j, _ORDERS[class_])
        conformer = Chem.Conformer(len(self))
        conformer.Set3D(True)
        for i, position in enumerate(self.positions.astype(float).tolist()):
            conformer.SetAtomPosition(i, Point3D(*position))
        mol.AddConformer(conformer, assignId=True)
        return mol

    def to_rdkit(self) -> Chem.Mol:
        """A sanitised RDKit molecule of explicit atoms with one conformer and its stereochemistry.

        Raises:
            InputError: If the arrays do not describe a molecule, or RDKit cannot sanitise it.
        """
        n = len(self)
        pairs = np.sort(self.bonds[:, :2], axis=1)
        if n == 0 or self.numbers.min() < 1 or self.numbers.max() > MAX_ATOMIC_NUMBER:
            raise InputError(f"{self._label}: expected at least one atom, of atomic number 1 to {MAX_ATOMIC_NUMBER}")
        if not np.isfinite(self.positions).all():
            raise InputError(f"{self._label}: a coordinate is not a finite number")
        if pairs.size and (pairs.min() < 0 or pairs.max() >= n or (pairs[:, 0] == pairs[:, 1]).any()):
            raise InputError(f"{self._label}: a bond joins an atom to itself or to none; expected atoms 0 to {n - 1}")
        if len(np.unique(pairs, axis=0)) != len(pairs):
            raise InputError(f"{self._label}: two bonds join the same atoms")
        if not np.isin(self.bonds[:, 2], list(_ORDERS)).all():
            raise InputError(f"{self._label}: a bond class is not 1 (single), 2 (double), 3 (triple) or 4 (aromatic)")
        mol = self.as_drawn()
        for i, j, class_ in self.bonds.tolist():
            if class_ == AROMATIC:
                mol.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
                mol.GetAtomWithIdx(i).SetIsAromatic(True)
                mol.GetAtomWithIdx(j).SetIsAromatic(True)
        made = sanitised(mol, self._label)
        Chem.AssignStereochemistryFrom3D(made)
        made.SetProp("_Name", self.name)
        return made

    @classmethod
    def from_rdkit(cls, mol: Chem.Mol, name: str | None = None) -> "Molecule":
        """Reads a sanitised RDKit molecule with explicit hydrogen and a 3D conformer (its first one).

        Isotopes are not kept. Stereochemistry is read from the coordinates.

        Args:
            mol: The molecule; not changed.
            name: Its name; None takes the molecule's own.

        Raises:
            InputError: If it has no atoms, no 3D conformer, implicit hydrogen, dummy atoms or another kind of bond.
        """
        name = (mol.GetProp("_Name") if mol.HasProp("_Name") else "") if name is None else name
        label = name or "a molecule"
        if mol.GetNumAtoms() == 0:
            raise InputError(f"{label}: no atoms")
        if mol.GetNumConformers() == 0 or not mol.GetConformer().Is3D():
            raise InputError(f"{label}: no 3D coordinates; embed it first, or give its SMILES")
        if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
            raise InputError(f"{label}: hydrogens are not explicit; add them, with coordinates")
        if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
            raise InputError(f"{label}: a dummy atom or a query; expected elements only")
        positions = np.asarray(mol.GetConformer().GetPositions(), dtype=np.float32)
        if not np.isfinite(positions).all():
            raise InputError(f"{label}: a coordinate is not a finite number")
        kinds = [bond.GetBondType() for bond in mol.GetBonds()]
        other = [str(kind) for kind in kinds if kind not in _CLASSES]
        if other:
            raise InputError(f"{label}: a {other[0].lower()} bond; expected single, double, triple or aromatic ones")
        ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
        bonds = [(min(pair), max(pair), _CLASSES[kind]) for pair, kind in zip(ends, kinds, strict=True)]
        copy = Chem.Mol(mol)
        Chem.AssignStereochemistryFrom3D(copy)
        return cls(
            numbers=np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64),
            positions=positions,
            charges=np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64),
            bonds=np.array(sorted(bonds), dtype=np.int64).reshape(-1, 3),
            name=name,
            smiles=canonical_smiles(copy),
        )

    @property
    def _label(self) -> str:
        return self.name or "a molecule"


def sanitised(mol: Chem.Mol, label: str) -> Chem.Mol:
    """A sanitised copy.

    Raises:
        InputError: If RDKit refuses it, with the first line of what RDKit says.
    """
    made = Chem.Mol(mol)
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(made)
    except (Chem.MolSanitizeException, RuntimeError, ValueError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{label}: RDKit cannot sanitise it: {line}") from error
    return made


def canonical_smiles(mol: Chem.Mol, stereo: bool = True) -> str:
    """Canonical SMILES without explicit hydrogen, except where a hydrogen is the molecule or RDKit must keep it.

    Args:
        mol: A sanitised molecule.
        stereo: Whether to tell stereoisomers apart. Isotopes are dropped either way.
    """
    copy = Chem.Mol(mol)
    for atom in copy.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.RemoveHs(copy), isomericSmiles=stereo)


def flat_smiles(smiles: str) -> str:
    """Canonical SMILES without stereo: the identity of a molecule in splits and in the test of novelty.

    Raises:
        InputError: If the SMILES cannot be read.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise InputError(f"{smiles!r} is not a SMILES that RDKit reads")
    return canonical_smiles(mol, stereo=False)
