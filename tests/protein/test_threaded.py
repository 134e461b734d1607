"""Designs on their backbone, as PDB and mmCIF: what is written reads back, through our reader and through Biopython."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.mmcif_writer import mmcif_text, write_mmcif
from reed_protein.residues import residue_id, three_letter
from reed_protein.structure import Structure, read_structure
from reed_protein.threaded import numbered_paths, write_threaded


def complex_of(ids: tuple[str, str] = ("A", "B"), missing: tuple[int, ...] = (10, 11, 12)) -> Structure:
    """Two chains: a gap in the first, an inserted residue (52A) and negative numbers in the second."""
    keep = [place for place in range(20) if place not in missing]
    one, two = helix(20), helix(12, seed=3)
    numbers = [*(place + 1 for place in keep), -2, -1, 0, 1, 50, 51, 52, 52, 53, 54, 55, 56]
    codes = [*("" for _ in keep), *("" for _ in range(7)), "A", *("" for _ in range(4))]
    chains = tuple([ids[0]] * len(keep) + [ids[1]] * 12)
    return Structure(
        "made by hand",
        np.concatenate([one.coords[keep], two.coords + 25.0]).astype(np.float32),
        "".join(one.sequence[place] for place in keep) + two.sequence,
        chains,
        tuple(map(residue_id, chains, numbers, codes)),
        np.array(numbers, dtype=np.int32),
    )


def biopython_residues(path: Path) -> list:
    from Bio.PDB import MMCIFParser, PDBParser

    parser = MMCIFParser(QUIET=True) if path.suffix == ".cif" else PDBParser(QUIET=True)
    model = next(iter(parser.get_structure("x", str(path))))
    return [residue for chain in model for residue in chain]


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_a_threaded_design_reads_back_to_the_same_residues(suffix: str, tmp_path: Path) -> None:
    structure = complex_of()
    rng = np.random.default_rng(0)
    design = "X" + "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), len(structure) - 1))
    confidence = rng.uniform(size=len(structure)).astype(np.float32)
    confidence[:2] = 0.0, 1.0
    path = tmp_path / f"out{suffix}"
    write_threaded(structure, design, confidence, path, ['design 1, score 1.2, it\'s a "test"'])
    again = read_structure(path)
    assert again.sequence == design
    assert (again.chain_ids, again.residue_ids) == (structure.chain_ids, structure.residue_ids)
    np.testing.assert_array_equal(again.residue_numbers, structure.residue_numbers)
    np.testing.assert_array_equal(again.breaks, structure.breaks)
    np.testing.assert_allclose(again.coords, structure.coords, atol=5.1e-4)
    assert [note for note in again.notes if "breaks" not in note and "read as X" not in note] == []
    residues = biopython_residues(path)
    assert [f"{r.get_parent().id}{r.id[1]}{r.id[2].strip()}" for r in residues] == list(structure.residue_ids)
    assert [residue.get_resname() for residue in residues] == [three_letter(letter) for letter in design]
    for atom in ("N", "CA", "C", "O"):
        b_factors = [residue[atom].get_bfactor() for residue in residues]
        np.testing.assert_allclose(b_factors, 100 * confidence, atol=0.0051)


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
@pytest.mark.parametrize(("name", "chains"), [("1igy.cif", ["B"]), ("6cf8_A.pdb", None)])
def test_real_structures_with_gaps_and_insertion_codes_keep_every_residue(
    name: str, chains: list[str] | None, suffix: str, reed_data: Path, tmp_path: Path
) -> None:
    structure = read_structure(reed_data / "protein" / "structures" / name, chains)
    path = tmp_path / f"out{suffix}"
    write_threaded(structure, "G" * len(structure), np.ones(len(structure), np.float32), path)
    again = read_structure(path)
    assert again.sequence == "G" * len(structure)
    assert again.residue_ids == structure.residue_ids
    np.testing.assert_array_equal(again.breaks, structure.breaks)
    ids = [residue_id(r.get_parent().id, r.id[1], r.id[2].strip()) for r in biopython_residues(path)]
    assert tuple(ids) == structure.residue_ids


def test_chain_breaks_stay_in_the_numbers_of_an_mmcif_file() -> None:
    lines = [line.split() for line in mmcif_text(complex_of()).splitlines() if line.startswith("ATOM ")]
    label = [int(line[8]) for line in lines if line[3] == "CA"]
    assert label[:17] == [*range(1, 11), *range(14, 21)], "three residues are missing: their numbers are left free"
    assert label[17:21] == [1, 2, 3, 4], "each chain counts from 1"
    assert [int(line[1]) for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("ids", [("AA", "B1"), ("a", "A"), ("_", "#"), ("A'", 'B"'), ("1", ";")])
def test_mmcif_holds_any_chain_id(ids: tuple[str, str], tmp_path: Path) -> None:
    structure = complex_of(ids)
    write_mmcif(structure, tmp_path / "x.cif")
    again = read_structure(tmp_path / "x.cif")
    assert (again.chains, again.residue_ids, again.sequence) == (ids, structure.residue_ids, structure.sequence)
    assert len({r.get_parent().id for r in biopython_residues(tmp_path / "x.cif")}) == 2


@pytest.mark.parametrize("chain", ["A B", "?", ".", "Ä", "'\"", "loop_", "data_x"])
def test_a_chain_id_that_mmcif_cannot_hold_is_refused_and_earlier_output_stays(chain: str, tmp_path: Path) -> None:
    path = tmp_path / "x.cif"
    path.write_text("earlier")
    with pytest.raises(InputError, match="does not fit an mmCIF file"):
        write_mmcif(complex_of((chain, "B")), path)
    assert path.read_text() == "earlier"


def test_what_is_not_a_structure_file_or_not_of_its_length_is_refused(tmp_path: Path) -> None:
    structure = complex_of()
    one = np.ones(len(structure), dtype=np.float32)
    with pytest.raises(InputError, match=r"\.pdb or \.cif"):
        write_threaded(structure, structure.sequence, one, tmp_path / "x.txt")
    with pytest.raises(InputError, match="the sequence has 3"):
        write_threaded(structure, "AAA", one, tmp_path / "x.cif")
    with pytest.raises(InputError, match="B-factors"):
        write_threaded(structure, structure.sequence, one[:-1], tmp_path / "x.cif")
    with pytest.raises(InputError, match="finite"):
        write_threaded(structure, structure.sequence, one * np.nan, tmp_path / "x.cif")
    wide = replace(complex_of(("AA", "B")))
    with pytest.raises(InputError, match="does not fit a PDB file"):
        write_threaded(wide, wide.sequence, one, tmp_path / "x.pdb")
    assert list(tmp_path.iterdir()) == []


def test_several_designs_are_numbered(tmp_path: Path) -> None:
    assert numbered_paths(Path("a/b.cif"), 1) == [Path("a/b.cif")]
    assert numbered_paths(Path("a/b.cif"), 2) == [Path("a/b_1.cif"), Path("a/b_2.cif")]
