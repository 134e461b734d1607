"""What the writers of PDB and mmCIF files have in common: a letter and a number for every residue, checked."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from reed_core.errors import InputError

from reed_protein.structure import Structure

ATOMS = ("N", "CA", "C", "O")


class Columns(NamedTuple):
    """What is written of each residue besides its place: its letter, and its B-factor."""

    letters: str
    b_factors: Float[np.ndarray, " l"]


def columns(structure: Structure, sequence: str | None, b_factors: Float[np.ndarray, " k"] | None) -> Columns:
    """The letters and B-factors to write: those given, or the structure's own and zeros.

    Raises:
        InputError: If there is not one of each for every residue.
    """
    letters = structure.sequence if sequence is None else sequence
    numbers = np.zeros(len(structure)) if b_factors is None else b_factors
    size = f"{structure.name} has {len(structure)} residues"
    if len(letters) != len(structure):
        raise InputError(f"{size}, the sequence has {len(letters)}; give one letter each")
    if len(numbers) != len(structure):
        raise InputError(f"{size}, got {len(numbers)} B-factors; give one each")
    return Columns(letters, numbers)
