"""`complete`: what is kept, where new atoms may go, the frame, stereo, and files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from generation_cases import ByHeart, Call, caller, saved, tiny, write_sdf
from molecule_cases import molecule
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule.completion import complete, kept_in, sizes_around
from reed_molecule.fragment import fragment_of, read_atoms, read_fragment
from reed_molecule.generate import Generator, Request, Sizes
from reed_molecule.molecule import Molecule

ETHANOL_LIKE = "C[C@H](O)F"  # C0 C1 O2 F3, then hydrogens


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("keep", ["1-4", "1,3", "2-4,8", "1-9"])
def test_kept_atoms_stay_as_they_are(tmp_path: Path, keep: str) -> None:
    path = write_sdf(tmp_path / "whole.sdf", ETHANOL_LIKE)
    whole = molecule(ETHANOL_LIKE)
    rows = [place - 1 for place in read_atoms(keep, len(whole), "--keep")]
    if len(rows) == len(whole):
        with pytest.raises(InputError, match="nothing can grow"):
            read_fragment(path, keep)
        return
    fragment = read_fragment(path, keep)
    assert np.array_equal(fragment.places, rows)
    drawn = complete(Generator(tiny()), fragment, Request(4, steps=3, resample=2), add=Sizes.between(2, 4))
    for one in drawn.samples:
        assert isinstance(one.item, Molecule)
        k = len(rows)
        assert np.array_equal(one.item.positions[:k], fragment.kept.positions)
        assert np.array_equal(one.item.numbers[:k], whole.numbers[rows])
        assert np.array_equal(one.item.charges[:k], whole.charges[rows])
        inner = sorted(tuple(bond) for bond in one.item.bonds.tolist() if max(bond[:2]) < k)
        assert inner == sorted(tuple(bond) for bond in fragment.kept.bonds.tolist())
        crossing = {min(bond[:2]) for bond in one.item.bonds.tolist() if min(bond[:2]) < k <= max(bond[:2])}
        assert crossing <= set(np.flatnonzero(~fragment.closed).tolist())
        found = kept_in(one, fragment)
        assert found is not None
        assert found.rmsd == 0.0


def test_a_model_that_knows_the_answer_gives_it(tmp_path: Path) -> None:
    """With a perfect denoiser the completion is the molecule that the fragment was cut from, where it lies."""
    whole = molecule(ETHANOL_LIKE)
    path = write_sdf(tmp_path / "whole.sdf", ETHANOL_LIKE)
    fragment = read_fragment(path, "1-4")
    drawn = complete(Generator(ByHeart(whole)), fragment, Request(3, steps=6), atoms=Sizes({len(whole): 1}))
    for one in drawn.samples:
        assert isinstance(one.item, Molecule)
        assert np.abs(one.item.positions - whole.positions).max() < 2e-3
        assert one.connected
        assert one.identity == "CC(O)F"
        found = kept_in(one, fragment)
        assert found is not None
        assert (found.stereo, found.attached) == (True, True)


def test_stereo_is_judged_by_the_side_of_the_new_atom() -> None:
    """Moving the new neighbour of a centre to the other side is seen; the coordinates kept are the same."""
    whole = molecule(ETHANOL_LIKE)
    mol = whole.to_rdkit()
    hydrogen = next(atom.GetIdx() for atom in mol.GetAtomWithIdx(1).GetNeighbors() if atom.GetAtomicNum() == 1)
    fragment = fragment_of(mol, [place for place in range(len(whole)) if place != hydrogen], "a test")
    assert np.flatnonzero(~fragment.closed).tolist() == [1]
    drawn = complete(Generator(tiny()), fragment, Request(1, steps=1), add=Sizes({1: 1})).samples[0]
    k, centre = len(fragment), 1
    for side, expected in ((1, True), (-1, False)):
        positions = np.concatenate([fragment.kept.positions, whole.positions[[hydrogen]]]).astype(np.float32)
        arm = positions[k] - positions[centre]
        positions[k] = positions[centre] + side * arm
        bonds = np.concatenate([fragment.kept.bonds, [[centre, k, 1]]])
        item = Molecule(np.append(fragment.kept.numbers, 1), positions, np.append(fragment.kept.charges, 0), bonds)
        found = kept_in(type(drawn)(0, item, drawn.mol, False, False, "", None), fragment)
        assert found is not None
        assert found.stereo is expected


def test_where_new_atoms_may_go(tmp_path: Path) -> None:
    path = write_sdf(tmp_path / "some.sdf", "CO", "c1cc[nH]c1")
    replaced = read_fragment(path, replace="1")
    assert len(replaced) == 3
    assert np.flatnonzero(~replaced.closed).tolist() == [0]
    assert len(read_fragment(path, "1-4", record=2)) == 4
    linker = read_fragment(path, "1,3", record=2)
    assert linker.pieces == 2
    with pytest.raises(InputError, match="no hydrogen to replace"):
        read_fragment(path, replace="6")
    radical = tmp_path / "radical.sdf"
    mol = Chem.RWMol(molecule("CO").to_rdkit())
    mol.RemoveAtom(mol.GetNumAtoms() - 1)
    mol.GetAtomWithIdx(1).SetNumExplicitHs(0)
    mol.GetAtomWithIdx(1).SetNumRadicalElectrons(1)
    radical.write_text(Chem.MolToMolBlock(mol))
    fragment = read_fragment(radical)
    assert np.flatnonzero(~fragment.closed).tolist() == [1]
    assert "unpaired electron" in fragment.notes[0]
    dummy = Chem.RWMol(molecule("CO").to_rdkit())
    dummy.ReplaceAtom(dummy.GetNumAtoms() - 1, Chem.Atom(0))
    (tmp_path / "dummy.mol").write_text(Chem.MolToMolBlock(dummy))
    grown = read_fragment(tmp_path / "dummy.mol")
    assert len(grown) == 5
    assert np.flatnonzero(~grown.closed).tolist() == [1]


def test_missing_hydrogens_are_placed(tmp_path: Path) -> None:
    bare = Chem.RemoveHs(molecule("CO").to_rdkit())
    (tmp_path / "bare.sdf").write_text(Chem.MolToMolBlock(bare))
    fragment = read_fragment(tmp_path / "bare.sdf", replace="2")
    assert len(fragment) == 5
    assert "4 hydrogens" in fragment.notes[0]
    assert len(read_fragment(tmp_path / "bare.sdf", keep="1-2")) == 2


def test_sizes() -> None:
    fragment = fragment_of(molecule("CO").to_rdkit(), [0, 1], "a test")
    assert sizes_around(fragment, {2: 9, 3: 1, 7: 2}).counts == {3: 1, 7: 2}
    assert sizes_around(fragment, {2: 9}, add=Sizes({1: 1})).counts == {3: 1}
    with pytest.raises(InputError, match="--add"):
        sizes_around(fragment, {2: 9})
    with pytest.raises(InputError, match="nothing to add"):
        sizes_around(fragment, {9: 9}, atoms=Sizes({2: 1}))
    with pytest.raises(InputError, match="not both"):
        sizes_around(fragment, {9: 9}, Sizes({2: 1}), Sizes({5: 1}))


@pytest.mark.parametrize("text", ["", "0", "3-1", "1-99", "a", "1,,2", "-1", "1-2-3", "1.5", "9" * 40])
def test_atom_lists(text: str) -> None:
    with pytest.raises(InputError, match="--keep"):
        read_atoms(text, 12, "--keep")
    assert read_atoms(" 1-3, 7,2", 12, "--keep") == [1, 2, 3, 7]


def test_the_command(call: Call, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sdf(tmp_path / "some.sdf", ETHANOL_LIKE, "CS(C)(=O)=O")
    out = tmp_path / "out.sdf"
    base = ["--weights", weights, "--steps", 3, "--num", 3, "--out", out, "--quiet"]
    assert call("complete", path, "--keep", "1-4", "--add", "3-5", "--grid", tmp_path / "g.png", *base) == 0
    printed = capsys.readouterr()
    assert "kept RMSD" in printed.out
    assert "4 atoms in 1 pieces are kept" in printed.err
    mols = list(Chem.SDMolSupplier(str(out), sanitize=False, removeHs=False))
    assert len(mols) == 3
    given = np.round(molecule(ETHANOL_LIKE).positions[:4], 4)
    for mol in mols:
        assert mol.GetConformer().GetPositions()[:4] == pytest.approx(given, abs=1.1e-4)
        assert mol.GetPropsAsDict()["kept_rmsd"] == 0
        assert mol.GetPropsAsDict()["kept"] == 4
    out.unlink()
    for arguments, said in (
        ([path], "nothing can grow"),
        ([path, "--keep", "1-40"], "not within the atoms"),
        ([path, "--record", 9, "--keep", "1"], "no record 9"),
        ([path, "--record", 2, "--keep", "1-3"], "atomic number 16"),
        ([path, "--keep", "1-4", "--add", "0"], "growing"),
        ([path, "--keep", "1-4", "--atoms", "3"], "nothing to add"),
        ([tmp_path / "absent.sdf", "--keep", "1"], "no file"),
        ([tmp_path / "some.txt", "--keep", "1"], "SDF or MOL"),
        ([path, "--keep", "1-4", "--resample", 0], "from 1"),
    ):
        assert call("complete", *arguments, *base) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert not out.exists()


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    flat = Chem.MolFromSmiles("CCO")
    broken = Chem.RWMol(molecule("c1cc[nH]c1").to_rdkit())
    nitrogen = next(atom for atom in broken.GetAtoms() if atom.GetAtomicNum() == 7)
    broken.RemoveAtom(next(a.GetIdx() for a in nitrogen.GetNeighbors() if a.GetAtomicNum() == 1))
    cases = {
        "flat": (Chem.MolToMolBlock(flat), "no 3D"),
        "nonsense": ("hello\n\n\nworld\n", "does not read"),
        "empty": ("", "no record"),
        "five": (Chem.MolToMolBlock(molecule("C").to_rdkit()).replace("  1  2  1", "  1  2  3"), "sanitise"),
        "kekule": (Chem.MolToMolBlock(broken, kekulize=False), "Kekule"),
    }
    for name, (text, said) in cases.items():
        path = tmp_path / f"{name}.sdf"
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_fragment(path, "1")
