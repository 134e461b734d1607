"""Which part of a training molecule is given: what remains when a connected piece of it is cut out.

A molecule is cut at single bonds between heavy atoms that lie in no ring; what they separate are its blocks, and the
blocks form a tree. A random block and random neighbours of what is chosen are removed until a share of the heavy atoms
is gone, drawn uniformly from `SHARES`. What is kept is then a core without a side chain, two or more pieces without
what linked them, or the side chains without their core: all that `complete` is asked to fill.
"""

import numpy as np
from jaxtyping import Bool, Int64
from rdkit import Chem
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from reed_molecule.molecule import Molecule
from reed_molecule.vocabulary import SINGLE

SHARES = (0.05, 0.6)
MOST = 0.7  # of the heavy atoms


def blocks_of(molecule: Molecule) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "c 2"]]:
    """The block of each atom, and the pairs of blocks that a cut bond joins."""
    mol = molecule.as_drawn()
    Chem.FastFindRings(mol)
    heavy = molecule.numbers > 1
    bonds = molecule.bonds
    ring = np.array([bond.IsInRing() for bond in mol.GetBonds()], dtype=bool)
    cut = (bonds[:, 2] == SINGLE) & ~ring & heavy[bonds[:, 0]] & heavy[bonds[:, 1]]
    stay = bonds[~cut]
    joined = coo_matrix((np.ones(len(stay)), (stay[:, 0], stay[:, 1])), shape=(len(molecule),) * 2)
    block = connected_components(joined, directed=False)[1].astype(np.int64)
    return block, block[bonds[cut, :2]]


def random_kept(molecule: Molecule, random: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """The atoms that are given; none if the molecule has no bond to cut.

    Args:
        molecule: A whole molecule.
        random: Chooses what is cut out.
    """
    block, edges = blocks_of(molecule)
    weight = np.bincount(block, weights=molecule.numbers > 1)
    total = weight.sum()
    goal = total * random.uniform(*SHARES)
    first = np.flatnonzero((weight > 0) & (weight <= MOST * total))
    nothing = np.zeros(len(molecule), dtype=bool)
    if not len(edges) or not len(first):
        return nothing
    gone = {int(random.choice(first))}
    while (size := weight[list(gone)].sum()) < goal:
        near = [int(b if a in gone else a) for a, b in edges.tolist() if (a in gone) != (b in gone)]
        fitting = sorted({one for one in near if size + weight[one] <= MOST * total})
        if not fitting:
            break
        gone.add(int(random.choice(fitting)))
    return ~np.isin(block, list(gone))
