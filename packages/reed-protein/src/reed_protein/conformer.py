"""One residue out of the atoms of a file: which molecule a group of atoms is, and which alternate location is kept.

A residue may be written several times over: with alternate location labels on some of its atoms, or as two residue
names at one number (microheterogeneity). A conformer is one label together with the unlabelled atoms of the same name.
The one kept is whole (N, CA and C) if any is, has the highest summed occupancy over N, CA, C and O, and comes first in
the file among equals. So a residue's atoms never mix two labels, and atoms of zero occupancy stay when nothing else is
there.
"""

import math
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from reed_core.errors import InputError

from reed_protein import residues
from reed_protein.atom_table import Atom

BACKBONE = ("N", "CA", "C")
# The names a carbonyl oxygen goes by, best first; the later ones are one of a terminus' two.
OXYGENS = ("O", "OT1", "OC1", "O1", "OXT")
_KEPT = frozenset(BACKBONE + OXYGENS)


class Kind(Enum):
    """What a group of atoms with one residue name and number is."""

    AMINO_ACID = "amino acid"
    WATER = "water"
    NUCLEOTIDE = "nucleotide"
    OTHER = "other"


class Conformer(NamedTuple):
    """The atoms of a residue that were kept.

    Attributes:
        residue: Residue name.
        atoms: By name: N, CA, C and O, as far as the file has them.
        alternatives: How many conformers the file offered.
        zero_occupancy: Whether one of the atoms has occupancy 0.
    """

    residue: str
    atoms: dict[str, Atom]
    alternatives: int
    zero_occupancy: bool

    @property
    def missing(self) -> list[str]:
        """The names among N, CA and C that the file does not have."""
        return [name for name in BACKBONE if name not in self.atoms]


class Residue(NamedTuple):
    """One position of a chain.

    Attributes:
        chain: Author chain id.
        number: Author residue number.
        id: `residues.residue_id` of the position.
        polymer: Whether the file places it in a polymer.
        conformer: The atoms that were kept.
    """

    chain: str
    number: int
    id: str
    polymer: bool
    conformer: Conformer


def kind(atoms: Sequence[Atom]) -> Kind:
    """What a group of atoms is: by its residue name, by N, CA and C, by where the file puts it.

    An amino acid among the ligands (not in a polymer) counts as one if it has N, CA and C; whether it is bonded to a
    chain is for the caller to see.
    """
    name = atoms[0].residue
    if name in residues.WATERS:
        return Kind.WATER
    polymer = any(atom.polymer for atom in atoms)
    names = {atom.name for atom in atoms}
    if names.issuperset(BACKBONE) or (polymer and residues.one_letter(name) is not None):
        return Kind.AMINO_ACID
    if name in residues.NUCLEOTIDES or (polymer and names & {"C1'", "C1*"}):
        return Kind.NUCLEOTIDE
    return Kind.OTHER


def choose(residue_id: str, groups: Sequence[Sequence[Atom]]) -> Conformer:
    """The conformer kept at one position of a chain.

    Args:
        residue_id: For messages.
        groups: The atoms of each residue name at that position.

    Raises:
        InputError: If the position is filled twice, by atoms without labels that tell them apart.
    """
    fallback = groups[0][0].residue
    groups = [part for group in groups if (part := [atom for atom in group if atom.name in _KEPT])]
    if len(groups) > 1 and not _alternate(groups):
        in_chain = [group for group in groups if any(atom.polymer for atom in group)]
        groups = in_chain or groups
    if len(groups) > 1 and not _alternate(groups):
        names = " and ".join(group[0].residue for group in groups)
        raise InputError(
            f"residue {residue_id} is given twice, as {names}; give each chain its own id, or delete one of the two"
        )
    offered = [conformer for group in groups for conformer in _conformers(residue_id, group)]
    best = max(offered, key=lambda atoms: (all(name in atoms for name in BACKBONE), _occupancy(atoms)), default={})
    oxygen = next((name for name in OXYGENS if name in best), None)
    kept = {name: best[name] for name in BACKBONE if name in best}
    if oxygen is not None:
        kept["O"] = best[oxygen]
    residue = next(iter(best.values())).residue if best else fallback
    zero = any(_number(atom.occupancy) == 0 for atom in kept.values())
    return Conformer(residue, kept, len(offered), zero)


def _alternate(groups: Sequence[Sequence[Atom]]) -> bool:
    labels = [{atom.altloc for atom in group} for group in groups]
    together: set[str] = set().union(*labels)
    return "" not in together and len(together) == sum(map(len, labels))


def _conformers(residue_id: str, atoms: Sequence[Atom]) -> list[dict[str, Atom]]:
    by_label: dict[str, dict[str, Atom]] = {}
    for atom in atoms:
        own = by_label.setdefault(atom.altloc, {})
        if atom.name in own:
            raise InputError(
                f"atom {atom.name} of residue {residue_id} is given twice; give each chain its own id, "
                "or keep one model in the file"
            )
        own[atom.name] = atom
    shared = by_label.get("", {})
    labelled = {label: own for label, own in by_label.items() if label}
    # Unlabelled atoms are a conformer of their own when a label gives one of them again.
    alone = not labelled or any(shared.keys() & own.keys() for own in labelled.values())
    return [{**shared, **own} for label, own in by_label.items() if label or alone]


def _occupancy(atoms: dict[str, Atom]) -> float:
    return sum(_number(atom.occupancy) for name, atom in atoms.items() if name in (*BACKBONE, "O"))


def _number(occupancy: str) -> float:
    """An occupancy; 1 where the file gives none that can be read."""
    try:
        value = float(occupancy)
    except ValueError:
        return 1.0
    return value if math.isfinite(value) and value >= 0 else 1.0
