import gzip
import struct

import numpy as np
import pytest
from molecule.metric_cases import drawn, made
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule.molecule import Molecule
from reed_molecule.writers.grid import write_grid
from reed_molecule.writers.pdb import write_pdb
from reed_molecule.writers.sdf import write_sdf
from reed_molecule.writers.xyz import write_xyz

SMILES = ["C", "c1ccc([N+](=O)[O-])cc1Cl", "C[C@H](N)C(=O)[O-]"]
OVERFULL = drawn([8, 1, 1, 1], [(0, 1, 1), (0, 2, 1), (0, 3, 1)])


@pytest.fixture
def molecules() -> list[Molecule]:
    return [made(smiles) for smiles in SMILES]


@pytest.mark.parametrize("name", ["out.sdf", "out.sdf.gz"])
def test_sdf_comes_back_with_names_and_tags(tmp_path, molecules, name):
    path = tmp_path / name
    write_sdf(path, molecules, [{"index": k, "stable": True, "strain": 1.5} for k in range(3)])
    content = path.read_bytes()
    supplier = Chem.SDMolSupplier()
    supplier.SetData((gzip.decompress(content) if name.endswith("gz") else content).decode(), removeHs=False)
    for k, (back, given) in enumerate(zip(supplier, molecules, strict=True)):
        read = Molecule.from_rdkit(back)
        assert (read.smiles, read.name) == (given.smiles, given.name)
        np.testing.assert_allclose(read.positions, given.positions, atol=1e-4)
        assert back.GetPropsAsDict() == {"index": k, "stable": "True", "strain": 1.5}


def test_sdf_keeps_what_rdkit_refuses_as_it_was_drawn(tmp_path, molecules):
    write_sdf(tmp_path / "a.sdf", [OVERFULL, drawn([6, 6], [(0, 1, 4)]), molecules[0]])
    strange, aromatic, whole = Chem.SDMolSupplier(str(tmp_path / "a.sdf"), sanitize=False, removeHs=False)
    assert (strange.GetNumAtoms(), strange.GetNumBonds()) == (4, 3)
    assert aromatic.GetBondWithIdx(0).GetBondType() == Chem.BondType.AROMATIC
    assert whole.GetNumAtoms() == 5


@pytest.mark.parametrize("tags", [{"a\nb": 1}, {"": 1}, {"a<": 1}, {"a": "x\n\ny"}, {"a": "$$$$"}, {"a": ""}])
def test_tags_that_would_break_a_record_leave_the_earlier_file(tmp_path, molecules, tags):
    path = tmp_path / "a.sdf"
    path.write_text("earlier")
    with pytest.raises(InputError):
        write_sdf(path, molecules[:1], [tags])
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_xyz_frames(tmp_path, molecules):
    write_xyz(tmp_path / "a.xyz", molecules, comments=["one", "two", "three"])
    lines = (tmp_path / "a.xyz").read_text().splitlines()
    for given, comment in zip(molecules, ["one", "two", "three"], strict=True):
        n, said, rows = int(lines[0]), lines[1], lines[2 : 2 + int(lines[0])]
        assert (n, said) == (len(given), comment)
        symbols = [Chem.GetPeriodicTable().GetAtomicNumber(row.split()[0]) for row in rows]
        assert symbols == given.numbers.tolist()
        np.testing.assert_allclose([[float(x) for x in row.split()[1:]] for row in rows], given.positions, atol=1e-5)
        lines = lines[2 + n :]
    assert not lines
    with pytest.raises(InputError, match="one line"):
        write_xyz(tmp_path / "b.xyz", molecules[:1], comments=["a\nb"])


def test_pdb_is_read_back_with_its_bonds(tmp_path, molecules):
    write_pdb(tmp_path / "a.pdb", molecules[1:2])
    given = molecules[1]
    back = Chem.MolFromPDBFile(str(tmp_path / "a.pdb"), removeHs=False, sanitize=False, proximityBonding=False)
    assert [atom.GetAtomicNum() for atom in back.GetAtoms()] == given.numbers.tolist()
    assert [atom.GetFormalCharge() for atom in back.GetAtoms()] == given.charges.tolist()
    pairs = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in back.GetBonds()}
    assert pairs == {tuple(row) for row in given.bonds[:, :2].tolist()}
    np.testing.assert_allclose(back.GetConformer().GetPositions(), given.positions, atol=6e-4)


def test_pdb_models_and_columns(tmp_path, molecules):
    write_pdb(tmp_path / "a.pdb", molecules)
    lines = (tmp_path / "a.pdb").read_text().splitlines()
    assert sum(line.startswith("MODEL") for line in lines) == sum(line == "ENDMDL" for line in lines) == 3
    assert {len(line) for line in lines if line.startswith("HETATM")} == {80}
    molecules[0].positions[0, 0] = 1e5
    with pytest.raises(InputError, match="does not fit"):
        write_pdb(tmp_path / "b.pdb", molecules[:1])
    assert not (tmp_path / "b.pdb").exists()


def test_grid_is_a_png_of_the_right_size(tmp_path, molecules):
    write_grid(tmp_path / "a.png", [*molecules, OVERFULL], columns=3, size=150)
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (450, 300)
    with pytest.raises(InputError, match="1 to 400"):
        write_grid(tmp_path / "b.png", [])
