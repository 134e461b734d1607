"""Probabilities of every residue, and the mutation scan made of them, against slow and obvious references."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.design import Designer
from reed_protein.given import GivenSequence, native
from reed_protein.network import MASK_TOKEN, InverseFolding
from reed_protein.probabilities import (
    backbone_log_probabilities,
    backbone_probabilities,
    conditional_log_probabilities,
    conditional_probabilities,
    confidence,
    write_probabilities,
)
from reed_protein.residues import AMINO_ACIDS, tokens
from reed_protein.scan import MutationScan, scan, scan_table
from reed_protein.structure import Structure


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


@pytest.fixture
def structure() -> Structure:
    """Residues A1 to A24, the eighth of them inserted (A7A), the third unknown."""
    plain = helix(24)
    ids = [f"A{number}" for number in (1, 2, 3, 4, 5, 6, 7, 7, *range(8, 24))]
    ids[7] = "A7A"
    return replace(
        plain,
        sequence=plain.sequence[:2] + "X" + plain.sequence[3:],
        residue_ids=tuple(ids),
        residue_numbers=np.array([int(text[1:].rstrip("A")) for text in ids], dtype=np.int32),
    )


def slow_conditional(network: InverseFolding, structure: Structure, sequence: str) -> np.ndarray:
    """One residue at a time, a fresh encoding for each."""
    rows = []
    for position in range(len(structure)):
        x = torch.from_numpy(tokens(sequence))[None]
        x[0, position] = MASK_TOKEN
        with torch.no_grad():
            rows.append(network(x, None, Designer(network).encode(structure))[0, position].softmax(-1).numpy())
    return np.stack(rows)


def test_conditional_probabilities_are_those_of_a_slow_loop(
    designer: Designer, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = slow_conditional(designer.network, structure, structure.sequence)
    for at_once in (24, 100, 10_000):
        monkeypatch.setattr("reed_protein.score._AT_ONCE_CPU", at_once)
        found = conditional_probabilities(designer, designer.encode(structure), [native(structure)])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(-1), 1.0, atol=1e-5)


def test_backbone_probabilities_see_no_sequence_and_conditional_ones_see_all_but_their_own(
    designer: Designer, structure: Structure
) -> None:
    encoding = designer.encode(structure)
    other = replace(structure, sequence=structure.sequence[:5] + "W" + structure.sequence[6:])
    assert structure.sequence[5] != "W"
    np.testing.assert_array_equal(
        backbone_probabilities(designer, encoding), backbone_probabilities(designer, designer.encode(other))
    )
    one, two = conditional_probabilities(designer, encoding, [native(structure), native(other)])
    np.testing.assert_allclose(one[5], two[5], atol=1e-7)
    assert np.abs(np.delete(one - two, 5, axis=0)).max() > 1e-4


def test_some_positions_are_those_of_all(designer: Designer, structure: Structure) -> None:
    encoding, row = designer.encode(structure), torch.from_numpy(tokens(structure.sequence))
    every = conditional_log_probabilities(designer.network, encoding, row)
    some = conditional_log_probabilities(designer.network, encoding, row, torch.tensor([20, 3]))
    torch.testing.assert_close(some, every[[20, 3]], atol=1e-5, rtol=0)


def test_complaint_per_site_probabilities_come_in_a_file_with_the_ids_of_the_residues(
    designer: Designer, structure: Structure, tmp_path: Path
) -> None:
    encoding = designer.encode(structure)
    given = [native(structure), GivenSequence("other", "G" * 24)]
    backbone, conditional = (
        backbone_probabilities(designer, encoding),
        conditional_probabilities(designer, encoding, given),
    )
    write_probabilities(tmp_path / "p.npz", structure, given, backbone, conditional)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as read:
        held = dict(read)
    assert "".join(held["alphabet"]) == AMINO_ACIDS
    assert tuple(held["residue_ids"]) == structure.residue_ids
    assert tuple(held["chain_ids"]) == structure.chain_ids
    assert tuple(held["insertion_codes"]) == ("",) * 7 + ("A",) + ("",) * 16
    np.testing.assert_array_equal(held["residue_numbers"], structure.residue_numbers)
    assert "".join(held["native"]) == structure.sequence
    assert list(held["names"]) == [structure.name, "other"]
    assert ["".join(row) for row in held["sequences"]] == [structure.sequence, "G" * 24]
    np.testing.assert_array_equal(held["unconditional"], backbone)
    np.testing.assert_array_equal(held["conditional"], conditional)
    assert held["unconditional"].dtype == held["conditional"].dtype == np.float32
    with pytest.raises(InputError, match=r"\.npz"):
        write_probabilities(tmp_path / "p.txt", structure, given, backbone, conditional)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.npz"]


def test_confidence_is_the_probability_of_what_stands_there() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(20), size=3).astype(np.float32)
    np.testing.assert_array_equal(confidence(p, tokens("AXY")), np.array([p[0, 0], 0, p[2, 19]]))


@pytest.fixture
def found(designer: Designer, structure: Structure) -> MutationScan:
    chosen = np.arange(24) < 10
    return scan(designer, structure, native(structure), chosen)


def test_a_scan_is_the_difference_of_log_probabilities(
    designer: Designer, structure: Structure, found: MutationScan
) -> None:
    encoding = designer.encode(structure)
    conditional = np.log(slow_conditional(designer.network, structure, structure.sequence))
    backbone = backbone_log_probabilities(designer.network, encoding).numpy()
    assert list(found.positions) == [0, 1, *range(3, 10)], "the unknown residue is passed over"
    for place, position in enumerate(found.positions):
        own = AMINO_ACIDS.index(structure.sequence[position])
        np.testing.assert_allclose(found.log_odds[place], conditional[position] - conditional[position, own], atol=2e-5)
        np.testing.assert_allclose(
            found.log_odds_backbone[place], backbone[position] - backbone[position, own], atol=2e-5
        )
        assert found.log_odds[place, own] == found.log_odds_backbone[place, own] == 0.0


def test_its_table_ranks_every_mutant_once(found: MutationScan) -> None:
    rows = [dict(zip(scan_table(found).columns, row, strict=True)) for row in scan_table(found).rows]
    assert len({row["mutation"] for row in rows}) == len(rows) == 9 * 19
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    odds = [row["log_odds"] for row in rows]
    assert odds == sorted(odds, reverse=True)
    assert all(row["mutation"] == f"{row['wild_type']}{row['residue_id']}{row['mutant']}" for row in rows)
    inserted = [row for row in rows if row["residue_id"] == "A7A"]
    assert {(row["chain"], row["number"], row["insertion_code"]) for row in inserted} == {("A", 7, "A")}
    for row in inserted:
        place = list(found.positions).index(7)
        assert row["log_odds_backbone"] == found.log_odds_backbone[place, AMINO_ACIDS.index(row["mutant"])]


def test_nothing_to_scan_is_refused(designer: Designer, structure: Structure) -> None:
    with pytest.raises(InputError, match="unknown type"):
        scan(designer, structure, native(structure), np.arange(24) == 2)
