"""Distances between the distributions of two sets of molecules: bonds, angles, valences, elements, sizes.

Discrete quantities are compared by total variation, TV = 1/2 sum |p - q|; numbers by the 1-Wasserstein distance, the
integral of |F - G|. Lengths are compared kind by kind (two elements and a bond class), angles and valences element by
element, and averaged with the frequency w_k of each kind in the reference:

    distance = sum_k w_k W1(generated_k, reference_k) / sum_k w_k     over the kinds that both sets have
    covered  = sum_k w_k                                              1 if no kind of the reference is missing

A kind that was never generated has no distance: `covered` says how much the mean leaves out. Two samples of the same
distribution are not at distance 0, so put two sets of real molecules beside it.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import wasserstein_distance

from reed_molecule.metrics.stability import valence_pairs
from reed_molecule.molecule import Molecule

_AROMATIC_ORDER = 1.5


@dataclass(frozen=True)
class Weighted:
    """A mean over kinds: the distance (None if the sets share no kind), and the share of the reference it covers."""

    distance: float | None
    covered: float


@dataclass(frozen=True)
class Distances:
    """How far a set of molecules is from a reference.

    Attributes:
        elements: TV of elements.
        charges: TV of formal charges.
        bond_classes: TV of the classes of bonds, single to aromatic.
        sizes: W1 of the number of atoms.
        lengths: W1 of bond lengths, angstrom.
        angles: W1 of angles between bonds, degrees, by central element.
        valences: W1 of valences, an aromatic bond counting 1.5, by element.
    """

    elements: float
    charges: float
    bond_classes: float
    sizes: float
    lengths: Weighted
    angles: Weighted
    valences: Weighted


def distances(generated: Sequence[Molecule], reference: Sequence[Molecule]) -> Distances | None:
    """Compares two sets of molecules; None if one of them is empty."""
    if not generated or not reference:
        return None
    pair = (generated, reference)
    return Distances(
        elements=total_variation(*(np.concatenate([m.numbers for m in ms]).tolist() for ms in pair)),
        charges=total_variation(*(np.concatenate([m.charges for m in ms]).tolist() for ms in pair)),
        bond_classes=total_variation(*(np.concatenate([m.bonds[:, 2] for m in ms]).tolist() for ms in pair)),
        sizes=float(wasserstein_distance(*([len(m) for m in ms] for ms in pair))),
        lengths=weighted_wasserstein(*(bond_lengths(ms) for ms in pair)),
        angles=weighted_wasserstein(*(bond_angles(ms) for ms in pair)),
        valences=weighted_wasserstein(*(valences(ms) for ms in pair)),
    )


def total_variation(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Half the summed difference of two empirical distributions: 0 equal, 1 disjoint; 1 if just one is empty."""
    if not first or not second:
        return float(bool(first) != bool(second))
    p, q = Counter(first), Counter(second)
    return 0.5 * sum(abs(p[key] / len(first) - q[key] / len(second)) for key in p.keys() | q.keys())


def weighted_wasserstein(
    generated: Mapping[Hashable, Float[np.ndarray, "..."]], reference: Mapping[Hashable, Float[np.ndarray, "..."]]
) -> Weighted:
    """The mean over kinds of the 1-Wasserstein distance, weighted by the reference."""
    total = sum(len(values) for values in reference.values())
    shared = [kind for kind in reference if kind in generated]
    weight = sum(len(reference[kind]) for kind in shared)
    if not weight:
        return Weighted(None, 0.0)
    summed = sum(len(reference[kind]) * wasserstein_distance(generated[kind], reference[kind]) for kind in shared)
    return Weighted(float(summed) / weight, weight / total)


def bond_lengths(molecules: Sequence[Molecule]) -> dict[Hashable, Float[np.ndarray, " m"]]:
    """Bond lengths, angstrom, by (lower atomic number, higher atomic number, class)."""
    found: dict[Hashable, list[float]] = {}
    for molecule in molecules:
        positions = molecule.positions.astype(float)
        for i, j, class_ in molecule.bonds.tolist():
            low, high = sorted((int(molecule.numbers[i]), int(molecule.numbers[j])))
            found.setdefault((low, high, class_), []).append(float(np.linalg.norm(positions[i] - positions[j])))
    return {kind: np.array(values) for kind, values in found.items()}


def bond_angles(molecules: Sequence[Molecule]) -> dict[Hashable, Float[np.ndarray, " m"]]:
    """Angles between two bonds of one atom, degrees, by the atomic number of that atom. Coinciding atoms have none."""
    found: dict[Hashable, list[float]] = {}
    for molecule in molecules:
        positions = molecule.positions.astype(float)
        around: dict[int, list[np.ndarray]] = {}
        for i, j, _ in molecule.bonds.tolist():
            arm = positions[j] - positions[i]
            length = float(np.linalg.norm(arm))
            if length > 0:
                around.setdefault(i, []).append(arm / length)
                around.setdefault(j, []).append(-arm / length)
        for centre, arms in around.items():
            rows, columns = np.triu_indices(len(arms), 1)
            units = np.stack(arms)
            cosines = (units @ units.T)[rows, columns].clip(-1, 1)
            found.setdefault(int(molecule.numbers[centre]), []).extend(np.degrees(np.arccos(cosines)).tolist())
    return {kind: np.array(values) for kind, values in found.items() if values}


def valences(molecules: Sequence[Molecule]) -> dict[Hashable, Float[np.ndarray, " m"]]:
    """Sums of bond orders, aromatic 1.5 and never rounded, by atomic number."""
    found: dict[Hashable, list[float]] = {}
    for molecule in molecules:
        aromatic, rest = valence_pairs(molecule)
        for number, value in zip(molecule.numbers.tolist(), (_AROMATIC_ORDER * aromatic + rest).tolist(), strict=True):
            found.setdefault(number, []).append(value)
    return {kind: np.array(values) for kind, values in found.items()}
