import dataclasses

import numpy as np
import pytest
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.design import Designer
from reed_protein.letter_rules import letter_bias
from reed_protein.network import InverseFolding
from reed_protein.residues import AMINO_ACIDS
from reed_protein.selection import designed_residues, select_residues
from reed_protein.structure import Structure


def antibody() -> Structure:
    """Chain H with an insertion code and a negative number, chain L with a gap."""
    made = helix(10)
    ids = ("H-1", "H1", "H100", "H100A", "H101", "L1", "L2", "L5", "L6", "L7")
    numbers = np.array([-1, 1, 100, 100, 101, 1, 2, 5, 6, 7], dtype=np.int32)
    chains = ("H",) * 5 + ("L",) * 5
    return dataclasses.replace(made, residue_ids=ids, residue_numbers=numbers, chain_ids=chains)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("H", [0, 1, 2, 3, 4]),
        ("H100A", [3]),
        ("H100", [2]),
        ("H100-101", [2, 3, 4]),
        ("H100A-101", [3, 4]),
        ("H-1-1", [0, 1]),
        ("L2-6", [6, 7, 8]),
        ("H-1, L7", [0, 9]),
        ("H L1", [0, 1, 2, 3, 4, 5]),
        ("L1,L1-2", [5, 6]),
    ],
)
def test_a_text_names_residues_by_author_id(text: str, expected: list[int]) -> None:
    assert select_residues(antibody(), text).nonzero()[0].tolist() == expected


@pytest.mark.parametrize("text", ["", " , ", "K", "H99", "H3-101", "L6-2", "100", "H100B", "L1-2-3", "h1"])
def test_what_names_nothing_is_refused_never_ignored(text: str) -> None:
    with pytest.raises(InputError) as caught:
        select_residues(antibody(), text)
    assert "\n" not in str(caught.value)


def test_chains_that_end_in_a_digit_are_set_apart_by_a_colon() -> None:
    made = helix(4)
    ids = ("A1:1", "A1:2", "A:3", "A:4")
    structure = dataclasses.replace(made, residue_ids=("A1:1", "A1:2", "A3", "A4"), chain_ids=("A1", "A1", "A", "A"))
    assert len(ids) == 4
    assert select_residues(structure, "A1:1-2").tolist() == [True, True, False, False]
    assert select_residues(structure, "A3-4").tolist() == [False, False, True, True]
    assert select_residues(structure, "A1").tolist() == [True, True, False, False]


def test_design_and_fix_are_complements_and_exclude_each_other() -> None:
    structure = antibody()
    np.testing.assert_array_equal(designed_residues(structure, "L", None), ~designed_residues(structure, None, "L"))
    assert designed_residues(structure, None, None).all()
    with pytest.raises(InputError, match="both"):
        designed_residues(structure, "H", "L")
    with pytest.raises(InputError, match="no residue"):
        designed_residues(structure, None, "H,L")


def test_omit_and_bias_become_logits() -> None:
    added = letter_bias("cM", "A:-1, P:0.5")
    assert np.isneginf(added[[AMINO_ACIDS.index("C"), AMINO_ACIDS.index("M")]]).all()
    assert added[AMINO_ACIDS.index("A")] == -1
    assert added[AMINO_ACIDS.index("P")] == 0.5
    assert np.count_nonzero(added) == 4


@pytest.mark.parametrize(
    ("omit", "bias"), [("B", ""), ("", "A"), ("", "A:x"), ("", "X:1"), ("", "AA:1"), ("", "A:inf"), (AMINO_ACIDS, "")]
)
def test_bad_letters_are_one_line(omit: str, bias: str) -> None:
    with pytest.raises(InputError):
        letter_bias(omit, bias)


def test_omitted_letters_never_appear_and_bias_shifts_composition(network: InverseFolding) -> None:
    designer = Designer(network)
    structure = helix(40)
    plain = "".join(design.sequence for design in designer.design(structure, num=4, temperature=1.0))
    common = max(AMINO_ACIDS, key=plain.count)
    rare = min(AMINO_ACIDS, key=plain.count)
    without = designer.design(structure, num=4, temperature=1.0, bias=letter_bias(common, ""))
    assert all(common not in design.sequence for design in without)
    towards = designer.design(structure, num=4, temperature=1.0, bias=letter_bias("", f"{rare}:50"))
    assert {design.sequence for design in towards} == {rare * 40}


def test_a_fixed_residue_keeps_its_letter_even_if_that_letter_is_omitted(network: InverseFolding) -> None:
    structure = helix(20)
    designed = designed_residues(structure, None, "A3")
    kept = structure.sequence[2]
    design = Designer(network).design(structure, designed=designed, bias=letter_bias(kept, ""), temperature=1.0)[0]
    assert design.sequence[2] == kept
    assert kept not in design.sequence[:2] + design.sequence[3:]
