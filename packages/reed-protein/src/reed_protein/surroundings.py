"""What stands near the designed residues and is not seen by the model: ligands, metals, nucleic acids, other chains.

A molecule is near if one of its atoms lies within 6 A of N, CA, C, O or the virtual CB of a designed residue (side
chains are not read; CB by the geometry of `features`). Waters do not count.
"""

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float32

from reed_protein.structure import Structure

NEAR_ANGSTROM = 6.0


def near(structure: Structure, designed: Bool[np.ndarray, " l"], within: float = NEAR_ANGSTROM) -> Counter[str]:
    """Counts by name of what is near.

    Args:
        structure: The structure, with what its file holds besides.
        designed: The residues that are designed.
        within: Distance, angstrom.
    """
    counts: Counter[str] = Counter()
    points = _with_cb(structure.coords[designed]).reshape(-1, 3)
    for molecule in structure.unseen:
        centre = molecule.coords.mean(0)
        radius = np.linalg.norm(molecule.coords - centre, axis=1).max()
        close = points[np.linalg.norm(points - centre, axis=1) <= radius + within]
        if len(close) and (np.linalg.norm(close[:, None] - molecule.coords, axis=-1) <= within).any():
            counts[molecule.name] += 1
    return counts


def _with_cb(coords: Float32[np.ndarray, "l 4 3"]) -> Float32[np.ndarray, "l 5 3"]:
    n, ca, c = coords[:, 0], coords[:, 1], coords[:, 2]
    first, second = ca - n, c - ca
    cb = -0.58273431 * np.cross(first, second) + 0.56802827 * first - 0.54067466 * second + ca
    return np.concatenate([coords, cb[:, None].astype(np.float32)], axis=1)
