"""Structures made by formula, for tests that need geometry but no data."""

import numpy as np
from reed_protein.structure import Structure


def placed(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, dihedral: float) -> np.ndarray:
    """The atom d with |cd| = length, angle bcd and dihedral abcd (degrees)."""
    angle, dihedral = np.deg2rad(angle), np.deg2rad(dihedral)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    frame = np.stack([axis, np.cross(normal, axis), normal])
    local = [-np.cos(angle), np.sin(angle) * np.cos(dihedral), np.sin(angle) * np.sin(dihedral)]
    return c + length * np.array(local) @ frame


def helix(length: int, seed: int = 0, name: str = "helix") -> Structure:
    """A chain of ideal bonds: helices of 8 residues joined by turns of 4 with random dihedrals, random sequence."""
    rng = np.random.default_rng(seed)
    turn = np.arange(length) % 12 >= 8
    phi = np.where(turn, rng.uniform(-150, -50, length), -57.0)
    psi = np.where(turn, rng.uniform(-60, 150, length), -47.0)
    atoms = [np.array([0.0, 0.0, 0.0]), np.array([1.46, 0.0, 0.0]), np.array([2.0, 1.42, 0.0])]
    for i in range(1, length):
        atoms.append(placed(*atoms[-3:], 1.33, 116.0, psi[i - 1]))
        atoms.append(placed(*atoms[-3:], 1.46, 122.0, 180.0))
        atoms.append(placed(*atoms[-3:], 1.52, 111.0, phi[i]))
    backbone = np.stack(atoms).reshape(length, 3, 3)
    oxygen = [placed(*backbone[i], 1.23, 120.5, psi[i] + 180.0) for i in range(length)]
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return Structure(
        name=name,
        coords=np.concatenate([backbone, np.stack(oxygen)[:, None]], axis=1).astype(np.float32),
        sequence="".join(letters[k] for k in rng.integers(0, 20, length)),
        chain_ids=("A",) * length,
        residue_ids=tuple(f"A{k + 1}" for k in range(length)),
        residue_numbers=np.arange(1, length + 1, dtype=np.int32),
    )
