"""Real files as people have them: what each of them must come to, and three independent witnesses that it does.

The table was made by looking at the files: residue counts are those with N, CA and C in the first model, which agree
with SEQRES less REMARK 465 where a file has both; numbers are the first and the last written there.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from reed_core.errors import InputError
from reed_protein.oxygen import place_oxygen
from reed_protein.structure import Structure, read_structure

Expected = tuple[dict[str, int], str, str, int, tuple[str, ...]]

# File: residues per chain, first and last id, breaks inside chains, and notes that must be there.
READ: dict[str, Expected] = {
    "1A8O.cif": ({"A": 70}, "A151", "A220", 0, ("MSE is read as M: A151, A185, A214, A215",)),
    "1A8O.pdb": ({"A": 70}, "A151", "A220", 0, ("MSE is read as M: A151, A185, A214, A215",)),
    "1BC8.pdb": ({"C": 93}, "C1", "C93", 0, ("not seen by this model: 160 waters, 20 nucleotides, 2 ZN",)),
    "1LCD.pdb": ({"A": 51}, "A1", "A51", 0, ("the first of 3 models is read",)),
    "1YCR.pdb": ({"A": 85, "B": 13}, "A25", "B29", 0, ()),
    "1e6e_A.pdb": ({"A": 457}, "A4", "A460", 0, ("not seen by this model: 1 FAD",)),
    "1f8i_A.pdb": ({"A": 427}, "A1", "A427", 0, ()),
    "1hmp_A.pdb": ({"A": 214, "B": 209}, "A4", "B217", 1, ("chain breaks: B104 to B109",)),
    "1ib1_E.pdb": ({"E": 178}, "E18", "E196", 1, ("chain breaks: E30 to E32",)),
    "1igy.cif": ({"A": 213, "B": 434, "C": 213, "D": 434}, "A2", "D474", 0, ()),
    "1klu_A.pdb": ({"_": 238}, "_1", "_238", 0, ("the chain whose id the file leaves blank is called _",)),
    "1l2y.cif": ({"A": 20}, "A1", "A20", 0, ("the first of 38 models is read",)),
    "1lqm_E.pdb": ({"E": 224}, "E4", "E227", 0, ()),
    "1oyv_A.pdb": ({"A": 115}, "A2", "A116", 0, ()),
    "1qys.pdb": ({"A": 92}, "A3", "A94", 0, ("MSE is read as M: A37",)),
    "1sbb_B.pdb": ({"B": 239}, "B1", "B239", 0, ()),
    "1t68_X.pdb": ({"X": 180}, "X0", "X179", 0, ()),
    "1udi_A.pdb": ({"_": 228}, "_17", "_244", 0, ()),
    "1wq5_B.pdb": ({"A": 258, "B": 261}, "A1", "B1268", 4, ()),
    "2BEG.pdb": (dict.fromkeys("ABCDE", 26), "A17", "E42", 0, ()),
    "2XHE.cif": ({"A": 566, "B": 220}, "A0", "B261", 3, ("residues without N, CA or C are left out: A617 (no CA, C)",)),
    "2b24_C.pdb": ({"C": 440}, "C1", "C440", 0, ()),
    "2bjd_A.pdb": ({"A": 90}, "A12", "A101", 0, ()),
    "2e39_A.pdb": ({"A": 336}, "A9", "A344", 0, ()),
    "3HTN.pdb": ({"A": 143, "B": 139, "C": 143}, "A43", "C185", 1, ("chain breaks: B99 to B104",)),
    "3JQH.cif": (
        {"A": 23},
        "A1",
        "A23",
        0,
        ("alternate locations, the one of highest occupancy is read: A1, A3, A15",),
    ),
    "3eok_A.pdb": ({"A": 141, "B": 146}, "A1", "B146", 0, ("the first of 2 models is read",)),
    "3kvf_A.pdb": ({"A": 223, "B": 75}, "A1", "B75", 0, ()),
    "4CUP.cif": ({"A": 115}, "A1856", "A1970", 0, ()),
    "4GYT.pdb": ({"A": 177, "B": 177}, "A7", "B183", 0, ()),
    "5L33.pdb": ({"A": 106}, "A-1", "A104", 0, ()),
    "5cff_B.pdb": ({"B": 87}, "B1", "B87", 1, ("chain breaks: B29 to B30",)),
    "5wk3_A.pdb": ({"A": 67}, "A2", "A68", 0, ()),
    "6MRR.pdb": ({"A": 68}, "A1", "A68", 0, ()),
    "6cf8_A.pdb": ({"A": 510}, "A19", "A532", 1, ("chain breaks: A76 to A81",)),
    "6kbr_C.pdb": ({"C": 55}, "C224", "C278", 0, ()),
    "7CFN.cif": ({"A": 232, "B": 339, "G": 58, "N": 128, "R": 274}, "A9", "R291", 2, ()),
    "disordered.pdb": ({"A": 6}, "A25", "A30", 0, ()),
    "insulin_target.pdb": ({"A": 150}, "A1", "A150", 0, ()),
}
REFUSED = {
    # A test file of another library, with faults put in on purpose.
    "a_structure.pdb": "atom CA of residue A1 is given twice",
    "altloc.cif": "altloc has 1 protein residue, 1 of them (A22) with N, CA and C; this model needs 2 or more",
    "d256ba_.ent": "d256ba_ has no atoms, only a header",
    "occupancy.pdb": "occupancy has 1 protein residue, 1 of them (A152) with N, CA and C; this model needs 2 or more",
}


@cache
def structure_of(path: Path) -> Structure:
    return read_structure(path)


@pytest.fixture(scope="module")
def folder(reed_data: Path) -> Path:
    return reed_data / "protein" / "structures"


def test_the_tables_name_every_file(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_read(folder: Path, name: str) -> None:
    counts, first, last, breaks, expected_notes = READ[name]
    structure = structure_of(folder / name)
    assert {chain: len(sequence) for chain, sequence in structure.chain_sequences().items()} == counts
    assert (structure.residue_ids[0], structure.residue_ids[-1]) == (first, last)
    assert structure.breaks.sum() == breaks + len(structure.chains)
    assert set(expected_notes) <= set(structure.notes)
    assert structure.name == name.rsplit(".", 1)[0]
    assert len(set(structure.residue_ids)) == len(structure)
    bonds = np.linalg.norm(np.diff(structure.coords, axis=1), axis=-1)
    assert np.abs(np.median(bonds, axis=0) - [1.46, 1.52, 1.23]).max() < 0.03
    assert all("\n" not in note and len(note) < 200 for note in structure.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(folder: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_structure(folder / name)
    assert REFUSED[name] in str(caught.value)


def test_pdb_and_mmcif_of_one_entry_agree(folder: Path) -> None:
    one, other = (structure_of(folder / name) for name in ("1A8O.pdb", "1A8O.cif"))
    assert one.residue_ids == other.residue_ids
    assert one.sequence == other.sequence
    np.testing.assert_array_equal(one.coords, other.coords)


def test_insertion_codes_of_an_antibody(folder: Path) -> None:
    ids = structure_of(folder / "1igy.cif").residue_ids
    with_code = [name for name in ids if name[-1].isalpha()]
    assert with_code == [f"{chain}{code}" for chain in "BD" for code in ("52A", "82A", "82B", "82C")]
    place = ids.index("B82")
    assert ids[place : place + 5] == ("B82", "B82A", "B82B", "B82C", "B83")


def test_the_arrays_of_the_valid_split_agree(reed_data: Path, folder: Path) -> None:
    """Another parser made those arrays: same residues, numbers, letters; coordinates up to their shift."""
    compared = 0
    with np.load(reed_data / "protein" / "backbones_valid.npz", allow_pickle=False) as archive:
        ids, offsets, scale = archive["ids"].tolist(), archive["offsets"], float(archive["scale"])
        coords, numbers, sequences = archive["coords"], archive["resnum"], archive["seqs"]
    for path in sorted(folder.glob("????_?.pdb")):
        if path.stem not in ids:
            continue
        place = ids.index(path.stem)
        first, last = offsets[place : place + 2]
        structure = structure_of(path)
        if path.stem[-1] in structure.chains:
            structure = structure.select([path.stem[-1]])
        assert structure.sequence == str(sequences[place])
        np.testing.assert_array_equal(structure.residue_numbers, numbers[first:last])
        shift = coords[first:last] * scale - structure.coords
        assert np.abs(shift - np.median(shift, axis=(0, 1))).max() < 0.01
        compared += 1
    assert compared == 19


@pytest.mark.parametrize(
    "name", ["1A8O.pdb", "2bjd_A.pdb", "4GYT.pdb", "5L33.pdb", "1hmp_A.pdb", "1igy.cif", "2XHE.cif"]
)
def test_biopython_sees_the_same_residues(folder: Path, name: str) -> None:
    """Bio.PDB's own objects, polymer residues with N, CA and C: same ids, letters and, without altlocs, coordinates."""
    from Bio.Data.PDBData import protein_letters_3to1_extended
    from Bio.PDB import MMCIFParser, PDBParser

    parser = MMCIFParser(QUIET=True) if name.endswith("cif") else PDBParser(QUIET=True)
    model = next(iter(parser.get_structure("x", str(folder / name))))
    ids, letters, points = [], [], []
    for chain in model:
        for residue in chain:
            letter = protein_letters_3to1_extended.get(residue.get_resname())
            if letter and all(atom in residue for atom in ("N", "CA", "C")):
                _, number, code = residue.id
                ids.append(f"{chain.id}{number}{code.strip()}")
                letters.append(letter)
                points.append(None if residue.is_disordered() else residue["CA"].coord)
    structure = structure_of(folder / name)
    assert list(structure.residue_ids) == ids
    assert structure.sequence == "".join(letters)
    for point, row in zip(points, structure.coords, strict=True):
        assert point is None or np.abs(point - row[1]).max() < 2e-3


def test_placed_oxygens_come_close_to_real_ones(folder: Path) -> None:
    structure = structure_of(folder / "2b24_C.pdb")
    xyz = structure.coords.astype(float)
    placed = np.array([place_oxygen(*xyz[i, :3], xyz[i + 1, 0]) for i in range(len(xyz) - 1)])
    errors = np.linalg.norm(placed - xyz[:-1, 3], axis=-1)
    assert np.median(errors) < 0.06
    assert np.percentile(errors, 95) < 0.2
