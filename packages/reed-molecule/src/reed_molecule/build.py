"""From what a sampler returns to molecules, and from molecules to RDKit, with every failure named and none raised.

A state is a mapping of padded tensors (coords, types, charges, bonds) and its mask. Two steps, so that a metric which
needs only arrays (stability) also judges what RDKit refuses:

    to_molecules: state -> `Molecule` | `Failure`     (arrays that describe atoms and bonds at all)
    rdkit_of:     `Molecule` -> `Chem.Mol` | `Failure`  (sanitised)

RDKit's ring perception can take very long on a dense graph, so a graph with more than `MAX_RINGS` independent rings
(edges - atoms + components) is refused before RDKit sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int64
from rdkit import Chem
from reed_core.errors import InputError
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from reed_molecule.molecule import Molecule
from reed_molecule.vocabulary import BONDS, NO_BOND, Vocabulary

MAX_RINGS = 64


class FailureKind(StrEnum):
    """Why something generated is no molecule."""

    EMPTY = "no atoms"
    COORDINATES = "coordinates not finite"
    CLASS = "unknown type, charge or bond class"
    ASYMMETRIC = "bonds not symmetric"
    SELF_BOND = "an atom bonded to itself"
    RINGS = "too many rings"
    VALENCE = "impossible valence"
    KEKULE = "aromatic bonds without a Kekule structure"
    SANITISE = "refused by RDKit"


@dataclass(frozen=True)
class Failure:
    """Something generated that is no molecule.

    Attributes:
        kind: Why.
        message: One line of detail.
        atoms: How many atoms it was to have; metrics count all of them as unstable.
    """

    kind: FailureKind
    message: str
    atoms: int


def to_molecules(
    state: Mapping[str, Tensor], mask: Mapping[str, Tensor], vocabulary: Vocabulary, scale: float
) -> list[Molecule | Failure]:
    """Reads molecules from a generated state. Valence and aromaticity are not judged here.

    Args:
        state: coords [b, n, 3] in angstrom / scale; types, charges [b, n] and bonds [b, n, n], as classes.
        mask: coords [b, n], True for real atoms.
        vocabulary: What types and charge classes mean.
        scale: Angstrom per unit of the coordinates.

    Returns:
        One entry for each of the b graphs, in order.
    """
    real = mask["coords"].detach().cpu().numpy().astype(bool)
    coords = state["coords"].detach().cpu().double().numpy() * scale
    types, charges, bonds = (state[part].detach().cpu().long().numpy() for part in ("types", "charges", "bonds"))
    return [
        _read(coords[b][rows], types[b][rows], charges[b][rows], bonds[b][np.ix_(rows, rows)], vocabulary)
        for b, rows in enumerate(map(np.flatnonzero, real))
    ]


def rdkit_of(molecule: Molecule) -> Chem.Mol | Failure:
    """A sanitised RDKit molecule, or why there is none."""
    atoms = len(molecule)
    rings = independent_rings(molecule)
    if rings > MAX_RINGS:
        return Failure(FailureKind.RINGS, f"{rings} independent rings; at most {MAX_RINGS} are tried", atoms)
    try:
        return molecule.to_rdkit()
    except (InputError, RuntimeError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, Chem.AtomValenceException):
            kind = FailureKind.VALENCE
        elif isinstance(cause, Chem.KekulizeException | Chem.AtomKekulizeException):
            kind = FailureKind.KEKULE
        else:
            kind = FailureKind.SANITISE
        return Failure(kind, next(iter(str(error).splitlines()), kind.value), atoms)


def all_rdkit(items: Sequence[Molecule | Failure]) -> list[Chem.Mol | Failure]:
    """`rdkit_of` each molecule; earlier failures stay as they are."""
    return [item if isinstance(item, Failure) else rdkit_of(item) for item in items]


def independent_rings(molecule: Molecule) -> int:
    """Edges - atoms + components: the size of a smallest set of rings that spans all others."""
    atoms, i, j = len(molecule), molecule.bonds[:, 0], molecule.bonds[:, 1]
    if not len(i):
        return 0
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(atoms, atoms))
    components, _ = connected_components(graph, directed=False)
    return len(i) - atoms + int(components)


def _read(
    coords: Float[np.ndarray, "n 3"],
    types: Int64[np.ndarray, " n"],
    charges: Int64[np.ndarray, " n"],
    bonds: Int64[np.ndarray, "n n"],
    vocabulary: Vocabulary,
) -> Molecule | Failure:
    n = len(types)
    if n == 0:
        return Failure(FailureKind.EMPTY, "its mask has no atom", 0)
    if not np.isfinite(coords.astype(np.float32)).all():
        return Failure(FailureKind.COORDINATES, "a coordinate is infinite or not a number", n)
    for name, values, size in (
        ("type", types, len(vocabulary.symbols)),
        ("charge", charges, len(vocabulary.charges)),
        ("bond", bonds, BONDS),
    ):
        if _outside(values, size).any():
            return Failure(FailureKind.CLASS, f"a {name} class is outside 0 to {size - 1}", n)
    if (bonds != bonds.T).any():
        return Failure(FailureKind.ASYMMETRIC, "bond i-j differs from bond j-i", n)
    if (np.diagonal(bonds) != NO_BOND).any():
        return Failure(FailureKind.SELF_BOND, "the diagonal of the bonds is not empty", n)
    i, j = np.nonzero(np.triu(bonds, 1))
    return Molecule(
        numbers=vocabulary.numbers_of(types),
        positions=coords.astype(np.float32),
        charges=vocabulary.charges_of(charges),
        bonds=np.stack([i, j, bonds[i, j]], axis=1).astype(np.int64),
    )


def _outside(values: Int64[np.ndarray, "..."], size: int) -> Bool[np.ndarray, "..."]:
    return (values < 0) | (values >= size)
