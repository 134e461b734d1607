"""Chain sets made by formula, for tests of readers, encoders and latents."""

import numpy as np
import torch
from made_structures import helix
from reed_protein.backbone import residue_arrays
from reed_protein.dataset import ChainSet
from reed_protein.residues import tokens
from reed_protein.structure import Structure


def chain_set(structures: list[Structure]) -> ChainSet:
    """A set of structures, each as one entry (chains of a complex together)."""
    return ChainSet(
        tuple(structure.name for structure in structures),
        tuple(residue_arrays(structure) for structure in structures),
        tuple(torch.from_numpy(tokens(structure.sequence)) for structure in structures),
    )


def helices(*lengths: int) -> ChainSet:
    """Helices of some lengths, named h0, h1, ...; the first residue of h1 is unknown."""
    made = [helix(length, seed=k, name=f"h{k}") for k, length in enumerate(lengths)]
    found = chain_set(made)
    if len(made) > 1:
        found.tokens[1][0] = 20
    return found


def complex_of(first: int, second: int) -> Structure:
    """Two helices side by side, as chains A and B of one structure."""
    a, b = helix(first, seed=1), helix(second, seed=2)
    return Structure(
        name="complex",
        coords=np.concatenate([a.coords, b.coords + np.float32([0.0, 9.0, 0.0])]),
        sequence=a.sequence + b.sequence,
        chain_ids=("A",) * first + ("B",) * second,
        residue_ids=tuple(f"A{k + 1}" for k in range(first)) + tuple(f"B{k + 1}" for k in range(second)),
        residue_numbers=np.concatenate([a.residue_numbers, b.residue_numbers]),
    )
