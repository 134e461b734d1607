"""What a score means, and that one sequence has one score; complaints about other tools' scores, each with its test."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_structures import helix
from reed_core.errors import InputError
from reed_protein import score as score_module
from reed_protein.design import Designer
from reed_protein.fasta import FastaRecord, join_chains, write_fasta
from reed_protein.given import GivenSequence, native, read_sequences, token_rows
from reed_protein.network import UNKNOWN_TOKEN, InverseFolding
from reed_protein.probabilities import backbone_log_probabilities, conditional_log_probabilities
from reed_protein.residues import residue_id, tokens
from reed_protein.score import any_order_nll, elbo_nll, one_shot_nll
from reed_protein.score_table import score_table
from reed_protein.structure import Structure
from reed_protein.tables import Table


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


def pair(first: int = 14, second: int = 9, ids: str = "BA") -> Structure:
    """Two chains, the later letter of the alphabet first in the file."""
    one, two = helix(first), helix(second, seed=1)
    chains = tuple(ids[0] * first + ids[1] * second)
    numbers = np.concatenate([one.residue_numbers, two.residue_numbers])
    return Structure(
        "pair",
        np.concatenate([one.coords, two.coords + 15.0]).astype(np.float32),
        one.sequence + two.sequence,
        chains,
        tuple(map(residue_id, chains, map(int, numbers))),
        numbers,
    )


def column(table: Table, name: str) -> list:
    return [row[table.columns.index(name)] for row in table.rows]


def everywhere(structure: Structure) -> np.ndarray:
    return np.ones(len(structure), dtype=bool)


def as_given(sequences: list[str]) -> list[GivenSequence]:
    return [GivenSequence("s", sequence) for sequence in sequences]


def test_complaint_same_sequence_same_score_whatever_seed_order_or_batch(
    designer: Designer, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = helix(30)
    designed = np.arange(30) >= 8
    designs = [
        design
        for seed, order, steps in itertools.product((0, 5), ("random", "confidence"), (3, 20))
        for design in designer.design(
            structure, num=2, seed=seed, order=order, steps=steps, temperature=1.0, designed=designed
        )
    ]
    given = as_given([design.sequence for design in designs])
    table = score_table(designer, structure, given, designed)
    np.testing.assert_allclose(column(table, "any_order"), [design.score for design in designs], atol=1e-5, rtol=0)
    asked = {"num": 2, "seed": 5, "order": "confidence", "steps": 20, "temperature": 1.0, "designed": designed}
    one_shot = designer.design(structure, score="one-shot", **asked)
    np.testing.assert_allclose(column(table, "one_shot")[-2:], [design.score for design in one_shot], atol=1e-5, rtol=0)
    assert [design.score for design in designer.design(structure, score="none", **asked)] == [None, None]
    assert {design.score_kind for design in one_shot} == {"one-shot"}
    for at_once in (30, 95):
        monkeypatch.setattr(score_module, "_AT_ONCE_CPU", at_once)
        again = score_table(designer, structure, given[::-1], designed)
        for kind in ("any_order", "elbo", "one_shot", "any_order_all", "elbo_all", "one_shot_all"):
            np.testing.assert_allclose(column(again, kind)[::-1], column(table, kind), atol=1e-5, rtol=0)


def test_complaint_meaning_and_sign_a_score_is_minus_the_log_of_a_probability(designer: Designer) -> None:
    """One designed residue: its any-order and its one-shot score are -log p(residue | everything else)."""
    structure = helix(20)
    designed = np.arange(20) == 6
    letters = "ACDEFGHIKLMNPQRSTVWY"
    given = as_given([structure.sequence[:6] + letter + structure.sequence[7:] for letter in letters])
    table = score_table(designer, structure, given, designed)
    row = torch.from_numpy(tokens(structure.sequence))
    log_p = conditional_log_probabilities(designer.network, designer.encode(structure), row)[6]
    np.testing.assert_allclose(column(table, "any_order"), -log_p.numpy(), atol=1e-5)
    np.testing.assert_allclose(column(table, "one_shot"), -log_p.numpy(), atol=1e-5)
    assert np.exp(-np.array(column(table, "any_order"))).sum() == pytest.approx(1.0, abs=1e-5)
    best = int(np.argmin(column(table, "any_order")))
    assert best == int(log_p.argmax()), "the lowest score is the most probable residue"
    assert column(table, "residues") == [1] * 20
    assert column(table, "residues_all") == [20] * 20
    assert "lower" in table.about["unit"]


def test_each_column_is_the_score_it_is_named_after(designer: Designer) -> None:
    structure = pair()
    designed = np.arange(len(structure)) % 3 > 0
    table = score_table(designer, structure, [native(structure)], designed)
    rows = torch.from_numpy(tokens(structure.sequence))[None]
    encoding = designer.encode(structure)
    for kind in (any_order_nll, elbo_nll, one_shot_nll):
        name = kind.__name__.removesuffix("_nll")
        some = kind(designer.network, encoding, rows, torch.from_numpy(designed)[None])
        every = kind(designer.network, encoding, rows, torch.ones_like(rows, dtype=torch.bool))
        assert column(table, name)[0] == pytest.approx(some.item(), abs=1e-6)
        assert column(table, f"{name}_all")[0] == pytest.approx(every.item(), abs=1e-6)
    log_p = backbone_log_probabilities(designer.network, encoding)
    assert column(table, "one_shot_all")[0] == pytest.approx(-log_p.gather(1, rows.T).mean().item(), abs=1e-5)
    assert column(table, "recovery") == [1.0]


def test_unknown_residues_are_seen_as_unknown_and_not_scored(designer: Designer) -> None:
    structure = helix(20)
    holed = "X" + structure.sequence[1:10] + "XX" + structure.sequence[12:]
    table = score_table(designer, structure, as_given([holed, "X" * 20]), everywhere(structure))
    rows = torch.from_numpy(tokens(holed))[None]
    known = rows < UNKNOWN_TOKEN
    assert column(table, "residues") == [17, 0]
    by_hand = one_shot_nll(designer.network, designer.encode(structure), rows, known).item()
    assert column(table, "one_shot")[0] == pytest.approx(by_hand, abs=1e-6)
    assert np.isnan(column(table, "any_order")[1]), "no residue is scored, so there is no score"
    assert column(table, "recovery") == [17 / 20, 0.0]
    blank = score_table(designer, replace(structure, sequence="X" * 20), as_given([holed]), everywhere(structure))
    assert column(blank, "recovery") == [None]


@pytest.mark.parametrize("separator", ["/", ":"])
def test_complaint_separator_and_chain_order_are_those_of_the_file(separator: str, tmp_path: Path) -> None:
    structure = pair(ids="BA")
    path = tmp_path / "in.fa"
    text = join_chains(structure.sequence, structure.chain_ids, separator)
    assert text == f"{structure.sequence[:14]}{separator}{structure.sequence[14:]}", (
        "chain B stands first, as in the file"
    )
    write_fasta(path, [FastaRecord("x", {"temperature": 0.1, "seed": 3, "sample": 2}, text)])
    (given,) = read_sequences(structure, path)
    assert given == GivenSequence("x", structure.sequence, 0.1, 3, 2)
    np.testing.assert_array_equal(token_rows([given])[0], tokens(structure.sequence))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([23], r"record 1 of .* has 23 letters, pair has chains B \(14\), A \(9\); put / or : between the chains"),
        ([9, 14], "has 9 \\+ 14 letters, .*give the chains in that order"),
        ([14], "give every chain"),
        ([14, 9, 0], "give every chain"),
        ([14, 8], "a letter for each residue with coordinates"),
        ([15, 9], "a letter for each residue with coordinates"),
    ],
)
def test_complaint_joined_chains_are_never_guessed(parts: list[int], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "in.fa").write_text(">x\n" + "/".join("A" * length for length in parts) + "\n")
    with pytest.raises(InputError, match=sentence):
        read_sequences(pair(), tmp_path / "in.fa")


@pytest.mark.parametrize("letter", ["B", "-", "J", "1"])
def test_letters_that_are_no_residue_are_named_with_their_place(letter: str, tmp_path: Path) -> None:
    (tmp_path / "in.fa").write_text(f">x\n{'A' * 14}/AA{letter}{'A' * 6}\n")
    with pytest.raises(InputError, match=f"'{letter}' at position 3 of chain A; .*X for an unknown"):
        read_sequences(pair(), tmp_path / "in.fa")
