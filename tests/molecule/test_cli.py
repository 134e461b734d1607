"""The command line of reed-molecule: `prepare`, `train` and `evaluate`, and how all of it refuses."""

import tarfile
import urllib.error
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from generation_cases import TINY, Call, caller, saved, write_sdf
from molecule_cases import SMILES, molecule
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_molecule import collect as collecting
from reed_molecule import splits
from reed_molecule.dataset import MoleculeSet
from reed_molecule.download import Remote, fetch
from reed_molecule.generate import load
from reed_molecule.model import MoleculeModel
from reed_molecule.recipe import recipe_path
from reed_molecule.writers.xyz import write_xyz

SMALL = tuple(one for one in SMILES if not any(letter in one for letter in ("B", "S", "Cl")))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(monkeypatch)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of a few molecules, in the file that `prepare` writes."""
    folder = tmp_path_factory.mktemp("prepared")
    patch = pytest.MonkeyPatch()
    names = [f"train={write_sdf(folder / 'a.sdf', *SMALL[:10])}", f"valid={write_sdf(folder / 'b.sdf', *SMALL[10:13])}"]
    assert caller(patch)("prepare", *names, "--out", folder / "set", "--elements", "qm9", "--quiet") == 0
    patch.undo()
    return folder / "set"


def test_without_arguments_it_shows_its_help(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("prepare", "train", "sample", "complete", "evaluate"))
    assert call("unheard") == 2
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("reed-molecule ")


def test_a_set_is_prepared(prepared: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(MoleculeSet.read(prepared, "train")) == 10
    out = tmp_path / "again"
    source = write_sdf(tmp_path / "all.sdf", *SMILES)
    options = ["--elements", "H,C,N,O,F", "--charges", "0", "--shares", "0.5,0.3,0.2", "--workers", 1, "--quiet"]
    assert call("prepare", source, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    assert "outside the vocabulary" in printed
    assert MoleculeSet.read(out).vocabulary.charges == (0,)
    for arguments, said in (
        ([tmp_path / "absent.sdf"], "no file"),
        ([source, "--elements", "Xx"], "element symbols"),
        ([source, "--charges", "a"], "whole numbers"),
        ([source, "--shares", "1,2"], "three numbers"),
        ([source, "--shares", "0.5,0.2,0.2"], "sum to 1"),
        ([source, "--geometry", "guess"], "expected one of"),
        ([source, "--split", "mine"], "edm or midi"),
        ([f"train={source}", source], "a split for every file"),
        ([source, "--workers", 0], "at least one worker"),
        ([source, "--limit", 0], "at least 1"),
    ):
        assert call("prepare", *arguments, "--out", tmp_path / "no", "--quiet") == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no").exists()


def write_qm9(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive and list in the form of QM9's, which the program takes for the real ones."""
    folder.mkdir()
    listed = folder / "uncharacterized.txt"
    listed.write_text("=====\nIndex SMILES\n=====\n" + "".join(f"{n:6d}  C\n" for n in range(1, 3055)) + "=====\n")
    archive = folder / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for place, smiles in enumerate(("CO", "C#N", "C", "C1CC1", "c1cc[nH]c1", "O"), start=3053):
            file = folder / f"dsgdb9nsd_{place:06d}.xyz"
            write_xyz(file, [molecule(smiles)], [f"gdb {place}\t0.0"])
            text = file.read_text().replace("0.0000", "0.*^-4")
            file.write_text(text + "1 2 3\nC\tC\nInChI=1\tInChI=1\n")
            tar.add(file, file.name)
            file.unlink()
    for name, path in (("QM9_ARCHIVE", archive), ("QM9_UNCHARACTERISED", listed)):
        content = path.read_bytes()
        remote = Remote(path.name, "https://example.org/file", len(content), md5(content).hexdigest())
        monkeypatch.setattr(collecting, name, remote)


@pytest.mark.parametrize("split", ["edm", "midi"])
def test_qm9_by_name(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    write_qm9(tmp_path / "raw", monkeypatch)
    out = tmp_path / "qm9"
    assert call("prepare", "qm9", "--raw", tmp_path / "raw", "--split", split, "--out", out, "--quiet") == 0
    made = MoleculeSet.read(out)
    assert made.geometry == "dft-b3lyp"
    assert {one.name for one in made} == {"gdb_3055", "gdb_3056", "gdb_3057", "gdb_3058"}
    numbers = np.array([int(one.name.removeprefix("gdb_")) for one in made])
    assert made.stored.split.tolist() == getattr(splits, split)(numbers, range(1, 3055)).tolist()


def test_the_splits_of_midi() -> None:
    numbers = np.arange(3055, 133886)
    found = splits.midi(numbers, range(1, 3055))
    counts = np.bincount(found)
    assert counts.sum() == 130_831
    assert abs(counts[0] / 130_831 - 100_000 / 133_885) < 0.005
    assert not np.array_equal(found, splits.edm(numbers, range(1, 3055)))
    with pytest.raises(InputError, match="3,054"):
        splits.midi(numbers, [1, 2])


def test_files_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, capsys) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    assert call("prepare", "qm9", "--raw", tmp_path / "raw", "--out", tmp_path / "qm9") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "by hand" in error
    assert not (tmp_path / "qm9").exists()
    assert not (tmp_path / "raw").exists()
    remote = Remote("a.txt", "https://example.org/a.txt", 5, md5(b"hello").hexdigest())
    served = [b"hello", b"hellp", b"hello and more"]

    class Answer:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, size: int) -> bytes:
            piece, self.content = self.content[:size], self.content[size:]
            return piece

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(served.pop(0)))
    seen: list[int] = []
    assert fetch(remote, tmp_path / "one", seen.append).read_bytes() == b"hello"
    assert sum(seen) == 5
    assert fetch(remote, tmp_path / "one").read_bytes() == b"hello"
    for _ in range(2):
        with pytest.raises(InputError, match="MD5"):
            fetch(remote, tmp_path / "two")
    assert not list((tmp_path / "two").iterdir())
    (tmp_path / "two" / "a.txt").write_text("other")
    with pytest.raises(InputError, match="remove it"):
        fetch(remote, tmp_path / "two")


def recipe(folder: Path, prepared: Path, more: str = "") -> Path:
    path = folder / "small.toml"
    sizes = "\n".join(f"{name} = {value}" for name, value in TINY.model_dump().items() if isinstance(value, int))
    sizes = sizes.replace("False", "false")
    path.write_text(f'data = "{prepared}"\nbatch_pairs = 300\n{more}\n[network]\n{sizes}\n[train]\nsamples = 16\n')
    return path


def test_train_then_sample(call: Call, tmp_path: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = recipe(tmp_path, prepared), tmp_path / "run"
    assert call("train", path, "--out", run, "--dry-run", "--threads", 1) == 0
    printed = capsys.readouterr()
    assert "10 molecules to train" in printed.err
    assert "16 molecules in" in printed.out
    assert not run.exists()
    assert call("train", path, "--out", run, "--threads", 1, "--quiet") == 0
    model = load(run / "weights")
    assert model.known is not None
    assert len(model.known) == 10 - 1  # two stereoisomers are one molecule
    assert call("sample", "--weights", run / "weights", "--num", 2, "--steps", 2, "--out", tmp_path / "x.sdf") == 0
    capsys.readouterr()
    for arguments, said in (
        (["absent"], "drugs-small, geom_drugs_reed, qm9, qm9-guided, qm9-small"),
        ([path, "--set", "train.samples=0"], "train.samples"),
        ([path, "--set", "data=elsewhere"], "no prepared set"),
        ([path, "--init", "geom"], "no weights 'geom'"),
    ):
        assert call("train", *arguments, "--out", tmp_path / "no") == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no").exists()
    assert recipe_path("qm9-small").is_file()


def test_training_starts_from_other_weights(
    call: Call, tmp_path: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of another vocabulary are taken element by element, and what they lack is named."""
    other = saved(tmp_path / "other")
    source = write_sdf(tmp_path / "s.sdf", "CS(C)(=O)=O", "ClCBr", "CO", "C", "O", "C#N")
    options = ["--elements", "drugs", "--shares", "0.7,0.3,0", "--quiet"]
    assert call("prepare", source, "--out", tmp_path / "set", *options) == 0
    capsys.readouterr()
    path = recipe(tmp_path, tmp_path / "set")
    assert call("train", path, "--init", other, "--dry-run", "--out", tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "reinitialised: nothing" in said
    assert "unknown to the weights" in said
    assert "P" not in said.split("unknown to the weights:")[1]
    from reed_core.train.config import read_config
    from reed_molecule.recipe import Recipe
    from reed_molecule.start import start_of

    begin = start_of(read_config(Recipe, path, [f"init={other}"]))
    given = from_pretrained(MoleculeModel, other)
    assert begin.model.config.scale == given.config.scale
    own = begin.model.state_dict()
    carbon = begin.model.config.elements.index("C"), given.config.elements.index("C")
    for name in ("network.types.weight", "network.say_type.weight"):
        assert own[name][carbon[0]].equal(given.state_dict()[name][carbon[1]])
    assert own["network.types.weight"][-1].equal(given.state_dict()["network.types.weight"][-1])
    block = next(name for name in own if name.startswith("network.blocks.0"))
    assert own[block].equal(given.state_dict()[block])
    assert call("train", path, "--init", other, "--set", "network.width=32", "--dry-run", "--out", tmp_path / "r") == 2
    assert "most blocks" in capsys.readouterr().err


def test_evaluate(call: Call, tmp_path: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sdf(tmp_path / "some.sdf", *SMALL[:5])
    table = ["evaluate", path, "--no-strain"]
    assert call(*table, "--reference", prepared, "--real", "--known", prepared) == 0
    rows = {line[:40].strip(): line.split()[-2:] for line in capsys.readouterr().out.splitlines()}
    assert rows["drawn"] == ["5", "6"]
    assert rows["valid %"] == ["100.0", "100.0"]
    assert rows["novel % of unique (without stereo)"][0] == "0.0"
    weights = saved(tmp_path / "weights", *SMALL[:5])
    assert call(*table, "--weights", weights) == 0
    assert "0.0" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("novel"))
    assert call("evaluate", "--weights", weights, "--num", 3, "--steps", 2, "--no-strain", "--quiet") == 0
    assert "2 steps" in capsys.readouterr().out
    names = tmp_path / "names.smi"
    names.write_text("CO methanol\nnonsense\n")
    assert call(*table, "--known", names) == 0
    capsys.readouterr()
    bare = tmp_path / "bare.sdf"
    from rdkit import Chem

    bare.write_text(Chem.MolToMolBlock(Chem.RemoveHs(molecule("CO").to_rdkit())))
    for arguments, said in (
        ([], "nothing to evaluate"),
        ([tmp_path / "absent.sdf"], "no file"),
        ([path, "--real"], "--reference"),
        ([path, "--split", "train"], "--reference"),
        ([path, "--reference", prepared, "--split", "mine"], "expected one of"),
        ([path, "--reference", path, "--split", "test"], "no splits"),
        ([path, "--known", prepared, "--stereo"], "without stereo"),
        ([path, "--limit", 0], "at least 1"),
        ([bare], "hydrogens"),
    ):
        assert call("evaluate", *arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
