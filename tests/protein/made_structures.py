"""Structures made by formula, for tests that need geometry but no data."""

import numpy as np
from reed_protein.structure import Structure


def helix(length: int, seed: int = 0, name: str = "helix") -> Structure:
    """A compact random chain: an alpha helix along a slowly turning axis, so that far residues come near."""
    rng = np.random.default_rng(seed)
    i = np.arange(length)
    angle = np.deg2rad(100.0) * i
    turn = 2 * np.pi * i / 36
    axis = np.stack([12 * np.cos(turn), 12 * np.sin(turn), 0.25 * i], -1)
    ca = axis + np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), 0.0 * i], -1)
    offsets = rng.normal(size=(length, 4, 3)) * 0.1 + np.array(
        [[-1.2, 0.6, 0.4], [0, 0, 0], [1.1, 0.7, -0.6], [1.6, 1.6, -1.2]]
    )
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return Structure(
        name=name,
        coords=(ca[:, None] + offsets).astype(np.float32),
        sequence="".join(letters[k] for k in rng.integers(0, 20, length)),
        chain_ids=("A",) * length,
        residue_ids=tuple(f"A{k + 1}" for k in range(length)),
        residue_numbers=np.arange(1, length + 1, dtype=np.int32),
    )
