"""Controls as a person gives them; contradictions as one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_complexes import complex_of
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.controls import Controls, read_temperatures
from reed_protein.design import Designer
from reed_protein.known_sequence import fitted, read_sequence
from reed_protein.letter_rules import residue_bias
from reed_protein.network import InverseFolding
from reed_protein.residue_table import read_bias, read_omit
from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure


def dimer() -> Structure:
    return complex_of({"A": range(1, 11), "B": range(1, 11)}, letters="ACDEFGHIKL")


CLASHES = [
    ({"design": "A", "fix": "B"}, "design and fix were both given"),
    ({"sequence": "X" * 10 + "/" + "X" * 10, "design": "A"}, "design and sequence were both given"),
    ({"fix": "A,B"}, "no residue"),
    ({"sequence": "A" * 10 + "/" + "A" * 10}, "no residue of complex is designed"),
    ({"sequence": "X" * 20}, "20 letters, complex has residues A 10, B 10"),
    ({"sequence": "X" * 9 + "/" + "X" * 11}, "9 \\+ 11 letters"),
    ({"omit": AMINO_ACIDS}, "omit fewer"),
    ({"omit": "ACDEFGHIKL", "residue_omit": {"A5": "MNPQRSTVWY"}}, "no amino acid is left at A5"),
    ({"tie": ["A1,B2"], "residue_omit": {"A1": "ACDEFGHIKL", "B2": "MNPQRSTVWY"}}, "no amino acid is left at A1, B2"),
    ({"residue_omit": {"Z9": "A"}}, "Z9"),
    ({"residue_omit": {"A1": "B"}}, "B is none of"),
    ({"residue_bias": {"A99": {"A": 1.0}}}, "A99"),
    ({"symmetry": ["A,B"], "design": "A"}, "every designed residue of complex is tied to one that stays"),
    ({"tie": ["A1,B1,B2"], "design": "A"}, "A1 is tied to B1 \\(A\\) and B2 \\(C\\), which stay and differ"),
    ({"tie": ["A1,B2"], "design": "A", "omit": "C"}, "C is omitted there"),
    ({"at_most": ",".join(f"{a}:0" for a in AMINO_ACIDS)}, "--at-most leaves no letter"),
    ({"at_most": "A:2", "residue_omit": {"A1-3": AMINO_ACIDS[1:]}}, "--at-most leaves no letter"),
    ({"at_most": "K:0", "tie": ["A9,B9"], "fix": "A9"}, "ties give 1 of them K"),
    ({"temperature": ()}, "temperature"),
    ({"temperature": (0.1, 0.1)}, "temperature"),
    ({"temperature": (0.1, -1.0)}, "temperature is -1.0"),
    ({"diverse": -1.0}, "diverse"),
    ({"tie": "A1,B1"}, "lists of texts"),
    ({"bias": np.zeros(19)}, "expected \\[20\\] or \\[L, 20\\]"),
    ({"bias": np.zeros((7, 20))}, "7 rows for 20 residues"),
    ({"bias": np.full(20, np.inf)}, "finite numbers or -inf"),
]


@pytest.mark.parametrize(("asked", "words"), CLASHES, ids=[words[:30] for _, words in CLASHES])
def test_wishes_that_contradict_are_one_clear_line(asked: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Controls(**asked).plan(dimer())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_unknown_control_is_refused(network: InverseFolding) -> None:
    with pytest.raises(TypeError, match="temprature"):
        Designer(network).design(helix(12), temprature=0.1)


def test_controls_and_keywords_say_the_same(network: InverseFolding) -> None:
    designer, structure = Designer(network), dimer()
    controls = Controls(num=2, temperature=1.0, fix="A1-3", omit="C", bias="A:-1", at_most="L:10%")
    one = designer.design(structure, controls)
    other = designer.design(structure, num=2, temperature=1.0, fix="A1-3", omit="C", bias="A:-1", at_most="L:10%")
    assert one == other
    assert designer.design(structure, controls, seed=3) != one


def test_a_fixed_residue_lends_its_letter_to_those_tied_to_it(network: InverseFolding) -> None:
    structure = dimer()
    plan = Controls(symmetry=["A,B"], fix="A2-3").plan(structure)
    assert any("2 designed residues take the letter of one that stays" in note for note in plan.notes)
    for design in Designer(network).design(structure, num=3, temperature=2.0, symmetry=["A,B"], fix="A2-3"):
        assert design.sequence[1:3] == design.sequence[11:13] == "CD"
        assert design.sequence[:10] == design.sequence[10:]


def test_partly_known_sequences_are_filled_in(network: InverseFolding, tmp_path: Path) -> None:
    structure = dimer()
    given = "WWWXXXXXXX:XXXXXXXXYY"
    fasta = tmp_path / "given.fa"
    fasta.write_text(f">one\n{given[:10]}\n>two\n{given[11:]}\n")
    assert read_sequence(str(fasta)).replace("/", ":") == given
    assert read_sequence("www xxx\nxxxx:XXXXXXXXYY") == given
    for design in Designer(network).design(structure, num=2, temperature=1.0, sequence=given):
        assert design.sequence.startswith("WWW")
        assert design.sequence.endswith("YY")
        assert "X" not in design.sequence
        drawn = [(a, b) for a, b in zip(design.sequence, structure.sequence, strict=True)][3:18]
        assert design.recovery == pytest.approx(np.mean([a == b for a, b in drawn]))
    plan = Controls(sequence=given).plan(structure)
    assert plan.designed.tolist() == [False] * 3 + [True] * 15 + [False] * 2
    assert plan.notes[0] == "5 letters are given, 5 of them not the structure's"
    with pytest.raises(InputError, match="neither a FASTA file nor a sequence"):
        read_sequence(str(tmp_path / "absent.fa"))
    with pytest.raises(InputError, match="letter 'B'"):
        fitted(helix(3), "ABX")


def test_temperatures_are_one_or_several() -> None:
    assert read_temperatures("0.1, 0.3") == (0.1, 0.3)
    assert Controls(temperature=0.2).temperatures == (0.2,)
    with pytest.raises(InputError, match="temperature"):
        read_temperatures("warm")


def test_rules_of_single_residues_from_json_and_csv(tmp_path: Path) -> None:
    structure = dimer()
    files = {
        "omit.json": json.dumps({"A2": "CM", "B1-2": "p", "B": "W"}),
        "omit.csv": "residue,letters\nA2,C\nA2,M\nB1-2,p\n\nB,W\n",
        "bias.json": json.dumps({"A2": {"A": -1, "P": 0.5}, "B": {"A": 2}}),
        "bias.csv": "letter, bias ,residue\nA,-1,A2\nP,0.5,A2\nA,2,B\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    expected = np.zeros((20, 20), dtype=np.float32)
    expected[1, AMINO_ACIDS.index("A")], expected[1, AMINO_ACIDS.index("P")] = -1, 0.5
    expected[10:, AMINO_ACIDS.index("A")] = 2
    for name in ("bias.json", "bias.csv"):
        np.testing.assert_array_equal(residue_bias(structure, {}, read_bias(tmp_path / name)), expected)
    for name in ("omit.json", "omit.csv"):
        added = residue_bias(structure, read_omit(tmp_path / name), {})
        forbidden = {(structure.residue_ids[i], AMINO_ACIDS[j]) for i, j in np.argwhere(np.isneginf(added)).tolist()}
        assert forbidden == {
            ("A2", "C"),
            ("A2", "M"),
            ("B1", "P"),
            ("B2", "P"),
            *((f"B{n}", "W") for n in range(1, 11)),
        }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"A1": "C"', "not whole JSON"),
        ('["A1"]', "holds a list"),
        ('{"A1": "C", "A1": "D"}', "twice"),
        ('{"A1": 5}', "expected"),
        ('{"A1": "B"}', "none of"),
        ('{"A1": {"A": "x"}}', "expected"),
        ('{"A1": {"A": NaN}}', "expected"),
        ('{"A1": {"AC": 1}}', "expected"),
        ("residue,letter\nA1,C\n", "expected the columns"),
        ("residue,letters\nA1\n", "row 2"),
        ("residue,letter,bias\nA1,C\n", "row 2"),
        ("residue,letter,bias\nA1,C,inf\n", "row 2"),
        ("", "empty"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text(text)
    messages = []
    for read in (read_omit, read_bias):
        try:
            read(path)
        except InputError as error:
            messages.append(str(error))
    assert any(words in message for message in messages)
    assert all("\n" not in message and "table" in message for message in messages)
