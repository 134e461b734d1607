"""Files as people have them: formats, compression, line ends, and everything that cannot be read."""

import gzip
from pathlib import Path

import pytest
from reed_core.errors import InputError
from reed_protein.structure import read_structure

EXAMPLE = Path(__file__).parents[2] / "examples" / "2bjd_A.pdb"
CIF = """data_two
loop_
_atom_site.group_PDB
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.auth_asym_id
_atom_site.auth_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
ATOM N  GLY A 1 0.000 0.000 0.000
ATOM CA GLY A 1 1.460 0.000 0.000
ATOM C  GLY A 1 2.005 1.419 0.000
ATOM N  VAL A 2 3.330 1.540 0.000
ATOM CA VAL A 2 3.970 2.850 0.000
ATOM C  VAL A 2 5.480 2.720 0.000
"""


@pytest.fixture(scope="module")
def text() -> str:
    return EXAMPLE.read_text()


@pytest.mark.parametrize("suffix", ["pdb", "ent", "pdb1", "cif", "mmcif", "txt", "PDB"])
def test_the_format_is_told_by_content_and_gzip_by_its_mark(tmp_path: Path, text: str, suffix: str) -> None:
    for content, length in ((text, 90), (CIF, 2)):
        plain, packed, hidden = tmp_path / f"x.{suffix}", tmp_path / f"x.{suffix}.gz", tmp_path / f"y.{suffix}"
        plain.write_text(content)
        packed.write_bytes(gzip.compress(content.encode()))
        hidden.write_bytes(gzip.compress(content.encode()))
        assert [len(read_structure(path)) for path in (plain, packed, hidden)] == [length] * 3
        if suffix != "txt":
            assert read_structure(packed).name == "x"


def test_marks_and_line_ends_of_other_systems(tmp_path: Path, text: str) -> None:
    expected = read_structure(EXAMPLE)
    for raw in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
    ):
        path = tmp_path / "other.pdb"
        path.write_bytes(raw)
        structure = read_structure(path)
        assert structure.residue_ids == expected.residue_ids
        assert (structure.coords == expected.coords).all()
    path.write_bytes(b"REMARK   1 K\xf6ln \xe9\n" + text.encode())
    assert len(read_structure(path)) == 90


def test_joined_files_are_read_past_end_and_conect(tmp_path: Path, text: str) -> None:
    path = tmp_path / "joined.pdb"
    path.write_text(text + "CONECT    1    2\n" + text.replace(" A ", " B "))
    structure = read_structure(path)
    assert structure.chains == ("A", "B")
    assert len(structure) == 180


def test_a_blank_chain_is_called_underscore(tmp_path: Path, text: str) -> None:
    path = tmp_path / "blank.pdb"
    path.write_text(text.replace(" A ", "   "))
    structure = read_structure(path, ["_"])
    assert structure.residue_ids[:2] == ("_12", "_13")
    assert structure.notes == ("the chain whose id the file leaves blank is called _",)


def test_models_end_with_their_record_whether_or_not_they_began_with_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.pdb"
    for first, second in (("MODEL        1\n", "MODEL        2\n"), ("", "")):
        path.write_text(f"{first}{text}ENDMDL\n{second}{text}ENDMDL\n")
        structure = read_structure(path)
        assert len(structure) == 90
        assert structure.notes == ("the first of 2 models is read",)


def test_a_second_block_of_an_mmcif_file_does_not_disturb_the_first(tmp_path: Path) -> None:
    restraints = "data_comp_LIG\nloop_\n_chem_comp_atom.comp_id\n_chem_comp_atom.atom_id\nLIG C1\nLIG C2\n"
    for text in (CIF + restraints, restraints + CIF):
        path = tmp_path / "two.cif"
        path.write_text(text)
        assert read_structure(path).sequence == "GV"


def test_unusable_files_end_in_one_sentence(tmp_path: Path, text: str) -> None:
    packed = gzip.compress(text.encode())
    cases = {
        "empty.pdb": (b"", "is empty"),
        "blank.cif": (b"\n\n", "is empty"),
        "binary.pdb": (bytes(range(256)), "is a binary file"),
        "header.pdb": (b"HEADER    NOTHING\nEND\n", "has no atoms, only a header"),
        "header.cif": (b"data_x\n_entry.id x\n", "has no coordinates"),
        "prose.dat": (b"Dear sir,\n", "holds neither PDB nor mmCIF records"),
        "half.pdb": (text.encode()[: text.index("ATOM     12") + 40], "the file is cut short"),
        "half.cif": (CIF.encode()[: CIF.index("VAL") + 20], "the file is cut short"),
        "stray.cif": ((CIF + "_exptl.method X-RAY\nATOM N\n").encode(), "stands outside every loop"),
        "shifted.cif": (
            CIF.replace("N  GLY", "N N GLY").replace("VAL A 2 5.48", "A 2 5.48").encode(),
            "row 2 of the atoms",
        ),
        "quote.cif": (CIF.replace("GLY", "'GLY").encode(), "is not a whole mmCIF file"),
        "half.pdb.gz": (packed[:-20], "cannot decompress"),
        "rotten.pdb.gz": (packed[:40] + b"rotten" + packed[46:], "cannot decompress"),
        "plain.pdb.gz": (text.encode(), "is named .gz but is not gzipped"),
        "number.pdb": (text.replace("A  13 ", "A  1x ").encode(), "is numbered '1x'"),
        "code.pdb": (text.replace("A  13 ", "A  13!").encode(), "insertion code '!'"),
    }
    for name, (raw, sentence) in cases.items():
        path = tmp_path / name
        path.write_bytes(raw)
        with pytest.raises(InputError) as caught:
            read_structure(path)
        assert sentence in str(caught.value), name
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there is no file"):
        read_structure(tmp_path / "absent.pdb")
    with pytest.raises(InputError, match="is a folder"):
        read_structure(tmp_path)
    with pytest.raises(InputError, match="must be a list of chain ids"):
        read_structure(EXAMPLE, "A")
