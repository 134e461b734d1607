r"""Ties: residues that are to be one letter, written by a person, checked against a structure.

Tied positions i of a set s are unmasked together and share one draw of the weighted mean of their logits:

    l_s(a) = sum_i w_i l_i(a) / sum_i |w_i| + sum_i |w_i| b_i(a) / sum_i |w_i|,     a ~ softmax(l_s / temperature)

with l_i the logits of the network, b_i the biases and w_i the weights (1 unless said). A negative weight asks for what
its position does not want: the letters are drawn away from it. A letter omitted at one position is omitted at all. A
position that is not designed lends its letter to the designed ones tied to it. The reported score is that of the whole
sequence under the model, ties aside.

    A1-10,B1-10         position by position: A1 with B1, A2 with B2 ...; as many residues in each part
    A1:1.0,B1:0.5       weights behind a colon
    A,B,C               symmetry: chains paired by author number and insertion code
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from reed_core.errors import InputError

from reed_protein.reader_notes import listed
from reed_protein.selection import names_residues, residues_of
from reed_protein.structure import Structure

Key = tuple[int, str]


class Tie(NamedTuple):
    """Residues that share one draw: their places in the structure, and their weights."""

    members: tuple[int, ...]
    weights: tuple[float, ...]


class Ties(NamedTuple):
    """Disjoint ties, and what a person should know of how they were made."""

    ties: tuple[Tie, ...]
    notes: tuple[str, ...]


def read_ties(structure: Structure, tie: Sequence[str], symmetry: Sequence[str]) -> Ties:
    """The ties that a person asked for.

    Args:
        structure: The structure.
        tie: Texts such as "A1-10,B1-10" or "A1:1.0,B1:0.5".
        symmetry: Texts such as "A,B,C".

    Raises:
        InputError: If a part names nothing, parts differ in length, a residue is tied twice, or weights are no weights.
    """
    ties: list[Tie] = []
    notes: list[str] = []
    for text in tie:
        ties += _by_position(structure, text)
    for text in symmetry:
        made, remarks = _by_number(structure, text)
        ties += made
        notes += remarks
    counts = Counter(place for one in ties for place in one.members)
    twice = next((place for place, count in counts.items() if count > 1), None)
    if twice is not None:
        name = structure.residue_ids[twice]
        raise InputError(f"{name} is tied twice; name all residues that share its letter in one tie, as in A1,B1,C1")
    return Ties(tuple(ties), tuple(notes))


def _by_position(structure: Structure, text: str) -> list[Tie]:
    parts = [_weighted(structure, part, "--tie") for part in re.split(r"[,\s]+", text) if part]
    if len(parts) < 2:
        raise InputError(f"--tie {text}: expected two parts or more, as in A1-10,B1-10")
    columns = [residues_of(structure, name) for name, _ in parts]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(f"{name} {len(column)}" for (name, _), column in zip(parts, columns, strict=True))
        raise InputError(
            f"--tie {text} is tied position by position, but its parts have different numbers of residues ({sizes}); "
            "give ranges of one length, or tie whole chains by number with --symmetry"
        )
    weights = tuple(weight for _, weight in parts)
    return [Tie(members, weights) for members in zip(*columns, strict=True)]


def _by_number(structure: Structure, text: str) -> tuple[list[Tie], list[str]]:
    """Chains paired by author number and insertion code, a chain numbered otherwise shifted by a constant."""
    parts = [_weighted(structure, part, "--symmetry") for part in re.split(r"[,\s]+", text) if part]
    chains, weights = [name for name, _ in parts], [weight for _, weight in parts]
    absent = [name for name in chains if name not in structure.chains]
    if absent or len(chains) < 2 or len(set(chains)) < len(chains):
        there = ", ".join(structure.chains)
        raise InputError(f"--symmetry {text}: expected two chains or more of {structure.name}, which has {there}")
    numbered = [_numbered(structure, chain) for chain in chains]
    notes = []
    for index in range(1, len(chains)):
        shift = _shift(structure, numbered[0], numbered[index])
        if shift:
            numbered[index] = {(number - shift, code): place for (number, code), place in numbered[index].items()}
            first, other = (structure.residue_ids[next(iter(part.values()))] for part in (numbered[0], numbered[index]))
            notes.append(
                f"chain {chains[index]} (from {other}) is numbered {abs(shift)} {'above' if shift > 0 else 'below'} "
                f"chain {chains[0]} (from {first}): paired with that shift"
            )
    common = [key for key in numbered[0] if all(key in other for other in numbered[1:])]
    if not common:
        raise InputError(
            f"--symmetry {text}: these chains of {structure.name} have no residue number in common; "
            "tie ranges with --tie, as in A1-10,B101-110"
        )
    kept = set(common)
    left = [structure.residue_ids[place] for part in numbered for key, place in part.items() if key not in kept]
    if left:
        notes.append(f"not in every chain of {text}, so not tied: {listed(left)}")
    return [Tie(tuple(part[key] for part in numbered), tuple(weights)) for key in common], notes


def _numbered(structure: Structure, chain: str) -> dict[Key, int]:
    places = residues_of(structure, chain)
    return {(int(structure.residue_numbers[place]), structure.insertion_codes[place]): place for place in places}


def _shift(structure: Structure, first: dict[Key, int], other: dict[Key, int]) -> int:
    """By how much the numbers of a chain lie above those of the first one; 0 unless another shift fits far better.

    A shift fits as well as it brings equal letters together. Another than 0 is taken if it fits twice as well and for
    half of the shorter chain: copies of one molecule do, other pairs are left as the author numbered them.
    """
    fits: Counter[int] = Counter()
    letters = structure.sequence
    codes = {code for _, code in (*first, *other)}
    for code in codes:
        for letter in set(letters):
            here = [n for (n, c), place in first.items() if c == code and letters[place] == letter]
            there = [n for (n, c), place in other.items() if c == code and letters[place] == letter]
            if here and there:
                gaps, counts = np.unique(np.subtract.outer(there, here), return_counts=True)
                fits.update(dict(zip(gaps.tolist(), counts.tolist(), strict=True)))
    best = max(fits, key=lambda gap: (fits[gap], -abs(gap)), default=0)
    worth_it = fits[best] >= 2 * fits[0] and 2 * fits[best] >= min(len(first), len(other))
    return best if worth_it else 0


def _weighted(structure: Structure, part: str, option: str) -> tuple[str, float]:
    """What a part names, and its weight. A part that as a whole names residues has none (`A1:52` of chain A1)."""
    name, colon, number = part.rpartition(":")
    if not colon or names_residues(structure, part):
        return part, 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = float("nan")
    if not np.isfinite(weight) or weight == 0:
        raise InputError(f"{option} {part}: '{number}' is no weight; expected a number other than 0, as in A1:0.5")
    return name, weight
