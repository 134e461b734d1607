"""Ties and symmetry: what a person writes, and what becomes of it on a structure."""

import itertools

import pytest
from made_complexes import complex_of
from reed_core.errors import InputError
from reed_protein.structure import Structure
from reed_protein.ties import read_ties


def pairs(structure: Structure, tie: list[str] = [], symmetry: list[str] = []) -> list[tuple[str, ...]]:  # noqa: B006
    ties = read_ties(structure, tie, symmetry).ties
    return [tuple(structure.residue_ids[place] for place in tie.members) for tie in ties]


def test_ranges_are_tied_position_by_position() -> None:
    dimer = complex_of({"A": range(1, 11), "B": range(1, 11)})
    assert pairs(dimer, ["A1-3,B5-7"]) == [("A1", "B5"), ("A2", "B6"), ("A3", "B7")]
    assert pairs(dimer, ["A,B"]) == [(f"A{n}", f"B{n}") for n in range(1, 11)]
    assert pairs(dimer, ["A1,B1", "A4 B9 A5"]) == [("A1", "B1"), ("A4", "B9", "A5")]


def test_weights_stand_behind_a_colon_and_chains_that_end_in_a_digit_keep_theirs() -> None:
    dimer = complex_of({"A": range(1, 11), "B1": range(1, 11)})
    ties = read_ties(dimer, ["A1-2:1.0,B1:1-2:-0.5", "A5,B1:5"], []).ties
    assert [tie.weights for tie in ties] == [(1.0, -0.5), (1.0, -0.5), (1.0, 1.0)]
    assert dimer.residue_ids[ties[2].members[1]] == "B1:5"


@pytest.mark.parametrize(
    ("tie", "symmetry", "words"),
    [
        (["A1-3,B1-4"], [], "different numbers of residues"),
        (["A1"], [], "two parts or more"),
        (["A1,B99"], [], "B99"),
        (["A1:x,B1"], [], "no weight"),
        (["A1:0,B1"], [], "other than 0"),
        (["A1:nan,B1"], [], "no weight"),
        (["A1,B1", "B1,B2"], [], "B1 is tied twice"),
        (["A1,A1"], [], "A1 is tied twice"),
        (["A1,B1"], ["A,B"], "A1 is tied twice"),
        ([], ["A,Z"], "has A, B"),
        ([], ["A"], "two chains or more"),
        ([], ["A,A"], "two chains or more"),
    ],
)
def test_a_tie_that_cannot_be_is_one_line(tie: list[str], symmetry: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_ties(complex_of({"A": range(1, 11), "B": range(1, 11)}), tie, symmetry)
    assert "\n" not in str(caught.value)


def test_homo_oligomer_with_different_numbering_does_not_end_in_a_key_error() -> None:
    """LigandMPNN: chains numbered differently ended in KeyError 'A310'."""
    trimer = complex_of({"A": range(1, 21), "B": range(301, 321), "C": range(-5, 15)})
    assert pairs(trimer, symmetry=["A,B,C"]) == [(f"A{n}", f"B{n + 300}", f"C{n - 6}") for n in range(1, 21)]
    notes = read_ties(trimer, [], ["A,B,C"]).notes
    assert any("chain B (from B301) is numbered 300 above chain A" in note for note in notes)
    assert any("chain C (from C-5) is numbered 6 below chain A" in note for note in notes)


def test_homo_oligomer_with_different_numbering_and_no_sequence_is_paired_by_overlap() -> None:
    """A generated backbone is all glycine and numbered on through its chains."""
    dimer = complex_of({"A": range(1, 31), "B": range(31, 61)}, letters="G" * 30)
    assert pairs(dimer, symmetry=["A,B"]) == [(f"A{n}", f"B{n + 30}") for n in range(1, 31)]


def test_homo_oligomer_with_unequal_lengths_does_not_end_in_an_assertion_error() -> None:
    """ColabDesign: copies of unequal lengths ended in a bare AssertionError."""
    numbers = {"A": [*range(1, 21)], "B": [*range(1, 9), *range(12, 21)], "C": [*range(1, 15)]}
    trimer = complex_of(numbers)
    common = [n for n in range(1, 21) if all(n in of for of in numbers.values())]
    assert pairs(trimer, symmetry=["A,B,C"]) == [(f"A{n}", f"B{n}", f"C{n}") for n in common]
    (note,) = read_ties(trimer, [], ["A,B,C"]).notes
    assert note.startswith("not in every chain of A,B,C, so not tied: A9, A10, A11, A15")


def test_chains_that_are_no_copies_are_left_as_numbered() -> None:
    pair = complex_of({"A": range(1, 31), "B": range(1, 31)})
    other = complex_of({"A": range(1, 31)}, seed=5).sequence
    structure = complex_of({"A": range(1, 31), "B": range(1, 31)})
    mixed = Structure(
        "mixed", structure.coords, pair.sequence[:30] + other, pair.chain_ids, pair.residue_ids, pair.residue_numbers
    )
    assert pairs(mixed, symmetry=["A,B"]) == [(f"A{n}", f"B{n}") for n in range(1, 31)]


def test_chains_without_a_number_in_common_are_told() -> None:
    other = complex_of({"A": range(1, 31)}, seed=5).sequence
    pair = complex_of({"A": range(1, 31), "B": range(201, 231)})
    mixed = Structure(
        "mixed", pair.coords, pair.sequence[:30] + other, pair.chain_ids, pair.residue_ids, pair.residue_numbers
    )
    with pytest.raises(InputError, match="no residue number in common"):
        read_ties(mixed, [], ["A,B"])


def test_insertion_codes_are_paired_with_themselves() -> None:
    plain = complex_of({"H": range(1, 7), "K": range(1, 7)})
    ids = tuple(f"{chain}{number}" for chain, number in itertools.product("HK", ("1", "2", "2A", "2B", "3", "4")))
    numbers = plain.residue_numbers.copy()
    numbers[:] = [1, 2, 2, 2, 3, 4] * 2
    antibody = Structure("ab", plain.coords, plain.sequence, plain.chain_ids, ids, numbers)
    assert pairs(antibody, symmetry=["H,K"]) == [(f"H{n}", f"K{n}") for n in ("1", "2", "2A", "2B", "3", "4")]
