"""Which residues, which letters: what a person writes on the command line, checked against a structure.

    A            every residue of chain A
    A52  H100A   one residue, by its author id (insertion code included)
    A10-20       from A10 to A20 in the order of the file; both must be there

Parts are separated by commas or spaces. Nothing is ignored: a part that names no residue of the structure is an error.
"""

import re

import numpy as np
from jaxtyping import Bool, Float32
from reed_core.errors import InputError

from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure

_NUMBER = r"-?[0-9]+[A-Za-z]?"
_RANGE = re.compile(rf"({_NUMBER})-({_NUMBER})")


def select_residues(structure: Structure, text: str) -> Bool[np.ndarray, " l"]:
    """The residues that a text names.

    Args:
        structure: The structure.
        text: Chains, residues and ranges, as above.

    Returns:
        True for each residue that is named.

    Raises:
        InputError: If a part names nothing, or the text is empty.
    """
    chosen = np.zeros(len(structure), dtype=bool)
    parts = [part for part in re.split(r"[,\s]+", text) if part]
    if not parts:
        raise InputError(f"'{text}' names no residues; write chains, residues or ranges, as in A, B52 or B10-20")
    index = {residue: position for position, residue in enumerate(structure.residue_ids)}
    for part in parts:
        if part in structure.chains:
            chosen |= np.array([chain == part for chain in structure.chain_ids])
        elif part in index:
            chosen[index[part]] = True
        else:
            first, last = _range(structure, part, index)
            chosen[first : last + 1] = True
    return chosen


def _range(structure: Structure, part: str, index: dict[str, int]) -> tuple[int, int]:
    for chain in sorted(structure.chains, key=len, reverse=True):
        for stem in (f"{chain}:", chain):
            match = _RANGE.fullmatch(part.removeprefix(stem)) if part.startswith(stem) else None
            if match is None:
                continue
            ends = [f"{stem}{number}" for number in match.groups()]
            missing = [end for end in ends if end not in index]
            if missing:
                raise InputError(f"'{part}': no residue {' and no '.join(missing)}; {_extent(structure, chain)}")
            first, last = (index[end] for end in ends)
            if first > last:
                raise InputError(f"'{part}' runs backwards; write {stem}{match[2]}-{match[1]}")
            return first, last
    chains = "; ".join(_extent(structure, chain) for chain in structure.chains)
    raise InputError(f"'{part}' is no chain, residue or range of {structure.name}; {chains}")


def _extent(structure: Structure, chain: str) -> str:
    ids = [residue for residue, of in zip(structure.residue_ids, structure.chain_ids, strict=True) if of == chain]
    return f"chain {chain} has {len(ids)} residues, {ids[0]} to {ids[-1]}"


def designed_residues(structure: Structure, design: str | None, fix: str | None) -> Bool[np.ndarray, " l"]:
    """The residues to be designed: those named by `design`, or all but those named by `fix`, or all.

    Raises:
        InputError: If both are given, a part names nothing, or nothing is left to design.
    """
    if design is not None and fix is not None:
        raise InputError("--design and --fix were both given; use one: --design names what changes, --fix what stays")
    if design is not None:
        return select_residues(structure, design)
    if fix is None:
        return np.ones(len(structure), dtype=bool)
    free = ~select_residues(structure, fix)
    if not free.any():
        raise InputError(f"--fix {fix} leaves no residue of {structure.name} to design; fix fewer")
    return free


def letter_bias(omit: str, bias: str) -> Float32[np.ndarray, "20"]:
    """What is added to the logits of the twenty amino acids, in nats.

    Args:
        omit: Letters never to be used, such as "CM".
        bias: Pairs such as "A:-1,P:0.5"; log-odds in nats at temperature 1.

    Raises:
        InputError: If a letter is unknown, a pair is malformed, or nothing is left.
    """
    added = np.zeros(len(AMINO_ACIDS), dtype=np.float32)
    for part in (part for part in re.split(r"[,\s]+", bias) if part):
        letter, colon, number = part.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not colon or letter.upper() not in AMINO_ACIDS or len(letter) != 1 or not np.isfinite(value):
            raise InputError(f"--bias {part}: expected a letter and a number, as in A:-1 or P:0.5")
        added[AMINO_ACIDS.index(letter.upper())] += value
    for letter in omit.replace(",", "").replace(" ", "").upper():
        if letter not in AMINO_ACIDS:
            raise InputError(f"--omit {omit}: {letter} is none of {AMINO_ACIDS}")
        added[AMINO_ACIDS.index(letter)] = -np.inf
    if np.isneginf(added).all():
        raise InputError("--omit leaves no amino acid; omit fewer")
    return added
