"""The condition of inverse folding: a padded batch of backbones, as tensors.

Positions along a chain follow the author numbering (a gap in numbering is a gap in space), except where numbers stand
still or go back (insertion codes, chains): there they advance by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reed_protein.structure import Structure

CHAIN_GAP = 1000


@dataclass(frozen=True)
class Backbone:
    """A padded batch of backbones.

    Attributes:
        coords: N, CA, C, O in angstrom, [b, n, 4, 3]; 0 where `mask` is False.
        mask: True where a residue exists, [b, n].
        position: Position along the chain, [b, n]; chains are `CHAIN_GAP` apart.
        chain: Index of the chain within its structure, [b, n].
    """

    coords: Float[Tensor, "b n 4 3"]
    mask: Bool[Tensor, "b n"]
    position: Int[Tensor, "b n"]
    chain: Int[Tensor, "b n"]

    def to(self, device: torch.device | str) -> "Backbone":
        """The same batch on a device."""
        return Backbone(*(getattr(self, name).to(device) for name in ("coords", "mask", "position", "chain")))

    @classmethod
    def from_structure(cls, structure: Structure) -> "Backbone":
        """A batch of one."""
        return cls.collate([residue_arrays(structure)])

    @classmethod
    def collate(cls, items: Sequence["ResidueArrays"]) -> "Backbone":
        """A padded batch.

        Args:
            items: One entry per structure, of any lengths.
        """
        size, length = len(items), max(len(item.coords) for item in items)
        coords = torch.zeros(size, length, 4, 3)
        mask = torch.zeros(size, length, dtype=torch.bool)
        position = torch.zeros(size, length, dtype=torch.long)
        chain = torch.zeros(size, length, dtype=torch.long)
        for row, item in enumerate(items):
            n = len(item.coords)
            coords[row, :n] = torch.from_numpy(np.ascontiguousarray(item.coords, dtype=np.float32))
            position[row, :n] = torch.from_numpy(item.position)
            chain[row, :n] = torch.from_numpy(item.chain)
            mask[row, :n] = True
        return cls(coords, mask, position, chain)


@dataclass(frozen=True)
class ResidueArrays:
    """One structure as arrays: coords [n, 4, 3] angstrom, position [n] and chain [n], int64."""

    coords: np.ndarray
    position: np.ndarray
    chain: np.ndarray


def residue_arrays(structure: Structure) -> ResidueArrays:
    """The arrays of a parsed structure."""
    chain = np.asarray(structure.chain_index, dtype=np.int64)
    return ResidueArrays(structure.coords, chain_positions(structure.residue_numbers, chain), chain)


def chain_positions(numbers: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Positions along each chain from author numbers.

    Args:
        numbers: Author residue numbers, [n].
        chain: Chain index of each residue, [n].

    Returns:
        Strictly increasing positions, int64 [n]: author gaps kept, other steps 1, chains `CHAIN_GAP` apart.
    """
    steps = np.maximum(np.diff(np.asarray(numbers, dtype=np.int64)), 1)
    steps = np.where(np.diff(chain) != 0, CHAIN_GAP, steps)
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
