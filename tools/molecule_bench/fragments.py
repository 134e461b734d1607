"""What is cut out of real molecules for `complete` to fill in: a side chain, or a linker between two pieces.

Bonds are those of BRICS (Degen et al. 2008) that lie in no ring; where a molecule has none, all single bonds in no ring
between heavy atoms that have another neighbour each. A cut through one bond removes the smaller side (a side chain); a
cut through two removes what lies between them (a linker). Of the cuts that remove two heavy atoms or more, and at most
60 % of them, the one that removes nearest to a third is taken: a linker for every second molecule, if it has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from rdkit import Chem
from rdkit.Chem import BRICS

LEAST_REMOVED, MOST_REMOVED = 2, 0.6  # heavy atoms; their share
_AIM = 1 / 3
_ACYCLIC = Chem.MolFromSmarts("[!#1;!D1]-;!@[!#1;!D1]")


@dataclass(frozen=True)
class Cut:
    """What is kept of a molecule.

    Attributes:
        kind: "side chain" or "linker".
        kept: Atoms kept, hydrogens too, from 0, growing.
        removed: How many are not.
    """

    kind: str
    kept: tuple[int, ...]
    removed: int


def cut_of(mol: Chem.Mol, linker: bool) -> Cut | None:
    """The cut of a molecule with explicit hydrogens; None if it has none.

    Args:
        mol: The molecule.
        linker: Whether a linker is looked for first.
    """
    bonds = _bonds(mol)
    heavy = {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1}
    kinds = {"side chain": _side_chains(mol, bonds), "linker": _linkers(mol, bonds)}
    for kind in sorted(kinds, reverse=not linker):  # "linker" < "side chain"
        fit = []
        for gone in kinds[kind]:
            share = len(gone & heavy) / len(heavy)
            if len(gone & heavy) >= LEAST_REMOVED and share <= MOST_REMOVED:
                fit.append((abs(share - _AIM), sorted(gone)))
        if fit:
            gone = set(min(fit)[1])
            kept = tuple(place for place in range(mol.GetNumAtoms()) if place not in gone)
            return Cut(kind, kept, len(gone))
    return None


def _bonds(mol: Chem.Mol) -> list[int]:
    """The bonds that may be cut, by their numbers."""
    found = {tuple(sorted(pair)) for pair, _ in BRICS.FindBRICSBonds(mol)}
    found = found or {tuple(sorted(pair)) for pair in mol.GetSubstructMatches(_ACYCLIC)}
    bonds = [mol.GetBondBetweenAtoms(*pair) for pair in found]
    return sorted(bond.GetIdx() for bond in bonds if not bond.IsInRing())


def _pieces(mol: Chem.Mol, cut: Sequence[int]) -> list[set[int]]:
    """The atoms of each piece after some bonds are cut."""
    return [set(piece) for piece in Chem.GetMolFrags(Chem.FragmentOnBonds(mol, list(cut), addDummies=False))]


def _side_chains(mol: Chem.Mol, bonds: Sequence[int]) -> Iterator[set[int]]:
    for bond in bonds:
        pieces = _pieces(mol, [bond])
        if len(pieces) == 2:
            yield min(pieces, key=lambda piece: (len(piece), sorted(piece)))


def _linkers(mol: Chem.Mol, bonds: Sequence[int]) -> Iterator[set[int]]:
    """What lies between two cuts: the piece that holds one end of each."""
    for pair in combinations(bonds, 2):
        ends = [{mol.GetBondWithIdx(bond).GetBeginAtomIdx(), mol.GetBondWithIdx(bond).GetEndAtomIdx()} for bond in pair]
        pieces = _pieces(mol, pair)
        between = [piece for piece in pieces if all(piece & end for end in ends)]
        if len(pieces) == 3 and len(between) == 1:
            yield between[0]
