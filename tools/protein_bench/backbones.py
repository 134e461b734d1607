"""Structures of wanted lengths: chains of real files, or copies of a real chain side by side.

A copy stands as a chain of its own, moved along x by the width of the chain, so that chains touch as in a filament.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from reed_core.errors import InputError
from reed_protein.residues import residue_id
from reed_protein.structure import Structure, read_structure

_GAP_ANGSTROM = 3.0
CHAIN_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def real(folder: Path) -> list[Structure]:
    """The readable structures of a folder, whole."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            found.append(read_structure(path))
        except InputError:
            continue
    return found


def nearest(structures: list[Structure], length: int) -> Structure:
    """The set of chains of one structure whose length is nearest to the one wanted; fewest chains among equals."""
    offered = []
    for structure in structures:
        sizes = {chain: structure.chain_ids.count(chain) for chain in structure.chains}
        for number in range(1, len(sizes) + 1):
            for chains in combinations(sizes, number):
                off = abs(sum(sizes[chain] for chain in chains) - length)
                offered.append((off, number, structure.name, chains, structure))
    _, _, name, chains, best = min(offered, key=lambda item: item[:4])
    return replace(best.select(chains), name=f"{name} {''.join(chains)}")


def tiled(chain: Structure, length: int) -> Structure:
    """Copies of a structure as chains side by side, the last one cut, `length` residues in all."""
    step = np.array([np.ptp(chain.coords[..., 0]) + _GAP_ANGSTROM, 0.0, 0.0], dtype=np.float32)
    copies = -(-length // len(chain))
    names = [CHAIN_LETTERS[copy % 26] + CHAIN_LETTERS[copy // 26] for copy in range(copies)]
    numbers = np.tile(chain.residue_numbers, copies)[:length]
    chains = tuple(name for name in names for _ in range(len(chain)))[:length]
    return Structure(
        name=f"{copies} x {chain.name}",
        coords=np.concatenate([chain.coords + copy * step for copy in range(copies)])[:length],
        sequence=(chain.sequence * copies)[:length],
        chain_ids=chains,
        residue_ids=tuple(residue_id(name, int(number)) for name, number in zip(chains, numbers, strict=True)),
        residue_numbers=numbers,
    )
