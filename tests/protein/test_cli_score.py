"""The commands `score`, `probs` and `scan` as the program runs them: results, pictures, mistakes."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer
from made_structures import helix
from reed_core import console
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_protein import cli_score
from reed_protein.design import Designer, load
from reed_protein.fasta import FastaRecord, write_fasta
from reed_protein.network import InverseFolding, NetworkConfig
from reed_protein.outputs import Outputs, write_outputs
from reed_protein.pdb_writer import write_pdb
from reed_protein.structure import read_structure


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(5)
    save_pretrained(InverseFolding(NetworkConfig(width=16, neighbours=8, encoder_layers=1, decoder_layers=1)), folder)
    return folder


@pytest.fixture(scope="module")
def designer(weights: Path) -> Designer:
    return load(weights)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    path = tmp_path / "helix.pdb"
    write_pdb(helix(24), path)
    return path


class Done(NamedTuple):
    """How a program ended."""

    code: object
    out: str
    err: str


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    program = typer.Typer()
    cli_score.register(program)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["reed-protein", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            console.run(program)
        return Done(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(call: Callable[..., Done]) -> Callable[..., str]:
    """Runs a command that must end with one clear line and exit code 2, and returns that line."""

    def run(*arguments: object) -> str:
        done = call(*arguments)
        assert (done.code, done.out) == (2, ""), done.err
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("kind", ["any-order", "one-shot"])
def test_the_score_in_a_header_is_what_score_prints(
    kind: str, backbone: Path, weights: Path, tmp_path: Path, call: Callable[..., Done]
) -> None:
    options = ("--weights", weights, "--fix", "A5-9", "--num", 3, "--temperature", 0.8, "--order", "confidence")
    options += () if kind == "any-order" else ("--score", kind)
    command = [sys.executable, "-c", "from reed_protein.cli import main; main()", "fold-invert", backbone, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    (tmp_path / "designs.fa").write_text(text)
    headers = [line for line in text.splitlines() if line.startswith(">")]
    said = [float(header.split("score=")[1].split(",")[0]) for header in headers]
    (named,) = {header.split("score_kind=")[1].split(",")[0] for header in headers}
    assert named == kind.replace("-", "_")
    out = tmp_path / "scores.csv"
    sequences = ("--sequences", tmp_path / "designs.fa", "--weights", weights)
    done = call("score", backbone, *sequences, "--fix", "A5-9", "--out", out)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(out.open()))
    np.testing.assert_allclose([float(row[named]) for row in rows], said, atol=1e-5, rtol=0)
    assert [row["sample"] for row in rows] == ["", "1", "2", "3"]
    assert {row["residues"] for row in rows} == {"19"}
    shown = call("score", backbone, *sequences, "--fix", "A5-9").out.splitlines()
    place = shown[0].split().index(named) - len(shown[0].split())
    assert [line.split()[place] for line in shown[1:]] == [row[named] for row in rows]


def test_probs_and_scan_of_the_native_agree(
    backbone: Path, weights: Path, designer: Designer, tmp_path: Path, call: Callable[..., Done]
) -> None:
    npz, table, picture = tmp_path / "p.npz", tmp_path / "s.json", tmp_path / "h.png"
    done = call("probs", backbone, "--out", npz, "--weights", weights, "--logo", tmp_path / "l.png")
    assert done.code == 0, done.err
    assert done.out == ""
    done = call("scan", backbone, "--out", table, "--weights", weights, "--residues", "A3-6,A20", "--heatmap", picture)
    assert done.code == 0, done.err
    assert picture.read_bytes()[:4] == (tmp_path / "l.png").read_bytes()[:4] == b"\x89PNG"
    held, rows = np.load(npz), json.loads(table.read_text())["rows"]
    ids, letters = list(held["residue_ids"]), "".join(held["alphabet"])
    assert {row["residue_id"] for row in rows} == {"A3", "A4", "A5", "A6", "A20"}
    for row in rows:
        at, wild, mutant = ids.index(row["residue_id"]), *map(letters.index, (row["wild_type"], row["mutant"]))
        for name, p in (("log_odds", held["conditional"][0]), ("log_odds_backbone", held["unconditional"])):
            assert row[name] == pytest.approx(np.log(p[at, mutant] / p[at, wild]), abs=2e-5)


def test_a_given_sequence_is_scanned_instead_of_the_native(
    backbone: Path, weights: Path, tmp_path: Path, call: Callable[..., Done], refused: Callable[..., str]
) -> None:
    write_fasta(tmp_path / "in.fa", [FastaRecord("a", {}, "A" * 24), FastaRecord("b", {}, "G" * 23 + "X")])
    given = ("--sequences", tmp_path / "in.fa", "--weights", weights)
    done = call("scan", backbone, *given, "--record", 2)
    assert {row["wild_type"] for row in csv.DictReader(done.out.splitlines())} == {"G"}
    assert "1 residue of unknown type" in done.err
    assert "1 to 2" in refused("scan", backbone, *given, "--record", 3)


@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("score", ("--out", "OUT.txt"), ".csv or .json"),
        ("score", ("--out", "OUT.csv", "--sequences", "FASTA"), "has 3 letters"),
        ("score", ("--out", "OUT.csv", "--design", "B7"), "B7"),
        ("score", ("--out", "OUT.csv", "--recovery", "OUT.jpg"), ".png"),
        ("probs", ("--out", "OUT.npy"), ".npz"),
        ("probs", ("--out", "OUT.npz", "--sequences", "absent.fa"), "absent.fa"),
        ("scan", ("--out", "OUT.csv", "--residues", "A99"), "A99"),
        ("scan", ("--out", "OUT.csv", "--heatmap", "OUT.csv"), ".png"),
        ("scan", ("--out", "OUT.csv", "--device", "abacus"), "abacus"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_earlier_output_alone(
    command: str,
    options: tuple[str, ...],
    sentence: str,
    backbone: Path,
    weights: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    (tmp_path / "in.fa").write_text(">x\nAAA\n")
    out = tmp_path / options[1].replace("OUT", "out")
    out.write_text("earlier")
    places = [str(tmp_path / text.replace("OUT", "out")) if "OUT" in text else text for text in options]
    places = [str(tmp_path / "in.fa") if text == "FASTA" else text for text in places]
    assert sentence in refused(command, backbone, "--weights", weights, *places)
    assert out.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.fa", "helix.pdb", out.name])


def test_two_outputs_to_one_file_are_refused(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two outputs"):
        Outputs(logo=tmp_path / "a.png", recovery=tmp_path / "a.png").check()
    with pytest.raises(InputError, match="two outputs"):
        Outputs(scores=tmp_path / "a.csv").check([tmp_path / "a.csv"])


def test_designs_are_written_in_every_form(designer: Designer, tmp_path: Path) -> None:
    structure, designed = helix(24), np.arange(24) > 4
    designs = designer.design(structure, num=2, temperature=1.0, designed=designed)
    names = {"scores": "s.csv", "probs": "p.npz", "threaded": "t.cif", "logo": "l.png", "recovery": "r.png"}
    outputs = Outputs(**{key: tmp_path / name for key, name in names.items()})
    written = write_outputs(outputs, designer, structure, designs, designed)
    expected = ["l.png", "p.npz", "r.png", "s.csv", "t_1.cif", "t_2.cif"]
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir()) == expected
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [row["sequence"] for row in rows] == [structure.sequence, *(design.sequence for design in designs)]
    np.testing.assert_allclose(
        [float(row["any_order"]) for row in rows[1:]], [design.score for design in designs], atol=1e-5, rtol=0
    )
    held = np.load(tmp_path / "p.npz")
    for index, design in enumerate(designs):
        again = read_structure(tmp_path / f"t_{index + 1}.cif")
        assert (again.sequence, again.residue_ids) == (design.sequence, structure.residue_ids)
        assert "".join(held["sequences"][index]) == design.sequence
    assert write_outputs(Outputs(), designer, structure, designs, designed) == ()
