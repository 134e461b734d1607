"""Files, folders and patterns; what stands near the designed residues."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.inputs import find
from reed_protein.structure import Unseen
from reed_protein.surroundings import near


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_folders_and_patterns_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "b.pdb", "d/z.cif.gz", "d/a.ENT", "d/readme.md", "d/.c.pdb", "d/e/deep.cif", "d/x.pdb1.gz")
    found = find(["b.pdb", "d", "d/*.gz", "d/**/*.cif", str(tmp_path / "b.pdb"), "absent.pdb"])
    assert [str(item.path) for item in found.files] == [
        "b.pdb", "d/a.ENT", "d/x.pdb1.gz", "d/z.cif.gz", "d/e/deep.cif", "absent.pdb",
    ]  # fmt: skip
    assert [item.name for item in found.files] == ["b", "a", "x", "z", "deep", "absent"]
    assert found.problems == ()


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].pdb")
    assert [item.name for item in find([str(tmp_path / "a[1].pdb")]).files] == ["a[1]"]


def test_two_proteins_with_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    touch(tmp_path, "x.pdb", "x.cif", "y.pdb", "other/y.pdb")
    assert [item.name for item in find([str(tmp_path / "x.*")]).files] == ["x.cif", "x.pdb"]
    with pytest.raises(InputError, match="would be written to one file"):
        find([str(tmp_path / "y.pdb"), str(tmp_path / "other")])


def test_what_stands_for_no_file_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "d/readme.md")
    found = find([str(tmp_path / "d"), str(tmp_path / "*.cif")])
    assert found.files == ()
    assert "folder holds no structure file" in found.problems[0]
    assert "pattern matches no structure file" in found.problems[1]


def test_ligands_near_designed_residues_are_counted_by_their_nearest_atom() -> None:
    structure = helix(40)
    designed = np.arange(40) < 8
    ca, far = structure.coords[3, 1], structure.coords[-1, 1]
    out = ca - structure.coords[:, 1].mean(0)
    out /= np.linalg.norm(out)
    points = {
        "ZN": [ca + 3.0 * out],
        "LIG": [ca + 200.0 * out, ca + 4.0 * out],
        "FAR": [ca + 60.0 * out],
        "MG": [far + 1.0],
    }
    unseen = [Unseen(name, np.array(where, dtype=np.float32)) for name, where in points.items()]
    seen = near(replace(structure, unseen=(*unseen, unseen[0])), designed)
    assert seen == Counter({"ZN": 2, "LIG": 1})
    atoms = structure.coords[designed].reshape(-1, 3)
    for molecule in unseen:
        distance = np.linalg.norm(molecule.coords[:, None] - atoms, axis=-1).min()
        assert (molecule.name in seen) == (distance <= 6.0)
