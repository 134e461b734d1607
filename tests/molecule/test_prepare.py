from pathlib import Path

import pytest
from molecule_cases import SMILES, awkward, molecule
from rdkit import Chem
from reed_core.errors import InputError
from reed_molecule import prepare as module
from reed_molecule.dataset import MoleculeSet
from reed_molecule.molecule import Molecule
from reed_molecule.prepare import prepare
from reed_molecule.readers import open_source
from reed_molecule.splits import Shares
from reed_molecule.vocabulary import DRUGS, QM9
from reed_molecule.workers import Dropped, Pool


def test_a_job_that_hangs_or_crashes_costs_itself_alone() -> None:
    jobs = ["a", "hang", "b", "crash", "c", "unusable", *map(str, range(200))]
    with Pool(awkward, 1, timeout=1.0) as pool:
        answers = list(pool.map(jobs))
        assert [one for one in answers if not isinstance(one, Dropped)] == ["A", "B", "C", *map(str, range(200))]
        dropped = {i: one for i, one in enumerate(answers) if isinstance(one, Dropped)}
        assert {i: one.reason for i, one in dropped.items()} == {1: "time limit", 3: "crash", 5: "a reason"}
        assert dropped[5].detail == "a detail"
        assert list(pool.map([])) == []
        with pytest.raises(RuntimeError, match="a bug"):
            list(pool.map(["bug"]))


def write_sdf(path: Path, names: tuple[str, ...]) -> Path:
    path.write_text("".join(f"{Chem.MolToMolBlock(molecule(name).to_rdkit())}$$$$\n" for name in names))
    return path


def test_files_become_a_set_and_losses_are_counted(tmp_path: Path) -> None:
    source = open_source(write_sdf(tmp_path / "some.sdf", SMILES))
    out = tmp_path / "some.safetensors"
    done = prepare([(source, None)], out, QM9, Shares(0.6, 0.2, 0.2), workers=2)
    known = [name for name in SMILES if not any(letter in name for letter in ("B", "S", "Cl"))]
    made = MoleculeSet.read(out)
    assert [one.name for one in made] == known
    assert [one.smiles for one in made] == [molecule(name).smiles for name in known]
    assert done.dropped == {"outside the vocabulary": len(SMILES) - len(known)} == dict(made.stored.about.dropped or {})
    assert done.distinct == len(known) - 2  # two pairs of stereoisomers
    assert sum(done.molecules.values()) == len(known)
    sides = {one.name: split for one, split in zip(made, made.stored.split.tolist(), strict=True)}
    assert sides["C[C@H](O)F"] == sides["C[C@@H](O)F"]
    assert made.geometry == "file"
    assert len((tmp_path / "some.safetensors.dropped.tsv").read_text().splitlines()) == 1 + len(SMILES) - len(known)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "some.safetensors",
        "some.safetensors.dropped.tsv",
        "some.sdf",
    ]


def test_given_splits_never_share_a_molecule(tmp_path: Path) -> None:
    train = open_source(write_sdf(tmp_path / "train.sdf", ("CO", "C", "C[C@H](O)F", "CO")))
    test = open_source(write_sdf(tmp_path / "test.sdf", ("O", "C[C@@H](O)F")))
    done = prepare([(train, "train"), (test, "test")], tmp_path / "out", DRUGS)
    assert done.molecules == {"train": 3, "valid": 0, "test": 2}
    assert done.dropped == {"in another split too": 1}
    assert [one.name for one in MoleculeSet.read(tmp_path / "out", "test")] == ["O", "C[C@@H](O)F"]
    assert "C[C@H](O)F\tin another split too" in (tmp_path / "out.dropped.tsv").read_text()


def test_a_run_that_stopped_is_taken_up_and_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 5)
    source = open_source(write_sdf(tmp_path / "some.sdf", SMILES))
    prepare([(source, None)], tmp_path / "whole", QM9)
    calls = []
    work = module._part

    def stops(place: Path, *rest: object) -> object:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(place)
        return work(place, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_part", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare([(source, None)], tmp_path / "stopped", QM9)
    assert not (tmp_path / "stopped").exists()
    monkeypatch.setattr(module, "_part", work)
    with pytest.raises(InputError, match="another preparation"):
        prepare([(source, None)], tmp_path / "stopped", DRUGS)
    kept = [(tmp_path / "stopped.parts" / f"{place.name}.safetensors").stat().st_mtime_ns for place in calls]
    assert len(kept) == 2
    prepare([(source, None)], tmp_path / "stopped", QM9)
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "stopped.parts").exists()


def test_what_cannot_be_prepared_is_refused(tmp_path: Path) -> None:
    sdf = open_source(write_sdf(tmp_path / "some.sdf", ("ClCBr",)))
    relaxed = open_source(tmp_path / "some.sdf", geometry="mmff94s")
    with pytest.raises(InputError, match="geometry do not mix"):
        prepare([(sdf, None), (relaxed, None)], tmp_path / "out", DRUGS)
    with pytest.raises(InputError, match="a split for every file"):
        prepare([(sdf, None), (sdf, "test")], tmp_path / "out", DRUGS)
    with pytest.raises(InputError, match="no usable molecule"):
        prepare([(sdf, None)], tmp_path / "out", QM9)
    assert not (tmp_path / "out").exists()


def test_real_files_of_dft_and_mmff_geometry_are_prepared_apart(reed_data: Path, tmp_path: Path) -> None:
    made = []
    for name, vocabulary in (("qm9_dft.npz", QM9), ("drugs_mmff.npz", DRUGS)):
        source = open_source(reed_data / "molecule" / name, limit=24)
        done = prepare([(source, None)], tmp_path / name, vocabulary)
        assert sum(done.molecules.values()) + sum(done.dropped.values()) == 24
        assert sum(done.molecules.values()) >= 18
        made.append(MoleculeSet.read(tmp_path / name))
        for one in made[-1]:
            assert Molecule.from_rdkit(one.to_rdkit()).smiles == one.smiles
    assert [one.geometry for one in made] == ["dft-b3lyp", "mmff94s"]
    with pytest.raises(InputError, match="do not mix"):
        MoleculeSet.join(made)
