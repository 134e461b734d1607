"""Which letters may be used, and how readily: omissions and biases, for all residues or residue by residue.

A bias is added to the logits of the twenty amino acids before the temperature divides them: log-odds in nats at
temperature 1. An omitted letter has bias -inf. Biases of several rules add up; an omission wins over any of them.
"""

import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32
from reed_core.errors import InputError

from reed_protein.residues import AMINO_ACIDS
from reed_protein.selection import select_residues
from reed_protein.structure import Structure


def letters_of(text: str, option: str) -> str:
    """The amino acids that a text such as "CM" or "C,M" names, in upper case.

    Args:
        text: The text.
        option: Where it was written, for messages.

    Raises:
        InputError: If a letter is none of the twenty.
    """
    letters = re.sub(r"[,\s]+", "", text).upper()
    for letter in letters:
        if letter not in AMINO_ACIDS:
            raise InputError(f"{option} {text}: {letter} is none of {AMINO_ACIDS}")
    return letters


def pairs_of(text: str, option: str) -> dict[str, float]:
    """Pairs such as "A:-1,P:0.5" as nats by letter.

    Raises:
        InputError: If a letter is none of the twenty, or a number is not finite.
    """
    found: dict[str, float] = {}
    for part in (part for part in re.split(r"[,\s]+", text) if part):
        letter, colon, number = part.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not colon or letter.upper() not in AMINO_ACIDS or len(letter) != 1 or not np.isfinite(value):
            raise InputError(f"{option} {part}: expected a letter and a number, as in A:-1 or P:0.5")
        found[letter.upper()] = found.get(letter.upper(), 0.0) + value
    return found


def letter_bias(omit: str, bias: str) -> Float32[np.ndarray, "20"]:
    """What is added to the logits of the twenty amino acids, in nats.

    Args:
        omit: Letters never to be used, such as "CM".
        bias: Pairs such as "A:-1,P:0.5"; log-odds in nats at temperature 1.

    Raises:
        InputError: If a letter is unknown, a pair is malformed, or nothing is left.
    """
    added = np.zeros(len(AMINO_ACIDS), dtype=np.float32)
    for letter, value in pairs_of(bias, "--bias").items():
        added[AMINO_ACIDS.index(letter)] += value
    for letter in letters_of(omit, "--omit"):
        added[AMINO_ACIDS.index(letter)] = -np.inf
    if np.isneginf(added).all():
        raise InputError("--omit leaves no amino acid; omit fewer")
    return added


def residue_bias(
    structure: Structure, omit: Mapping[str, str], bias: Mapping[str, Mapping[str, float]]
) -> Float32[np.ndarray, "l 20"]:
    """What is added at each residue.

    Args:
        structure: The structure.
        omit: Letters never to be used, by residue, range or chain (`A52`, `A10-20`, `B`).
        bias: Nats by letter, by residue, range or chain.

    Raises:
        InputError: If a key names no residue of the structure, or a letter is unknown.
    """
    added = np.zeros((len(structure), len(AMINO_ACIDS)), dtype=np.float32)
    for where, pairs in bias.items():
        rows = select_residues(structure, where)
        for letter, value in pairs.items():
            added[rows, AMINO_ACIDS.index(letter)] += value
    for where, letters in omit.items():
        for letter in letters_of(letters, f"omit at {where}:"):
            added[select_residues(structure, where), AMINO_ACIDS.index(letter)] = -np.inf
    return added
