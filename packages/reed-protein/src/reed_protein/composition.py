"""Limits on composition: `K:10%,E:8%` (share of the designed residues, rounded down) or `W:1` (residues)."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from reed_core.errors import InputError

from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure


def read_limits(text: str) -> dict[str, str]:
    """The limit of each letter as it was written, checked.

    Raises:
        InputError: If a letter is unknown or limited twice, or its limit is no percentage and no whole number.
    """
    found: dict[str, str] = {}
    for part in (part for part in re.split(r"[,\s]+", text) if part):
        letter, _, limit = part.upper().partition(":")
        percent = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)%", limit)
        if letter not in AMINO_ACIDS or len(letter) != 1 or not (re.fullmatch("[0-9]{1,9}", limit) or percent):
            raise InputError(f"--at-most {part}: expected a letter and a limit, as in K:10% or W:1")
        if percent and float(percent[1]) > 100:
            raise InputError(f"--at-most {part}: a share is at most 100%")
        if letter in found:
            raise InputError(f"--at-most {text}: {letter} is limited twice; keep one")
        found[letter] = limit
    return found


def limits(
    structure: Structure, written: Mapping[str, str], designed: np.ndarray, lent: Sequence[int] | np.ndarray, known: str
) -> dict[int, int]:
    """How many of the residues still to be drawn may take each limited letter, by its index.

    Args:
        structure: The structure.
        written: What `read_limits` read.
        designed: Residues to be designed, [L].
        lent: Those of them whose letter a tie decides; they count.
        known: L letters.

    Raises:
        InputError: If the letters that ties decide exceed a limit by themselves.
    """
    total = int(np.sum(designed))
    left = {}
    for letter, limit in written.items():
        most = math.floor(float(limit[:-1]) / 100 * total + 1e-9) if limit.endswith("%") else int(limit)
        used = sum(known[place] == letter for place in lent)
        if used > most:
            raise InputError(
                f"--at-most {letter}:{limit} allows {most} of {total} designed residues of {structure.name}, "
                f"but ties give {used} of them {letter}; raise the limit"
            )
        left[AMINO_ACIDS.index(letter)] = most - used
    return left
