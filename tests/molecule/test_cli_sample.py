"""`sample`: counts, tags, formats, seeds, and what is refused before anything is drawn."""

from pathlib import Path

import pytest
import torch
from generation_cases import ByHeart, Call, caller, saved
from molecule_cases import molecule
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule import generate
from reed_molecule.generate import Generator, Request, Sizes, load
from reed_molecule.known import Known
from reed_molecule.molecule import Molecule, flat_smiles
from reed_molecule.readers.records import read_records


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights"), "CO", "CC")


def records(path: Path) -> list[dict[str, str]]:
    mols = Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
    return [mol.GetPropsAsDict() | {"atoms": mol.GetNumAtoms()} for mol in mols]


def test_counts_are_printed_and_records_tagged(
    call: Call, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "some.sdf"
    assert call("sample", "--weights", weights, "--num", 4, "--steps", 3, "--seed", 2, "--out", out, "--quiet") == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[:5]] == [
        "drawn", "valid", "connected", "unique", "novel",
    ]  # fmt: skip
    assert printed.out.splitlines()[0].split() == ["drawn", "4"]
    assert "wrote 4 molecules" in printed.err
    said = records(out)
    assert [one["number"] for one in said] == [0, 1, 2, 3]
    assert {(one["seed"], one["steps"], one["weights"]) for one in said} == {(2, 3, str(weights))}
    assert all({"valid", "connected", "stable", "stable_by_distance", "no_radical"} <= set(one) for one in said)


def test_a_molecule_does_not_depend_on_the_others(call: Call, weights: Path, tmp_path: Path) -> None:
    for name, num in (("few", 2), ("many", 5)):
        assert call("sample", "--weights", weights, "--num", num, "--steps", 3, "--out", tmp_path / f"{name}.xyz") == 0
    few, many = ((tmp_path / f"{name}.xyz").read_text().splitlines() for name in ("few", "many"))
    assert [line.split()[0] for line in few] == [line.split()[0] for line in many[: len(few)]]
    for one, other in zip(few, many, strict=False):
        if len(one.split()) == 4:
            assert [float(x) for x in one.split()[1:]] == pytest.approx([float(x) for x in other.split()[1:]], abs=1e-3)


def test_a_formula_is_met_exactly(
    call: Call, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "some.sdf"
    base = ["sample", "--weights", weights, "--num", 3, "--steps", 3]
    assert call(*base, "--formula", "C2H5NO", "--out", out) == 0
    for item in read_records(out):
        assert sorted(item.numbers.tolist() if isinstance(item, Molecule) else []) == [1] * 5 + [6, 6, 7, 8]
    for wrong in ("c2", "C2H5-", "C2Cl", "", "C99999", "2C"):
        assert call(*base, "--formula", wrong, "--out", tmp_path / "no.sdf") == 2
        assert capsys.readouterr().err.count("\n") <= 3
    assert not (tmp_path / "no.sdf").exists()


def test_sizes_grid_and_trajectory(call: Call, weights: Path, tmp_path: Path) -> None:
    out, grid, way = tmp_path / "some.pdb", tmp_path / "some.png", tmp_path / "way.xyz"
    options = ["--num", 3, "--steps", 4, "--atoms", "5-6", "--grid", grid, "--trajectory", way, "--trajectory-of", 1]
    assert call("sample", "--weights", weights, "--out", out, *options) == 0
    assert out.read_text().count("MODEL ") == 3
    assert grid.read_bytes().startswith(b"\x89PNG")
    lines = way.read_text().splitlines()
    size = int(lines[0])
    assert size in (5, 6)
    assert len(lines) == 5 * (size + 2)
    assert lines[1].startswith("sample 1 t=1")
    assert lines[-size - 1] == "sample 1 t=0.0000"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x.mol2"], "ends in"),
        (["--out", "x.sdf", "--num", 0], "from 1"),
        (["--out", "x.sdf", "--steps", 0], "from 1"),
        (["--out", "x.sdf", "--only", "good"], "expected one of"),
        (["--out", "x.sdf", "--at-most", 9], "--only"),
        (["--out", "x.sdf", "--num", 5, "--only", "valid", "--at-most", 2], "cannot hold"),
        (["--out", "x.sdf", "--atoms", "9-5"], "growing"),
        (["--out", "x.sdf", "--atoms", "5000"], "growing"),
        (["--out", "x.sdf", "--atoms", "some"], "such as 18"),
        (["--out", "x.sdf", "--atoms", "5", "--formula", "CH4"], "formula"),
        (["--out", "x.sdf", "--relax", "dft"], "mmff or xtb"),
        (["--out", "x.sdf", "--grid", "x.svg"], ".png"),
        (["--out", "x.sdf", "--device", "abacus"], "unknown"),
        (["--out", "x.sdf", "--trajectory", "w.xyz", "--trajectory-of", 9], "not drawn"),
    ],
)
def test_bad_requests_end_in_one_line(
    call: Call, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("sample", "--weights", weights, "--steps", 2, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights 'geom'.*comes with drugs, qm9"):
        load("geom")
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(InputError, match="cannot be used"):
        load(saved(tmp_path / "w"), "cuda:77")


def test_the_python_interface(weights: Path) -> None:
    import reed_molecule

    model = reed_molecule.load(weights)
    assert isinstance(model, reed_molecule.Generator)
    assert all(isinstance(mol, Chem.Mol) for mol in model.sample(3, steps=2, only="any"))
    with pytest.raises(AttributeError, match="nothing"):
        _ = reed_molecule.nothing
    by_heart = Generator(ByHeart(molecule("CO")), Known.of_smiles(["CO"]), "heart")
    found = by_heart.sample(3, steps=4, only="connected")
    assert [Chem.MolToSmiles(Chem.RemoveHs(mol)) for mol in found] == ["CO"] * 3
    assert found[0].GetNumConformers() == 1
    drawn = by_heart.draw(Request(4, steps=4))
    assert drawn.summary.valid == drawn.summary.connected == drawn.summary.stable == 4
    assert (drawn.summary.unique, drawn.summary.novel) == (1, 0)
    assert by_heart.sample(2, steps=2, only="novel", at_most=6) == []


def test_drawing_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first N that pass of one numbered sequence, however it is cut into rounds."""
    generator = Generator(ByHeart(molecule("CO")))
    monkeypatch.setattr("reed_molecule.generated.Generated.passes", lambda self, only: self.number % 3 == 0)
    request = Request(5, steps=1, only="valid", at_most=40)
    cut = []
    for rounds in (1, 2, 64):
        monkeypatch.setattr(generate, "_ROUND", rounds)
        drawn = generator.draw(request)
        cut.append(([one.number for one in drawn.kept], len(drawn.samples)))
    assert cut == [([0, 3, 6, 9, 12], 13)] * 3
    assert len(generator.draw(Request(5, steps=1, only="valid", at_most=6)).kept) == 2


def test_known_molecules(tmp_path: Path) -> None:
    known = Known.of_smiles(["CO", "CCO", "CO"])
    known.write(tmp_path)
    again = Known.read(tmp_path)
    assert again is not None
    assert len(again) == 2
    assert flat_smiles("OC") in again
    assert "CN" not in again
    assert 3 not in again
    assert Known.read(tmp_path / "elsewhere") is None
    many = Known.of(torch.randint(-(2**62), 2**62, (5000,)).numpy())
    many.write(tmp_path)
    assert (tmp_path / "known.safetensors").stat().st_size < 5 * 5000 + 200
    (tmp_path / "known.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="known molecules"):
        Known.read(tmp_path)


def test_sizes_follow_their_weights() -> None:
    drawn = Sizes({4: 3, 9: 1}).draw(range(2000), 0)
    assert set(drawn) == {4, 9}
    assert drawn.count(4) / 2000 == pytest.approx(0.75, abs=0.05)
    assert Sizes({4: 3, 9: 1}).draw([7], 0) == [drawn[7]]
    with pytest.raises(InputError, match="numbers of atoms"):
        Sizes({})
