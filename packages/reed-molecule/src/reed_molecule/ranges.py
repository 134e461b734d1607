"""Numbers of atoms as written on a command line: 18, or 15-20."""

from reed_core.errors import InputError

from reed_molecule.formula import MOST_ATOMS
from reed_molecule.generate import Sizes


def read_sizes(text: str, option: str) -> Sizes:
    """A number of atoms, or a range with both ends.

    Raises:
        InputError: If it is written otherwise, or out of range.
    """
    ends = [end.strip() for end in text.split("-")]
    if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) < 7 for end in ends):
        raise InputError(f"{option} {text[:40]}: expected a number of atoms, such as 18 or 15-20")
    low, high = int(ends[0]), int(ends[-1])
    if not 1 <= low <= high <= MOST_ATOMS:
        raise InputError(f"{option} {text[:40]}: expected growing numbers from 1 to {MOST_ATOMS}")
    return Sizes.between(low, high)
