"""The rules of reading, each on a peptide made here, in both formats where both can say it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from reed_core.errors import InputError
from reed_protein import residues
from reed_protein.structure import Structure, read_structure, single_chain


@dataclass(frozen=True)
class Row:
    """One atom, for either format."""

    chain: str
    number: int
    residue: str
    name: str
    xyz: tuple[float, float, float] | tuple[str, str, str]
    insertion: str = ""
    altloc: str = ""
    occupancy: str = "1.00"
    record: str = "ATOM"
    polymer: bool = True
    model: int = 1


def next_atom(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion: float) -> np.ndarray:
    """An atom by internal coordinates (degrees): the slow, obvious way."""
    angle, torsion = np.radians(angle), np.radians(torsion)
    x = (c - b) / np.linalg.norm(c - b)
    z = np.cross(b - a, x)
    z /= np.linalg.norm(z)
    y = np.cross(z, x)
    return c + bond * (-np.cos(angle) * x + np.sin(angle) * np.cos(torsion) * y + np.sin(angle) * np.sin(torsion) * z)


def peptide(names: str, chain: str = "A", first: int = 1, phi: float = -65.0, psi: float = -40.0) -> list[Row]:
    """An ideal peptide of one-letter names with N, CA, C, O and, to be overlooked, CB."""
    n, ca = np.zeros(3), np.array([1.46, 0.0, 0.0])
    c = ca + 1.52 * np.array([-np.cos(np.radians(111)), np.sin(np.radians(111)), 0.0])
    rows = []
    for index, letter in enumerate(names):
        n_next = next_atom(n, ca, c, 1.33, 117.0, psi)
        o = next_atom(n, ca, c, 1.231, 120.1, psi + 180)
        cb = next_atom(c, n, ca, 1.53, 110.0, 120)
        for name, xyz in (("N", n), ("CA", ca), ("C", c), ("O", o), ("CB", cb)):
            point = (round(float(xyz[0]), 3), round(float(xyz[1]), 3), round(float(xyz[2]), 3))
            rows.append(Row(chain, first + index, residues.three_letter(letter), name, point))
        ca_next = next_atom(ca, c, n_next, 1.46, 121.0, 180.0)
        n, ca, c = n_next, ca_next, next_atom(c, n_next, ca_next, 1.52, 111.0, phi)
    return rows


def as_pdb(rows: list[Row]) -> str:
    lines, several = [], len({row.model for row in rows}) > 1
    for model in sorted({row.model for row in rows}):
        ours = [row for row in rows if row.model == model]
        lines += [f"MODEL     {model:4d}"] if several else []
        for serial, row in enumerate(ours, start=1):
            x, y, z = (value if isinstance(value, str) else f"{value:.3f}" for value in row.xyz)
            lines.append(
                f"{row.record:<6s}{serial:5d}  {row.name:<3s}{row.altloc or ' '}{row.residue:>3s} {row.chain}"
                f"{row.number:4d}{row.insertion or ' '}   {x:>8s}{y:>8s}{z:>8s}{row.occupancy:>6s}  0.00"
            )
            if row.polymer and not any(other.polymer and other.chain == row.chain for other in ours[serial:]):
                lines.append(f"TER   {serial:5d}      {row.residue:>3s} {row.chain}{row.number:4d}")
        lines += ["ENDMDL"] if several else []
    return "\n".join([*lines, "END", ""])


PEPTIDE = peptide("GAS")

CIF_HEAD = """data_made
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num"""


def as_cif(rows: list[Row]) -> str:
    lines = [CIF_HEAD]
    for serial, row in enumerate(rows, start=1):
        values = (row.record, serial, row.name, row.altloc or ".", row.residue, f"L{row.chain}")
        places = (serial if row.polymer else ".", row.insertion or "?", *row.xyz, row.occupancy or "?")
        lines.append(" ".join(map(str, (*values, *places, row.number, row.chain, row.model))))
    return "\n".join([*lines, "#", ""])


Reader = Callable[..., Structure]


@pytest.fixture(params=["pdb", "cif"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    """Reads rows through a file of either format."""

    def reader(rows: list[Row], chains: list[str] | None = None, model: int = 1) -> Structure:
        path = tmp_path / f"made.{request.param}"
        path.write_text(as_pdb(rows) if request.param == "pdb" else as_cif(rows))
        return read_structure(path, chains, model)

    return reader


def xyz_of(rows: list[Row], number: int, name: str) -> np.ndarray:
    return np.array(next(row.xyz for row in rows if (row.number, row.name) == (number, name)))


def test_a_plain_peptide_is_read_as_it_stands(read: Reader) -> None:
    rows = peptide("ACDEFGHIKLMNPQRSTVWY", first=-2)
    structure = read(rows)
    assert structure.name == "made"
    assert structure.sequence == "ACDEFGHIKLMNPQRSTVWY"
    assert structure.residue_ids[:4] == ("A-2", "A-1", "A0", "A1")
    assert structure.residue_numbers.tolist() == list(range(-2, 18))
    assert structure.chains == ("A",)
    assert structure.notes == ()
    assert structure.breaks.tolist() == [True] + [False] * 19
    expected = np.array([row.xyz for row in rows if row.name != "CB"]).reshape(20, 4, 3)
    np.testing.assert_allclose(structure.coords, expected, atol=1e-4)


def test_insertion_codes_keep_file_order_and_their_ids(read: Reader) -> None:
    rows = peptide("GASTV", first=99)
    labels = {99: (99, ""), 100: (100, ""), 101: (100, "A"), 102: (100, "B"), 103: (101, "")}
    rows = [replace(row, number=labels[row.number][0], insertion=labels[row.number][1]) for row in rows]
    structure = read(rows)
    assert structure.residue_ids == ("A99", "A100", "A100A", "A100B", "A101")
    assert structure.insertion_codes == ("", "", "A", "B", "")
    assert structure.sequence == "GASTV"
    assert structure.breaks.sum() == 1


@pytest.mark.parametrize(
    ("first", "second", "kept"), [("0.40", "0.60", "B"), ("0.50", "0.50", "A"), ("0.7", "0.3", "A")]
)
def test_one_conformer_by_summed_occupancy(read: Reader, first: str, second: str, kept: str) -> None:
    rows = []
    for row in peptide("GAS"):
        if row.number != 2 or row.name in ("N", "CB"):
            rows.append(row)
            continue
        x, y, z = map(float, row.xyz)
        rows.append(replace(row, altloc="A", occupancy=first))
        rows.append(replace(row, altloc="B", occupancy=second, xyz=(x, y, round(z + 0.25, 3))))
    structure = read(rows)
    shift = 0.25 if kept == "B" else 0.0
    for place, name in ((1, "CA"), (2, "C"), (3, "O")):
        expected = xyz_of(rows, 2, name) + np.array([0, 0, shift])
        np.testing.assert_allclose(structure.coords[1, place], expected, atol=1e-4)
    assert "alternate locations, the one of highest occupancy is read: A2" in structure.notes


def test_conformers_are_not_mixed_even_if_single_atoms_disagree(read: Reader) -> None:
    rows = []
    weights = {"N": ("0.9", "0.1"), "CA": ("0.3", "0.7"), "C": ("0.3", "0.7"), "O": ("0.3", "0.7")}
    for row in peptide("GAS"):
        if row.number == 2 and row.name in weights:
            x, y, z = map(float, row.xyz)
            rows.append(replace(row, altloc="A", occupancy=weights[row.name][0]))
            rows.append(replace(row, altloc="B", occupancy=weights[row.name][1], xyz=(x, y, round(z + 0.2, 3))))
        else:
            rows.append(row)
    structure = read(rows)
    np.testing.assert_allclose(structure.coords[1, 0], xyz_of(rows, 2, "N") + np.array([0, 0, 0.2]), atol=1e-4)


def test_a_whole_conformer_beats_a_fuller_but_broken_one(read: Reader) -> None:
    rows = []
    for row in peptide("GAS"):
        if row.number == 2 and row.name != "CB":
            rows += [replace(row, altloc="A", occupancy="0.90")] if row.name != "CA" else []
            rows += [replace(row, altloc="B", occupancy="0.10")]
        else:
            rows.append(row)
    assert read(rows).sequence == "GAS"


def test_two_residue_names_at_one_number(read: Reader) -> None:
    rows = []
    for row in peptide("GAS"):
        if row.number == 2:
            rows.append(replace(row, altloc="A", occupancy="0.30"))
        else:
            rows.append(row)
    other = [replace(row, residue="PRO", altloc="B", occupancy="0.70") for row in rows if row.number == 2]
    structure = read([*rows[:10], *other, *rows[10:]])
    assert structure.sequence == "GPS"
    assert structure.residue_ids == ("A1", "A2", "A3")


def test_modified_residues_stand_for_their_parents(read: Reader) -> None:
    names = {2: "MSE", 3: "SEP", 4: "HIE", 5: "CYX", 6: "ZZZ", 7: "UNK"}
    rows = [
        replace(row, residue=names.get(row.number, row.residue), record="HETATM" if row.number in (2, 3) else "ATOM")
        for row in peptide("GAAAAAAG")
    ]
    structure = read(rows)
    assert structure.sequence == "GMSHCXXG"
    assert "MSE is read as M: A2" in structure.notes
    assert "ZZZ is read as X: A6" in structure.notes


def test_a_ligand_that_looks_like_a_residue_is_not_one(read: Reader) -> None:
    away = [replace(row, xyz=tuple(float(value) + 50 for value in row.xyz)) for row in peptide("E", first=300)]
    far = [replace(row, record="HETATM", polymer=False) for row in away]
    structure = read([*peptide("GASG"), *far])
    assert structure.sequence == "GASG"
    assert "not seen by this model: 1 GLU" in structure.notes


def test_a_hetero_residue_behind_the_polymer_is_kept_if_bonded(read: Reader) -> None:
    rows = peptide("GASG")
    rows = [replace(row, polymer=row.number != 4, record="HETATM" if row.number == 4 else "ATOM") for row in rows]
    assert read(rows).sequence == "GASG"


def test_what_the_model_does_not_see_is_counted(read: Reader) -> None:
    hetero = Row("A", 401, "ZN", "ZN", (9.0, 9.0, 9.0), record="HETATM", polymer=False)
    waters = [replace(hetero, number=500 + i, residue="HOH", name="O") for i in range(3)]
    dna = [replace(hetero, chain="B", number=i, residue="DA", name="C1'", record="ATOM", polymer=True) for i in (1, 2)]
    calcium = replace(hetero, number=402, residue="CA", name="CA")
    structure = read([*peptide("GAS"), *dna, hetero, calcium, *waters])
    assert structure.chains == ("A",)
    assert structure.notes == ("not seen by this model: 3 waters, 2 nucleotides, 1 ZN, 1 CA",)


@pytest.mark.parametrize("missing", ["N", "CA", "C"])
def test_an_incomplete_residue_is_left_out_and_named(read: Reader, missing: str) -> None:
    rows = [row for row in peptide("GASTV") if (row.number, row.name) != (3, missing)]
    structure = read(rows)
    assert structure.residue_ids == ("A1", "A2", "A4", "A5")
    assert structure.sequence == "GATV"
    assert structure.breaks.tolist() == [True, False, True, False]
    assert f"residues without N, CA or C are left out: A3 (no {missing})" in structure.notes
    assert "chain breaks: A2 to A4" in structure.notes


@pytest.mark.parametrize("psi", [-40.0, 135.0, 10.0])
def test_a_missing_oxygen_lies_in_the_peptide_plane(read: Reader, psi: float) -> None:
    rows = peptide("GASTV", psi=psi)
    structure = read([row for row in rows if (row.number, row.name) != (3, "O")])
    np.testing.assert_allclose(structure.coords[2, 3], xyz_of(rows, 3, "O"), atol=5e-3)
    assert "O is missing and placed by ideal geometry: A3" in structure.notes
    # Independently: in the plane of CA, C and the next N, opposite to their bisector.
    ca, c, n = structure.coords[2, 1], structure.coords[2, 2], structure.coords[3, 0]
    away = (c - ca) / np.linalg.norm(c - ca) + (c - n) / np.linalg.norm(c - n)
    np.testing.assert_allclose(structure.coords[2, 3], c + 1.231 * away / np.linalg.norm(away), atol=0.05)


def test_a_missing_last_oxygen_has_ideal_bond_and_angle(read: Reader) -> None:
    structure = read([row for row in peptide("GAS") if (row.number, row.name) != (3, "O")])
    _, ca, c, o = structure.coords[2].astype(float)
    assert np.linalg.norm(o - c) == pytest.approx(1.231, abs=1e-3)
    cosine = (ca - c) @ (o - c) / (np.linalg.norm(ca - c) * np.linalg.norm(o - c))
    assert np.degrees(np.arccos(cosine)) == pytest.approx(120.1, abs=0.1)


def test_a_terminal_oxygen_by_another_name_is_used(read: Reader) -> None:
    rows = [replace(row, name="OXT") if (row.number, row.name) == (3, "O") else row for row in peptide("GAS")]
    structure = read(rows)
    np.testing.assert_allclose(structure.coords[2, 3], xyz_of(rows, 3, "OXT"), atol=1e-4)
    assert structure.notes == ()


def test_only_the_first_model_is_read(read: Reader) -> None:
    second = [replace(row, model=2, xyz=tuple(float(v) + 7 for v in row.xyz)) for row in peptide("GASTVV")]
    structure = read([*peptide("GAS"), *second])
    assert structure.sequence == "GAS"
    assert structure.notes == ("the first of 2 models is read",)


@pytest.mark.parametrize("model", [1, 2, 3])
def test_the_model_asked_for_is_read(read: Reader, model: int) -> None:
    models = [replace(row, model=k, xyz=tuple(float(v) + 7 * k for v in row.xyz)) for k in (1, 2, 3) for row in PEPTIDE]
    structure = read(models, model=model)
    np.testing.assert_allclose(structure.coords[0, 0], 7 * model, atol=1e-4)
    assert structure.notes == (f"{'the first' if model == 1 else f'number {model}'} of 3 models is read",)
    for absent, words in ((4, "has 3 models, no model 4"), (0, "expected 1 or more")):
        with pytest.raises(InputError, match=words):
            read(models, model=absent)


def test_what_is_not_seen_keeps_its_place(read: Reader) -> None:
    hetero = Row("A", 401, "ZN", "ZN", (9.0, 9.0, 9.0), record="HETATM", polymer=False)
    water = replace(hetero, number=500, residue="HOH", name="O")
    lost = replace(hetero, number=402, residue="LIG", name="C1", xyz=("nan", "1.0", "2.0"))
    dna = [
        replace(hetero, chain="D", number=1, residue="DA", name=name, record="ATOM", polymer=True)
        for name in ("P", "C1'")
    ]
    structure = read([*peptide("GAS"), *peptide("GV", "B"), *dna, hetero, water, lost], ["A"])
    assert [(item.name, len(item.coords)) for item in structure.unseen] == [
        ("nucleotide", 2),
        ("ZN", 1),
        ("residue of a chain not read", 5),
        ("residue of a chain not read", 5),
    ]


def test_zero_occupancy_is_kept_and_noted(read: Reader) -> None:
    rows = [replace(row, occupancy="0.00") if row.number == 2 else row for row in peptide("GAS")]
    structure = read(rows)
    assert structure.sequence == "GAS"
    assert structure.notes == ("backbone atoms of zero occupancy are kept: A2",)


def test_chains_are_chosen_in_file_order_and_breaks_stand_between_them(read: Reader) -> None:
    rows = [*peptide("GAS", "B"), *peptide("TVW", "A", first=10), *peptide("FY", "C")]
    structure = read(rows)
    assert structure.chains == ("B", "A", "C")
    assert structure.chain_sequences() == {"B": "GAS", "A": "TVW", "C": "FY"}
    assert structure.chain_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    # Chains lie on one another here: distance alone would link none of them, but identity must not either.
    assert np.flatnonzero(structure.breaks).tolist() == [0, 3, 6]
    chosen = read(rows, ["C", "B"])
    same = structure.select(["C", "B"])
    for one in (chosen, same):
        assert one.chains == ("B", "C")
        assert one.residue_ids == ("B1", "B2", "B3", "C1", "C2")
    np.testing.assert_array_equal(chosen.coords, same.coords)


def test_faults_of_other_chains_do_not_matter(read: Reader) -> None:
    bad = [replace(row, xyz=("nan", "nan", "nan")) for row in peptide("TVW", "B")]
    assert read([*peptide("GAS"), *bad], ["A"]).sequence == "GAS"


@pytest.mark.parametrize(
    ("rows", "chains", "sentence"),
    [
        (peptide("GAS"), ["B"], "chain B not among the protein chains of made, which are A"),
        (peptide("GAS"), [], "no chain was asked for"),
        ([r for r in peptide("GASTV") if r.name == "CA"], None, "CA-only input is not supported by this model"),
        (
            peptide("GAS") + [r for r in peptide("GA", "B") if r.name == "CA"],
            ["B"],
            "chain B of made has CA atoms only",
        ),
        ([r for r in peptide("GASTV") if r.name != "C"], None, "5 protein residues, none of them with N, CA and C"),
        (peptide("G"), None, "this model needs 2 or more"),
        ([replace(r, residue="DA", name="C1'") for r in peptide("GA")], None, "has no protein, only 2 nucleotides"),
        ([replace(r, residue="HOH", name="O") for r in peptide("G")], None, "has no protein, only 1 water"),
        (peptide("GAS") + peptide("VAS"), None, "residue A1 is given twice, as GLY and VAL"),
        (peptide("GAS") * 2, None, "atom N of residue A1 is given twice"),
        ([replace(r, xyz=(1.0, 1.0, 1.0)) for r in peptide("GAS")], None, "of residue A1 lie on one another"),
    ],
)
def test_refused(read: Reader, rows: list[Row], chains: list[str] | None, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read(rows, chains)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "9999.000", "********", "1.2.3", ""])
def test_coordinates_that_are_no_place_are_refused_by_residue(tmp_path: Path, value: str) -> None:
    rows = [replace(r, xyz=(value, "1.0", "2.0")) if (r.number, r.name) == (2, "CA") else r for r in peptide("GAS")]
    path = tmp_path / "bad.pdb"
    path.write_text(as_pdb(rows))
    with pytest.raises(InputError, match="atom CA of residue A2 is at"):
        read_structure(path)
    if value:
        path = tmp_path / "bad.cif"
        path.write_text(as_cif(rows))
        with pytest.raises(InputError, match="atom CA of residue A2 is at"):
            read_structure(path)


def test_side_chains_are_not_looked_at(read: Reader) -> None:
    rows = [replace(row, xyz=("nan", "nan", "nan")) if row.name == "CB" else row for row in peptide("GAS")]
    assert read(rows).sequence == "GAS"


def test_ids_are_unique_when_chain_ids_have_several_characters(tmp_path: Path) -> None:
    rows = [*peptide("GA", "A", first=152), *peptide("GA", "A1", first=52), *peptide("GA", "AA", first=52)]
    path = tmp_path / "made.cif"
    path.write_text(as_cif(rows))
    structure = read_structure(path)
    assert structure.residue_ids == ("A152", "A153", "A1:52", "A1:53", "AA52", "AA53")
    assert structure.insertion_codes == ("",) * 6


def test_mmcif_without_author_ids_falls_back_and_says_so(tmp_path: Path) -> None:
    text = as_cif(peptide("GAS")).replace("_atom_site.auth_asym_id", "_atom_site.other")
    path = tmp_path / "made.cif"
    path.write_text(text)
    structure = read_structure(path)
    assert structure.chains == ("LA",)
    assert "label_asym_id is used" in "; ".join(structure.notes)


def test_a_structure_refuses_columns_that_do_not_fit() -> None:
    good = single_chain("x", np.zeros((3, 4, 3), dtype=np.float32), "ACD")
    assert good.residue_ids == ("A1", "A2", "A3")
    with pytest.raises(InputError, match="one length"):
        replace(good, sequence="AC")
    with pytest.raises(InputError, match="letter 'B' at position 2"):
        replace(good, sequence="ABD")
    with pytest.raises(InputError, match="not all finite"):
        replace(good, coords=np.full((3, 4, 3), np.nan, dtype=np.float32))
