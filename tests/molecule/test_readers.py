import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from molecule_cases import SMILES, molecule
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule.molecule import Molecule
from reed_molecule.readers import Source, open_source

NEUTRAL = ("C", "O", "CO", "C#N", "c1cc[nH]c1", "c1ccncc1", "C[C@H](O)F", "F/C=C\\F", "C1CC1", "ClCBr")


def outcomes(source: Source) -> list[Molecule | str]:
    """Reads in this process: molecules, and what is said of those that are none."""
    read: list[Molecule | str] = []
    for job in source.jobs:
        try:
            read.append(source.parse(job))
        except InputError as error:
            read.append(str(error))
    assert not any("\n" in one for one in read if isinstance(one, str))
    return read


def molecules(source: Source) -> list[Molecule]:
    read = outcomes(source)
    assert all(isinstance(one, Molecule) for one in read), read
    return [one for one in read if isinstance(one, Molecule)]


def blocks(names: tuple[str, ...]) -> str:
    return "".join(f"{Chem.MolToMolBlock(molecule(name).to_rdkit())}$$$$\n" for name in names)


@pytest.mark.parametrize("packed", [False, True])
def test_sdf_round_trip(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("some.sdf.gz" if packed else "some.sdf")
    text = blocks(SMILES).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    source = open_source(path)
    assert source.geometry == "file"
    for name, back in zip(SMILES, molecules(source), strict=True):
        assert (back.name, back.smiles) == (name, molecule(name).smiles)
        np.testing.assert_array_equal(back.numbers, molecule(name).numbers)
        np.testing.assert_array_equal(back.charges, molecule(name).charges)
        np.testing.assert_allclose(back.positions, molecule(name).positions, atol=6e-5)


def test_sdf_says_what_is_missing(tmp_path: Path) -> None:
    bare = Chem.RemoveHs(molecule("CO").to_rdkit())
    flat = Chem.MolFromSmiles("CO")
    salt = Chem.CombineMols(molecule("CC(=O)[O-]").to_rdkit(), molecule("C[NH3+]").to_rdkit())
    path = tmp_path / "odd.sdf"
    path.write_text("$$$$\n".join([*(Chem.MolToMolBlock(mol) for mol in (bare, flat, salt)), "nonsense\n"]))
    said = outcomes(open_source(path))
    assert [str(one).split(":")[0] for one in said] == [
        "hydrogens missing", "no 3D coordinates", "several fragments", "not readable",
    ]  # fmt: skip
    added = outcomes(open_source(path, add_hydrogens=True))[0]
    assert isinstance(added, Molecule)
    assert added.smiles == "CO"
    assert len(added) == 6
    assert len(open_source(path, limit=2).jobs) == 2


@pytest.mark.parametrize("symbols", [True, False])
def test_xyz_perceives_bonds(tmp_path: Path, symbols: bool) -> None:
    frames = []
    for name in NEUTRAL:
        one = molecule(name)
        kinds = [Chem.GetPeriodicTable().GetElementSymbol(z) if symbols else str(z) for z in one.numbers.tolist()]
        rows = [f"{kind} {x:.6f} {y:.6f} {z:.6f}" for kind, (x, y, z) in zip(kinds, one.positions, strict=True)]
        frames.append("\n".join([str(len(one)), "a comment", *rows]))
    path = tmp_path / "some.xyz"
    path.write_text("\n".join(frames) + "\n\n")
    found = [one.smiles for one in molecules(open_source(path))]
    assert found == [molecule(name).smiles for name in NEUTRAL]


def test_xyz_of_qm9_and_folders_of_it(tmp_path: Path) -> None:
    one = molecule("O")
    rows = [
        f"{Chem.GetPeriodicTable().GetElementSymbol(z)}\t{x:.8f}\t{y:.8f}\t{w * 1e6:.4f}*^-6\t-0.1"
        for z, (x, y, w) in zip(one.numbers.tolist(), one.positions, strict=True)
    ]
    text = "\n".join(["3", "gdb 3\t1.0", *rows, "1671.4\t3803.6", "O\tO", "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2"])
    for number in (4, 3):
        (tmp_path / f"dsgdb9nsd_{number:06d}.xyz").write_text(text + "\n")
    read = molecules(open_source(tmp_path, geometry="dft-b3lyp"))
    assert [back.name for back in read] == ["dsgdb9nsd_000003", "dsgdb9nsd_000004"]
    np.testing.assert_allclose(read[0].positions, one.positions, atol=1e-6)


def test_xyz_charge_decides_what_is_found(tmp_path: Path) -> None:
    one = molecule("C[NH3+]")
    rows = [f"{z} {x} {y} {w}" for z, (x, y, w) in zip(one.numbers, one.positions, strict=True)]
    path = tmp_path / "ion.xyz"
    path.write_text("\n".join([str(len(one)), "", *rows]))
    assert molecules(open_source(path, charge=1))[0].smiles == "C[NH3+]"
    assert isinstance(outcomes(open_source(path))[0], str)


def test_smiles_get_a_geometry_that_depends_on_seed_and_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "some.smi.gz"
    lines = ["smiles name", *(f"{name} m{i}" for i, name in enumerate(NEUTRAL)), "# a comment", "", "CC(=O)[O-].[Na+]"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    source = open_source(path, seed=4)
    *good, salt = outcomes(source)
    assert source.geometry == "mmff94s"
    assert "several fragments" in str(salt)
    for i, (name, made) in enumerate(zip(NEUTRAL, good, strict=True)):
        assert isinstance(made, Molecule)
        assert (made.name, made.smiles) == (f"m{i}", molecule(name).smiles)
    again = open_source(path, seed=4).parse(source.jobs[6])
    other = open_source(path, seed=5).parse(open_source(path, seed=5).jobs[6])
    assert isinstance(good[6], Molecule)
    np.testing.assert_array_equal(again.positions, good[6].positions)
    assert np.abs(other.positions - again.positions).max() > 1e-3


def test_smiles_that_cannot_be_built_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.smi"
    path.write_text("C(C\n[CH3]\n[Zn]\nCC.CC\n*CC\n")
    said = [str(one).split(":")[0] for one in outcomes(open_source(path))]
    assert said[:2] == ["not readable", "radical"]
    assert said[3] == "several fragments"
    assert all(said)


def test_npz_layouts(tmp_path: Path) -> None:
    made = [molecule(name) for name in NEUTRAL]
    width = max(len(one) for one in made)
    numbers, positions = np.zeros((len(made), width), int), np.zeros((len(made), width, 3), np.float32)
    for row, one in enumerate(made):
        numbers[row, : len(one)], positions[row, : len(one)] = one.numbers, one.positions
    count = np.array([len(one) for one in made])
    edm = tmp_path / "edm.npz"
    np.savez(edm, charges=numbers, positions=positions, num_atoms=count, index=count + 100)
    source = open_source(edm)
    assert source.geometry == "dft-b3lyp"
    assert [one.smiles for one in molecules(source)] == [one.smiles for one in made]
    assert molecules(source)[0].name == "gdb_105"

    table = [np.column_stack([np.full(len(one), i), one.numbers, one.positions]) for i, one in enumerate(made)]
    np.save(tmp_path / "geom.npy", np.concatenate(table))
    assert [one.smiles for one in molecules(open_source(tmp_path / "geom.npy"))] == [one.smiles for one in made]
    np.save(tmp_path / "bad.npy", np.zeros((3, 4)))
    with pytest.raises(InputError, match="five columns"):
        open_source(tmp_path / "bad.npy")

    made = [molecule(name) for name in SMILES]
    twice = np.array([0, 2, 4, 6, 3])
    packed = tmp_path / "packed.npz"
    np.savez(
        packed,
        z=np.concatenate([one.numbers for one in made]).astype(np.uint8),
        charge=np.concatenate([one.charges for one in made]).astype(np.int8),
        pos=np.rint(np.concatenate([one.positions for one in made]) / 0.001).astype(np.int16),
        scale=np.float32(0.001),
        bonds=np.concatenate([np.column_stack([b[:, :2], twice[b[:, 2]]]) for b in (one.bonds for one in made)]),
        offsets=np.cumsum([0, *(len(one) for one in made)]),
        bond_offsets=np.cumsum([0, *(len(one.bonds) for one in made)]),
    )
    source = open_source(packed)
    assert source.geometry == "mmff94s"
    for one, back in zip(made, molecules(source), strict=True):
        assert back.smiles == one.smiles
        np.testing.assert_array_equal(back.bonds, one.bonds)
    np.savez(tmp_path / "bad.npz", charges=numbers, positions=positions[:-1], num_atoms=count)
    with pytest.raises(InputError, match="do not fit"):
        open_source(tmp_path / "bad.npz")


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_text_gives_a_molecule_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Characters of good files replaced, deleted or cut off: never another exception."""
    one = molecule("CO")
    rows = [f"{z} {x} {y} {w}" for z, (x, y, w) in zip(one.numbers, one.positions, strict=True)]
    suffix, text = data.draw(
        st.sampled_from(
            [(".sdf", blocks(("CO", "C#N"))), (".xyz", "\n".join(["6", "", *rows])), (".smi", "CCO a\nc1cc[nH]c1 b\n")]
        )
    )
    characters = list(text)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(characters) - 1))
        characters[at] = data.draw(st.sampled_from(["", "\n", "9", "-", "x", " ", "\0", "é", "$"]))
    path = tmp_path_factory.mktemp("fuzz") / f"some{suffix}"
    path.write_text("".join(characters)[: data.draw(st.integers(1, len(characters)))], encoding="utf-8")
    try:
        source = open_source(path)
    except InputError as error:
        said = str(error)
    else:
        said = ""
        outcomes(source)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pdf", b"x"), ("a.npz", b"x"), ("a.smi.gz", b"x"), ("a.xyz", b"two\n\n"), ("a.xyz", b"3\n\nC 0 0 0\n")],
)
def test_files_of_no_use_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        open_source(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        open_source(tmp_path / "missing.sdf")


def test_real_files(reed_data: Path) -> None:
    drugs = molecules(open_source(reed_data / "molecule" / "drugs_mmff.npz", limit=25))
    with np.load(reed_data / "molecule" / "drugs_mmff.npz") as data:
        for one, smiles in zip(drugs, data["smiles"][:25].tolist(), strict=True):
            assert Chem.MolToSmiles(Chem.MolFromSmiles(one.smiles), isomericSmiles=False) == Chem.MolToSmiles(
                Chem.MolFromSmiles(smiles), isomericSmiles=False
            )
    qm9 = outcomes(open_source(reed_data / "molecule" / "qm9_dft.npz", limit=25))
    assert sum(isinstance(one, Molecule) for one in qm9) >= 18
