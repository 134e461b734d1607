"""Complexes made by formula: copies of a helix, numbered and shortened as a test asks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from made_structures import helix
from reed_protein.residues import residue_id
from reed_protein.structure import Structure


def complex_of(chains: dict[str, Sequence[int]], letters: str | None = None, seed: int = 0) -> Structure:
    """A structure whose chain c has residues numbered as asked; number n - first is place n of one helix.

    Args:
        chains: Author numbers of each chain. Chains are copies, moved apart, with the letters of the helix by place.
        letters: Letters of the helix; random ones if None.
        seed: Of the helix.
    """
    length = max(max(numbers) - min(numbers) for numbers in chains.values()) + 1
    base = helix(length, seed)
    base = base if letters is None else replace(base, sequence=letters)
    coords, sequence, ids, names, all_numbers = [], "", [], [], []
    for index, (chain, numbers) in enumerate(chains.items()):
        places = [number - numbers[0] for number in numbers]
        coords.append(base.coords[places] + np.array([0.0, 14.0 * index, 0.0], dtype=np.float32))
        sequence += "".join(base.sequence[place] for place in places)
        ids += [residue_id(chain, number) for number in numbers]
        names += [chain] * len(numbers)
        all_numbers += numbers
    return Structure(
        name="complex",
        coords=np.concatenate(coords).astype(np.float32),
        sequence=sequence,
        chain_ids=tuple(names),
        residue_ids=tuple(ids),
        residue_numbers=np.array(all_numbers, dtype=np.int32),
    )
