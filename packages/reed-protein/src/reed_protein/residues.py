"""Names of residues: the alphabet, three-letter codes, modified residues and their parents, author ids.

The alphabet is `ACDEFGHIKLMNPQRSTVWYX` (the order of ProteinMPNN): twenty amino acids and X, an amino acid that is none
of them. A token is an index into that string; what a model adds behind it (a mask) is the model's business.

A modified residue stands for its parent (MSE -> M, SEP -> S). Three tables answer, the first that knows the name wins:
the protonation and force-field names below (they come first because GLH and HSE also name rare components of the PDB),
the twenty, and Biopython's `protein_letters_3to1_extended`, the parents in the PDB's component dictionary.
"""

import re
from functools import cache

import numpy as np
from jaxtyping import Int64
from reed_core.errors import InputError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = "X"
ALPHABET = AMINO_ACIDS + UNKNOWN

THREE_LETTER = {
    "A": "ALA",
    "C": "CYS",
    "D": "ASP",
    "E": "GLU",
    "F": "PHE",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "K": "LYS",
    "L": "LEU",
    "M": "MET",
    "N": "ASN",
    "P": "PRO",
    "Q": "GLN",
    "R": "ARG",
    "S": "SER",
    "T": "THR",
    "V": "VAL",
    "W": "TRP",
    "Y": "TYR",
    "X": "UNK",
}
STANDARD = {name: letter for letter, name in THREE_LETTER.items() if letter != UNKNOWN}

# Names that Amber, CHARMM, GROMACS and Rosetta write for protonation states and disulfides, and two rare amino acids
# whose parents Biopython's table does not carry.
_FORCE_FIELD = {
    "ASH": "D",
    "ASPH": "D",
    "CYM": "C",
    "CYX": "C",
    "CYS2": "C",
    "GLH": "E",
    "GLUH": "E",
    "HID": "H",
    "HIE": "H",
    "HIP": "H",
    "HSD": "H",
    "HSE": "H",
    "HSP": "H",
    "LYN": "K",
    "LSN": "K",
    "TYM": "Y",
    "ARN": "R",
    "SEC": "C",
    "PYL": "K",
}
# Amino acids that the file itself leaves open.
_AMBIGUOUS = {"UNK", "ASX", "GLX", "XLE", "XAA"}

WATERS = frozenset({"HOH", "WAT", "DOD", "H2O", "SOL", "TIP", "TIP3", "TP3", "SPC"})
NUCLEOTIDES = frozenset({"A", "C", "G", "U", "I", "N", "T", "DA", "DC", "DG", "DT", "DU", "DI", "DN"})


@cache
def _extended() -> dict[str, str]:
    from Bio.Data.PDBData import protein_letters_3to1_extended

    return {name.strip(): letter for name, letter in protein_letters_3to1_extended.items()}


def one_letter(name: str) -> str | None:
    """The letter of a residue name, through its parent if it is modified.

    Args:
        name: A three-letter code as files write it (`MSE`).

    Returns:
        One of the 20 letters; X for names that mean "some amino acid"; None if the name is no known amino acid.
    """
    name = name.strip().upper()
    if name in _AMBIGUOUS:
        return UNKNOWN
    return _FORCE_FIELD.get(name) or STANDARD.get(name) or _extended().get(name)


def is_standard(name: str) -> bool:
    """Whether a name is one of the twenty three-letter codes."""
    return name.strip().upper() in STANDARD


def three_letter(letter: str) -> str:
    """The residue name of a letter of the alphabet; UNK for X.

    Raises:
        InputError: If the letter is not in the alphabet.
    """
    try:
        return THREE_LETTER[letter]
    except KeyError:
        raise InputError(f"'{letter}' is not a residue letter; use {ALPHABET}") from None


def tokens(sequence: str) -> Int64[np.ndarray, " l"]:
    """A sequence as indices into `ALPHABET`.

    Raises:
        InputError: If a letter is not in the alphabet; it names the letter and its position from 1.
    """
    indices = np.array([ALPHABET.find(letter) for letter in sequence], dtype=np.int64)
    if len(indices) and indices.min() < 0:
        at = int(np.argmin(indices))
        raise InputError(f"letter '{sequence[at]}' at position {at + 1} of the sequence is none of {ALPHABET}")
    return indices


def letters(tokens: Int64[np.ndarray, " l"]) -> str:
    """The sequence of indices into `ALPHABET`; the inverse of `tokens`."""
    return "".join(ALPHABET[token] for token in tokens)


def residue_id(chain: str, number: int, insertion: str = "") -> str:
    """The author's id of a residue as a person writes it: `A52`, `H100A`, `AA52`, `A-3`.

    A chain id that ends in a digit (or a minus) is set apart by a colon, `A1:52`, so that no two residues share an id.

    Args:
        chain: Author chain id, one character or more.
        number: Author residue number.
        insertion: Insertion code, a letter, or the empty string.
    """
    separator = ":" if re.search(r"[0-9-]$", chain) else ""
    return f"{chain}{separator}{number}{insertion}"
