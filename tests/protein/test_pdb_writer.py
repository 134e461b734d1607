"""What is written reads back, line by line as the format wants it; what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reed_core.errors import InputError
from reed_protein.pdb_writer import pdb_text, write_pdb
from reed_protein.residues import residue_id
from reed_protein.structure import Structure, read_structure, single_chain

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.pdb"))


def made(length: int = 6, chains: str = "AAABBB", spread: float = 30.0) -> Structure:
    rng = np.random.default_rng(length)
    numbers = np.array([-999, -1, 0, 52, 52, 9999][:length], dtype=np.int32)
    codes = ["", "", "", "", "A", ""][:length]
    return Structure(
        name="made, by hand",
        coords=rng.uniform(-spread, spread, size=(length, 4, 3)).astype(np.float32),
        sequence="GAXSTV"[:length],
        chain_ids=tuple(chains[:length]),
        residue_ids=tuple(map(residue_id, chains, map(int, numbers), codes)),
        residue_numbers=numbers,
    )


def assert_same(one: Structure, other: Structure, tolerance: float = 5.1e-4) -> None:
    assert (one.sequence, one.chain_ids, one.residue_ids) == (other.sequence, other.chain_ids, other.residue_ids)
    np.testing.assert_array_equal(one.residue_numbers, other.residue_numbers)
    np.testing.assert_allclose(one.coords, other.coords, atol=tolerance)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_what_they_claim(path: Path, tmp_path: Path) -> None:
    structure = read_structure(path)
    assert structure.notes == ()
    assert structure.breaks.sum() == 1
    assert "X" not in structure.sequence
    write_pdb(structure, tmp_path / path.name)
    again = read_structure(tmp_path / path.name)
    assert_same(again, structure, 0)


def test_there_are_three_examples() -> None:
    assert [len(read_structure(path)) for path in EXAMPLES] == [90, 146, 266]


@pytest.mark.parametrize("spread", [30.0, 999.0])
def test_round_trip_with_insertions_chains_and_extremes(tmp_path: Path, spread: float) -> None:
    structure = made(spread=spread)
    write_pdb(structure, tmp_path / "made.pdb")
    assert_same(read_structure(tmp_path / "made.pdb"), structure)


def test_columns_are_where_the_format_has_them() -> None:
    lines = pdb_text(made(), b_factors=np.linspace(-99.99, 999.99, 6)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    atoms = [line for line in lines if line.startswith("ATOM")]
    assert len(atoms) == 24
    assert {len(line) for line in atoms} == {78}
    assert [line[12:16] for line in atoms[:4]] == [" N  ", " CA ", " C  ", " O  "]
    assert [line[76:78] for line in atoms[:4]] == [" N", " C", " C", " O"]
    assert [line[17:27] for line in atoms[::4]] == [
        "GLY A-999 ",
        "ALA A  -1 ",
        "UNK A   0 ",
        "SER B  52 ",
        "THR B  52A",
        "VAL B9999 ",
    ]
    assert [line[60:66] for line in atoms[::20]] == ["-99.99", "999.99"]
    serials = [int(line[6:11]) for line in lines if line.startswith(("ATOM", "TER"))]
    assert serials == list(range(1, 27))
    assert [line[:3] for line in lines if line[21:22] in "AB" and not line.startswith("ATOM")].count("TER") == 2
    assert lines[-1] == "END"


def test_a_threaded_sequence_names_the_residues(tmp_path: Path) -> None:
    structure = made()
    write_pdb(structure, tmp_path / "made.pdb", sequence="WWWYYX")
    again = read_structure(tmp_path / "made.pdb")
    assert again.sequence == "WWWYYX"
    assert_same(replace(again, sequence=structure.sequence), structure)


def test_biopython_reads_it(tmp_path: Path) -> None:
    from Bio.PDB import PDBParser

    structure = made()
    write_pdb(structure, tmp_path / "made.pdb", b_factors=np.arange(6.0))
    model = next(iter(PDBParser(QUIET=True).get_structure("x", str(tmp_path / "made.pdb"))))
    residues = [residue for chain in model for residue in chain]
    assert [f"{r.get_parent().id}{r.id[1]}{r.id[2].strip()}" for r in residues] == list(structure.residue_ids)
    assert [residue["O"].get_bfactor() for residue in residues] == list(range(6))


def test_remarks_are_kept_to_one_plain_line(tmp_path: Path) -> None:
    structure = replace(made(), name="Zoë\nATOM " + "x" * 100)
    lines = pdb_text(structure, remarks=("one\ntwo",)).splitlines()
    assert lines[0].startswith("REMARK 999 BACKBONE Zo? ATOM xxx")
    assert lines[1] == "REMARK 999 one two"
    assert lines[2].startswith("ATOM ")


@pytest.mark.parametrize(
    ("structure", "sequence", "b_factors", "sentence"),
    [
        (made(), "GAS", None, "the sequence has 3"),
        (made(), "GAS/TV", None, "'/' is not a residue letter"),
        (made(), None, np.zeros(5), "got 5 B-factors"),
        (made(), None, np.full(6, 1000.0), "B-factors must lie in"),
        (made(), None, np.full(6, np.nan), "B-factors must lie in"),
        (replace(made(), chain_ids=("AA",) * 6), None, None, "chain id 'AA'"),
        (replace(made(), residue_numbers=np.full(6, 10_000, np.int32)), None, None, "residue numbers of made"),
        (replace(made(), residue_numbers=np.full(6, -1000, np.int32)), None, None, "residue numbers of made"),
        (made(spread=2000.0), None, None, "coordinates of made"),
        (single_chain("big", np.zeros((25_000, 4, 3), np.float32), "G" * 25_000), None, None, "residue numbers"),
        (
            single_chain("big", np.zeros((25_000, 4, 3), np.float32), "G" * 25_000, numbers=np.zeros(25_000, np.int32)),
            None,
            None,
            "100001 atom records",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_earlier_output_stays(
    tmp_path: Path, structure: Structure, sequence: str | None, b_factors: np.ndarray | None, sentence: str
) -> None:
    path = tmp_path / "out.pdb"
    path.write_text("earlier")
    with pytest.raises(InputError, match=sentence):
        write_pdb(structure, path, sequence, b_factors)
    assert path.read_text() == "earlier"
