"""The alphabet and the names of residues."""

import pytest
from reed_core.errors import InputError
from reed_protein import residues


def test_tokens_and_letters_are_inverse() -> None:
    assert residues.tokens(residues.ALPHABET).tolist() == list(range(21))
    assert residues.letters(residues.tokens("WYXAC")) == "WYXAC"
    assert residues.ALPHABET == "ACDEFGHIKLMNPQRSTVWYX"
    for letter in residues.AMINO_ACIDS:
        assert residues.one_letter(residues.three_letter(letter)) == letter
    for name, letter in {"HYP": "P", "CSO": "C", "PTR": "Y", "TPO": "T", "GLH": "E", "ASH": "D", "SEC": "C"}.items():
        assert residues.one_letter(name) == letter
    assert residues.one_letter("HOH") is None
    assert residues.one_letter("UNK") == "X"


def test_ids_part_the_chain_from_the_number_where_both_are_digits() -> None:
    assert residues.residue_id("A", 52) == "A52"
    assert residues.residue_id("H", 100, "A") == "H100A"
    assert residues.residue_id("AA", -3) == "AA-3"
    assert residues.residue_id("A1", 52) == "A1:52"
    places = [(chain, number) for chain in ("A", "A1", "A15", "1", "15", "A-") for number in (-2, 2, 52, 152)]
    assert len({residues.residue_id(*place) for place in places}) == len(places)


def test_letters_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(InputError, match="letter 'B' at position 3"):
        residues.tokens("ACB")
    with pytest.raises(InputError, match="'z' is not a residue letter"):
        residues.three_letter("z")
