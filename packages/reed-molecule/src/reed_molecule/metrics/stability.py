"""Stability: the share of atoms, and of whole molecules, whose valence is allowed. Four named conventions.

An atom is stable if its valence v is in a table; a molecule is stable if all its atoms are. What v is and which table
it is looked up in make the convention, and a figure means nothing without its name:

    distances, EDM table      v = sum_j order(d_ij): order 1, 2, 3 where d_ij is below the length of that bond plus 10,
                              5, 3 pm (a double bond is looked for only below the single one's, a triple one only
                              below the double one's). Charges and generated bonds are ignored.
    bonds, corrected          v = (number of aromatic bonds, sum of the other orders), by element and charge.
    bonds, legacy truncated   v = sum of orders, aromatic 1.5 cut to 1, in the table widened to fit it. Hides errors.
    bonds, legacy half-fixed  v = floor of the sum with aromatic 1.5 kept, in that same table. Fails on real molecules.

The first two are the measures; the two legacy ones exist to read older tables and are no measure of quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Int64
from rdkit import Chem

from reed_molecule.build import Failure
from reed_molecule.metrics.bond_length_table import DOUBLE_PM, MARGINS_PM, SINGLE_PM, TRIPLE_PM, VALENCES
from reed_molecule.metrics.valence_table import AROMATIC_AND_REST, LEGACY
from reed_molecule.molecule import Molecule
from reed_molecule.vocabulary import AROMATIC

_PM_PER_ANGSTROM = 100.0


class Convention(StrEnum):
    """What a figure of stability was measured by."""

    DISTANCES = "distances, EDM table"
    BONDS = "bonds, corrected"
    LEGACY_TRUNCATED = "bonds, legacy truncated"
    LEGACY_HALF_FIXED = "bonds, legacy half-fixed"


MEASURES = (Convention.DISTANCES, Convention.BONDS)


@dataclass(frozen=True)
class Stability:
    """Counts of stable atoms and molecules under one convention. What could not be built counts as unstable."""

    convention: Convention
    stable_atoms: int
    atoms: int
    stable_molecules: int
    molecules: int

    @property
    def atom_fraction(self) -> float:
        """Stable atoms over all atoms; 0 without atoms."""
        return self.stable_atoms / self.atoms if self.atoms else 0.0

    @property
    def molecule_fraction(self) -> float:
        """Stable molecules over all molecules; 0 without molecules."""
        return self.stable_molecules / self.molecules if self.molecules else 0.0


def stability(items: Sequence[Molecule | Failure], convention: Convention) -> Stability:
    """Counts stable atoms and molecules.

    Args:
        items: Molecules; a failure is one unstable molecule, with all its atoms.
        convention: What to measure by.
    """
    flags = [None if isinstance(item, Failure) else stable_atoms(item, convention) for item in items]
    sizes = [item.atoms if isinstance(item, Failure) else len(item) for item in items]
    return Stability(
        convention,
        stable_atoms=sum(int(flag.sum()) for flag in flags if flag is not None),
        atoms=sum(sizes),
        stable_molecules=sum(flag is not None and len(flag) > 0 and bool(flag.all()) for flag in flags),
        molecules=len(items),
    )


def stable_atoms(molecule: Molecule, convention: Convention) -> Bool[np.ndarray, " n"]:
    """Which atoms are stable under a convention."""
    symbols = _symbols(molecule)
    if convention is Convention.DISTANCES:
        valences = distance_orders(molecule).sum(axis=1)
        flags = [int(v) in VALENCES.get(symbol, ()) for symbol, v in zip(symbols, valences, strict=True)]
        return np.array(flags, dtype=bool)
    aromatic, rest = valence_pairs(molecule)
    charges = molecule.charges.tolist()
    pairs = list(zip(aromatic.tolist(), rest.tolist(), strict=True))
    if convention is Convention.BONDS:
        flags = [
            pair in AROMATIC_AND_REST.get((symbol, charge), ())
            for symbol, charge, pair in zip(symbols, charges, pairs, strict=True)
        ]
        return np.array(flags, dtype=bool)
    truncated = convention is Convention.LEGACY_TRUNCATED
    sums = [a + r if truncated else (3 * a) // 2 + r for a, r in pairs]
    flags = [v in _legacy(symbol, charge) for symbol, charge, v in zip(symbols, charges, sums, strict=True)]
    return np.array(flags, dtype=bool)


def distance_orders(molecule: Molecule) -> Int64[np.ndarray, "n n"]:
    """Bond orders 0 to 3 from distances alone, EDM convention: symmetric, with an empty diagonal."""
    symbols = _symbols(molecule)
    positions = molecule.positions.astype(np.float64)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) * _PM_PER_ANGSTROM
    kinds, kind = np.unique(np.array(symbols), return_inverse=True)
    below = np.ones((len(symbols), len(symbols)), dtype=bool)
    orders = np.zeros(below.shape, dtype=np.int64)
    for table, margin in zip((SINGLE_PM, DOUBLE_PM, TRIPLE_PM), MARGINS_PM, strict=True):
        limits = np.full((len(kinds), len(kinds)), -np.inf)
        for a, first in enumerate(kinds.tolist()):
            for b, second in enumerate(kinds.tolist()):
                length = table.get((first, second), table.get((second, first)))
                if length is not None:
                    limits[a, b] = length + margin
        below &= distances < limits[np.ix_(kind, kind)]
        orders += below
    np.fill_diagonal(orders, 0)
    return orders


def valence_pairs(molecule: Molecule) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each atom the number of its aromatic bonds, and the sum of the orders of its other bonds."""
    i, j, classes = molecule.bonds.T
    aromatic, rest = np.zeros((2, len(molecule)), dtype=np.int64)
    for ends in (i, j):
        np.add.at(aromatic, ends[classes == AROMATIC], 1)
        np.add.at(rest, ends[classes != AROMATIC], classes[classes != AROMATIC])
    return aromatic, rest


def _legacy(symbol: str, charge: int) -> tuple[int, ...]:
    entry = LEGACY.get(symbol, {})
    return entry.get(charge, entry.get(None, ()))


def _symbols(molecule: Molecule) -> list[str]:
    table = Chem.GetPeriodicTable()
    return [table.GetElementSymbol(number) for number in molecule.numbers.tolist()]
