"""Sums of atoms as chemists write them: C7H10N2O. Hydrogens are counted like all other atoms. Imports no torch."""

import re
from collections import Counter

from reed_core.errors import InputError

from reed_molecule.vocabulary import Vocabulary

_PART = re.compile(r"([A-Z][a-z]?)([0-9]*)")
MOST_ATOMS = 1000


def read_formula(text: str, vocabulary: Vocabulary) -> list[int]:
    """The types of the atoms of a formula, in the order of the vocabulary.

    Args:
        text: Such as C7H10N2O; an element may stand more than once.
        vocabulary: The elements that may occur.

    Raises:
        InputError: If it is no formula, has an element that the vocabulary lacks, or no or too many atoms.
    """
    counts: Counter[str] = Counter()
    end = 0
    for part in _PART.finditer(text):
        if part.start() != end:
            break
        counts[part[1]] += int(part[2][:9] or 1)
        end = part.end()
    if not text or end != len(text):
        raise InputError(f"formula {text[:60]!r}: expected elements and numbers, such as C7H10N2O, without a charge")
    strange = [symbol for symbol in counts if symbol not in vocabulary.symbols]
    if strange:
        raise InputError(f"formula {text}: the model knows {' '.join(vocabulary.symbols)}, not {' '.join(strange)}")
    total = sum(counts.values())
    if not 1 <= total <= MOST_ATOMS:
        raise InputError(f"formula {text} has {total} atoms; expected 1 to {MOST_ATOMS}")
    return [type_ for type_, symbol in enumerate(vocabulary.symbols) for _ in range(counts[symbol])]
