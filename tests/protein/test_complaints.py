"""What users of other inverse-folding tools complain of, about input and control: each must not happen here.

Symmetry has its own in `test_ties` (different numbering, unequal lengths), names of outputs in `test_inputs`.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_complexes import complex_of
from made_structures import helix
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_protein import fold_invert
from reed_protein.controls import Controls
from reed_protein.design import Designer
from reed_protein.fold_invert import Request
from reed_protein.network import InverseFolding
from reed_protein.pdb_writer import write_pdb
from reed_protein.structure import read_structure
from test_structure import Row, as_cif, as_pdb, peptide


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


def written(tmp_path: Path, rows: list[Row], name: str = "made.pdb") -> Path:
    path = tmp_path / name
    path.write_text(as_cif(rows) if name.endswith("cif") else as_pdb(rows))
    return path


def test_fixed_residues_are_kept_in_every_chain_not_only_the_first(designer: Designer) -> None:
    structure = complex_of({"A": range(1, 11), "B": range(1, 11), "C": range(1, 11)})
    for design in designer.design(structure, num=3, temperature=2.0, fix="A2-4,B5,C9-10"):
        for name in ("A2", "A3", "A4", "B5", "C9", "C10"):
            place = structure.place_of[name]
            assert design.sequence[place] == structure.sequence[place]


def test_a_fixed_chain_is_never_silently_designed(designer: Designer) -> None:
    """A specification that was passed as text instead of as a file was ignored, and both chains designed."""
    structure = complex_of({"A": range(1, 11), "B": range(1, 11)})
    assert designer.design(structure, design="A", temperature=2.0)[0].sequence[10:] == structure.sequence[10:]
    for wrong in ('{"complex": ["A"]}', "a", "chain A", "A 11", "B,C", "1-10"):
        with pytest.raises(InputError):
            designer.design(structure, fix=wrong)


def test_which_numbering_is_the_authors_with_insertion_codes(tmp_path: Path, designer: Designer) -> None:
    rows = [
        replace(row, number={2: 52, 3: 52, 4: 53}.get(row.number, row.number), insertion="A" if row.number == 3 else "")
        for row in peptide("GASTV", "H", first=1)
    ]
    structure = read_structure(written(tmp_path, rows))
    assert structure.residue_ids == ("H1", "H52", "H52A", "H53", "H5")
    plan = Controls(design="H52A-53").plan(structure)
    assert plan.designed.tolist() == [False, False, True, True, False]


def test_gaps_never_become_residues(tmp_path: Path, designer: Designer) -> None:
    """A nanobody got an extra residue, gaps came out as X or joined without a word."""
    structure = read_structure(written(tmp_path, [row for row in peptide("GASTVLK") if row.number not in (3, 4)]))
    assert structure.residue_ids == ("A1", "A2", "A5", "A6", "A7")
    assert len(designer.design(structure)[0].sequence) == 5
    assert "chain breaks: A2 to A5" in structure.notes


@pytest.mark.parametrize("name", ["HIE", "HID", "HIP", "HSD", "CYX", "GLH", "ASH", "LYN", "MSE", "SEP"])
def test_protonation_names_and_modified_residues_do_not_shorten_the_sequence(tmp_path: Path, name: str) -> None:
    rows = [replace(row, residue=name) if row.number == 3 else row for row in peptide("GASTV")]
    structure = read_structure(written(tmp_path, rows))
    assert len(structure) == 5
    assert structure.sequence[2] != "X"
    assert any(note.startswith(f"{name} is read as ") for note in structure.notes)


def test_mmcif_is_read_like_pdb_with_long_chain_ids_and_gzip(tmp_path: Path) -> None:
    rows = [*peptide("GASTV", "AAA"), *peptide("GAS", "A"), *peptide("GAS", "B1")]
    path = tmp_path / "big.cif.gz"
    path.write_bytes(gzip.compress(as_cif(rows).encode()))
    structure = read_structure(path)
    assert structure.chains == ("AAA", "A", "B1")
    assert Controls(design="AAA2-3,B1:2").plan(structure).designed.nonzero()[0].tolist() == [1, 2, 9]


def test_chains_keep_the_order_of_the_file_not_of_the_alphabet(tmp_path: Path) -> None:
    path = written(tmp_path, [*peptide("GAS", "C"), *peptide("TV", "A"), *peptide("LKE", "B")])
    assert read_structure(path, ["A", "C"]).chains == ("C", "A")


def test_too_many_of_one_letter_can_be_limited_exactly(designer: Designer) -> None:
    """Designs rich in A, K and E: a bias shifts them, a limit holds."""
    structure = helix(40)
    favoured = {"bias": "A:50,K:49,E:48", "at_most": "A:10%,K:10%,E:10%", "temperature": 0.1}
    for design in designer.design(structure, num=4, **favoured):
        assert [design.sequence.count(letter) for letter in "AKE"] == [4, 4, 4]


def test_cysteine_can_be_left_out(designer: Designer) -> None:
    for design in designer.design(helix(40), num=4, bias="C:50", omit="C", temperature=2.0):
        assert "C" not in design.sequence


def test_ligands_that_are_not_seen_are_told(tmp_path: Path) -> None:
    x, y, z = (float(value) for value in peptide("GASTV")[12].xyz)
    zinc = Row("A", 401, "ZN", "ZN", (x + 3, y, z), record="HETATM", polymer=False)
    path = written(tmp_path, [*peptide("GASTV"), zinc])
    with (tmp_path / "report").open("w") as stream:
        assert fold_invert.run(Request((str(path),), Controls(), dry_run=True), stream) == 0
    words = "within 6 A of designed residues, not seen by this model: 1 ZN"
    assert words in (tmp_path / "report").read_text()


def test_two_proteins_on_one_chain_id_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given twice"):
        read_structure(written(tmp_path, [*peptide("GAS"), *peptide("VLK")]))


def test_an_unknown_residue_is_told_and_designed(tmp_path: Path, designer: Designer) -> None:
    rows = [replace(row, residue="ZZZ") if row.number == 2 else row for row in peptide("GASTV")]
    structure = read_structure(written(tmp_path, rows))
    assert "ZZZ is read as X: A2" in structure.notes
    assert "X" not in designer.design(structure)[0].sequence


def test_a_bad_coordinate_does_not_stop_the_rest_of_the_batch(
    tmp_path: Path, network: InverseFolding, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, folder, out = tmp_path / "weights", tmp_path / "in", tmp_path / "out"
    save_pretrained(network, weights)
    folder.mkdir()
    for name in ("a", "c"):
        write_pdb(helix(12, name=name), folder / f"{name}.pdb")
    bad = [replace(row, xyz=("nan", "1.0", "1.0")) if row.number == 2 else row for row in peptide("GAS")]
    written(folder, bad, "b.pdb")
    request = Request((str(folder),), Controls(), out_dir=out, weights=weights)
    with (tmp_path / "nothing").open("w") as stream:
        assert fold_invert.run(request, stream) == 2
    assert (tmp_path / "nothing").read_text() == ""
    assert sorted(path.name for path in out.iterdir()) == ["a.fa", "c.fa"]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "atom N of residue A2 is at (nan" in errors[0]


def test_a_complex_is_seen_as_a_complex(designer: Designer) -> None:
    """Chains of one structure see each other, and the network knows which residues are of another chain."""
    structure = complex_of({"A": range(1, 21), "B": range(1, 21)})
    together = designer.encode(structure).nodes[0, :20]
    alone = designer.encode(structure.select(["A"])).nodes[0]
    assert (together - alone).abs().max() > 1e-3
    joined = replace(structure, chain_ids=("A",) * 40, residue_ids=tuple(f"A{n}" for n in range(1, 41)))
    joined = replace(joined, residue_numbers=np.arange(1, 41, dtype=np.int32))
    assert (together - designer.encode(joined).nodes[0, :20]).abs().max() > 1e-3
    swapped = complex_of({"B": range(1, 21), "A": range(1001, 1021)})
    assert (designer.encode(swapped).nodes - designer.encode(structure).nodes).abs().max() < 1e-5
