"""Which residues: what a person writes on the command line, checked against a structure.

    A            every residue of chain A
    A52  H100A   one residue, by its author id (insertion code included)
    A10-20       from A10 to A20 in the order of the file; both must be there

Parts are separated by commas or spaces. Nothing is ignored: a part that names no residue of the structure is an error.
"""

import re

import numpy as np
from jaxtyping import Bool
from reed_core.errors import InputError

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
    for part in parts:
        chosen[residues_of(structure, part)] = True
    return chosen


def residues_of(structure: Structure, part: str) -> list[int]:
    """The places of the residues that one part names, in the order of the file.

    Args:
        structure: The structure.
        part: A chain, a residue or a range.

    Raises:
        InputError: If it names nothing.
    """
    if part in structure.chains:
        return [place for place, chain in enumerate(structure.chain_ids) if chain == part]
    if part in structure.place_of:
        return [structure.place_of[part]]
    return _range(structure, part)


def names_residues(structure: Structure, part: str) -> bool:
    """Whether one part names residues of the structure."""
    try:
        residues_of(structure, part)
    except InputError:
        return False
    return True


def _range(structure: Structure, part: str) -> list[int]:
    index = structure.place_of
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
            return list(range(first, last + 1))
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
