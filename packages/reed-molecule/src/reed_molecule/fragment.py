"""The part of a molecule that `complete` keeps: which atoms, what may grow from them, and what must not.

A fragment is a record of an SDF or MOL file with coordinates. Atoms are counted from 1, as in the file.

    kept      the atoms of `keep`; all of the file without it
    dropped   the others, dummy atoms (`*`, `R1`), and the hydrogens on the atoms of `replace`
    open      a kept atom that has lost a neighbour or has an unpaired electron: new atoms may bond to it
    closed    every other kept atom: it gets no new bond

Hydrogens that the file lacks are placed first, after its atoms. Kept atoms keep coordinates, elements, formal charges
and the bonds among them; several pieces keep their places to each other, which asks for a linker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from rdkit import Chem, rdBase
from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.readers.source import text_of

_MOST_LISTED = 100_000
_SUFFIXES = (".sdf", ".sd", ".mol", ".sdf.gz", ".sd.gz", ".mol.gz")
_CLASSES = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}


@dataclass(frozen=True, eq=False)
class Fragment:
    """Kept atoms, and the molecule they come from.

    Attributes:
        kept: The kept atoms as arrays, in the order of the file; not necessarily a valid molecule by itself.
        closed: Which of them get no new bond.
        places: Their places in `whole`, from 0.
        whole: The molecule of the file with its hydrogens, sanitised, dummy atoms included.
        notes: What was done to the file that a person should know.
    """

    kept: Molecule
    closed: Bool[np.ndarray, " k"]
    places: Int64[np.ndarray, " k"]
    whole: Chem.Mol
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def pieces(self) -> int:
        """How many pieces the kept atoms make."""
        rows = list(range(len(self)))
        for i, j, _ in self.kept.bonds.tolist():
            a, b = rows[i], rows[j]
            rows = [a if row == b else row for row in rows]
        return len(set(rows))


def read_fragment(path: Path, keep: str | None = None, replace: str | None = None, record: int = 1) -> Fragment:
    """Reads a fragment.

    Args:
        path: An SDF or MOL file.
        keep: Atoms to keep, such as "1-12,15"; None keeps all.
        replace: Atoms whose hydrogens may be replaced, written alike.
        record: Which record of the file, from 1.

    Raises:
        InputError: If the file or the record cannot be used, or nothing can grow from what is kept.
    """
    if not path.name.lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: expected an SDF or MOL file with coordinates and bonds")
    label = f"{path} record {record}"
    mol, notes = _read(_record(path, record), label)
    file_atoms = mol.GetNumAtoms()
    if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        mol = Chem.AddHs(mol, addCoords=True)
        notes.append(f"{mol.GetNumAtoms() - file_atoms} hydrogens that the file lacks were placed")
    dummies = {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0}
    if keep is None:
        chosen = set(range(mol.GetNumAtoms())) - dummies
    else:
        chosen = {place - 1 for place in read_atoms(keep, file_atoms, "--keep")}
        wrong = sorted(place + 1 for place in chosen & dummies)
        if wrong:
            raise InputError(f"--keep {keep}: atom {wrong[0]} is a dummy atom, a place where something may grow")
    if replace is not None:
        chosen -= _hydrogens(mol, [place - 1 for place in read_atoms(replace, file_atoms, "--replace")])
    return fragment_of(mol, sorted(chosen), label, tuple(notes))


def fragment_of(whole: Chem.Mol, places: Sequence[int], label: str, notes: tuple[str, ...] = ()) -> Fragment:
    """Some atoms of a molecule as a fragment.

    Args:
        whole: A sanitised molecule with explicit hydrogens and coordinates; dummy atoms are allowed.
        places: The atoms to keep, from 0, growing.
        label: What to call it in a message.
        notes: Passed on.

    Raises:
        InputError: If nothing is kept, or nothing can grow.
    """
    if not places:
        raise InputError(f"{label}: no atom is kept; name some with --keep")
    row = {place: k for k, place in enumerate(places)}
    closed = np.ones(len(places), dtype=bool)
    for k, place in enumerate(places):
        atom = whole.GetAtomWithIdx(place)
        lost = any(other.GetIdx() not in row for other in atom.GetNeighbors())
        closed[k] = not lost and not atom.GetNumRadicalElectrons()
    if closed.all():
        raise InputError(
            f"{label}: all neighbours of all kept atoms are kept, so nothing can grow; leave atoms out of --keep, "
            "or name atoms whose hydrogens may be replaced with --replace"
        )
    bonds = []
    for bond in whole.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if i in row and j in row:
            kind = bond.GetBondType()
            if kind not in _CLASSES:
                raise InputError(f"{label}: a {str(kind).lower()} bond; expected single, double, triple or aromatic")
            bonds.append((row[i], row[j], _CLASSES[kind]))
    atoms = [whole.GetAtomWithIdx(place) for place in places]
    kept = Molecule(
        numbers=np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int64),
        positions=whole.GetConformer().GetPositions()[list(places)].astype(np.float32),
        charges=np.array([atom.GetFormalCharge() for atom in atoms], dtype=np.int64),
        bonds=np.array(sorted(bonds), dtype=np.int64).reshape(-1, 3),
    )
    if not np.isfinite(kept.positions).all():
        raise InputError(f"{label}: a coordinate is not a finite number")
    return Fragment(kept, closed, np.array(places, dtype=np.int64), whole, notes)


def read_atoms(text: str, count: int, option: str) -> list[int]:
    """Numbers from 1 to `count` written as 1-12,15; each once, growing.

    Raises:
        InputError: If it is written otherwise, or a number is outside.
    """
    found: set[int] = set()
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) < 7 for end in ends):
            raise InputError(f"{option} {text[:60]}: expected numbers of atoms from 1, such as 1-12,15")
        low, high = int(ends[0]), int(ends[-1])
        if not 1 <= low <= high <= count:
            raise InputError(f"{option} {text[:60]}: {part.strip()} is not within the atoms 1 to {count} of the file")
        found.update(range(low, high + 1))
    return sorted(found)


def _record(path: Path, record: int) -> str:
    lines: list[str] = []
    at = 1
    for line in text_of(path).splitlines():
        if line.startswith("$$$$"):
            at += 1
        elif at == record:
            lines.append(line)
        if at > record:
            break
    if record < 1 or not any(line.strip() for line in lines):
        raise InputError(f"{path} has no record {record}; expected an SDF or MOL file with that many molecules")
    return "\n".join(lines) + "\n"


def _read(block: str, label: str) -> tuple[Chem.Mol, list[str]]:
    """A sanitised molecule with coordinates, and what to tell of it."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False, strictParsing=True)
        if mol is None or mol.GetNumAtoms() == 0:
            raise InputError(f"{label}: RDKit does not read it as a molecule with atoms; write it as an SDF again")
        if mol.GetNumAtoms() > _MOST_LISTED:
            raise InputError(f"{label}: {mol.GetNumAtoms()} atoms are too many; give one molecule")
        if mol.GetNumConformers() == 0 or not mol.GetConformer().Is3D():
            raise InputError(f"{label}: no 3D coordinates; the kept atoms need their places")
        for atom in mol.GetAtoms():  # RDKit counts the unpaired electron in the valence it writes, as if a hydrogen
            if atom.GetNumExplicitHs() and atom.GetNumRadicalElectrons():
                atom.SetNumExplicitHs(max(0, atom.GetNumExplicitHs() - atom.GetNumRadicalElectrons()))
        try:
            Chem.SanitizeMol(mol)
        except (Chem.KekulizeException, Chem.AtomKekulizeException) as error:
            said = next(iter(str(error).splitlines()), "")
            raise InputError(
                f"{label}: aromatic bonds without a Kekule structure ({said}); write single and double bonds, and the "
                "hydrogen of a pyrrole nitrogen"
            ) from error
        except (Chem.MolSanitizeException, RuntimeError, ValueError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{label}: RDKit cannot sanitise it ({said}); correct its bonds and charges") from error
        Chem.AssignStereochemistryFrom3D(mol)
    notes = []
    radicals = [atom.GetIdx() + 1 for atom in mol.GetAtoms() if atom.GetNumRadicalElectrons()]
    if radicals:
        notes.append(f"atom {', '.join(map(str, radicals[:10]))} has an unpaired electron: new atoms may bond to it")
    isotopes = [atom.GetIdx() + 1 for atom in mol.GetAtoms() if atom.GetIsotope() and atom.GetAtomicNum()]
    if isotopes:
        notes.append(f"the isotope of atom {', '.join(map(str, isotopes[:10]))} is not kept")
    return mol, notes


def _hydrogens(mol: Chem.Mol, places: Sequence[int]) -> set[int]:
    """The hydrogens on some atoms."""
    out: set[int] = set()
    for place in places:
        atom = mol.GetAtomWithIdx(place)
        found = {other.GetIdx() for other in atom.GetNeighbors() if other.GetAtomicNum() == 1}
        if not found:
            raise InputError(f"--replace: atom {place + 1} ({atom.GetSymbol()}) has no hydrogen to replace")
        out |= found
    return out
