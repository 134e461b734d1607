"""The command line as a person meets it: through real processes, mistakes included."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from made_complexes import complex_of
from made_structures import helix
from reed_core.hub import save_pretrained
from reed_protein.fasta import read_fasta
from reed_protein.network import InverseFolding, NetworkConfig
from reed_protein.pdb_writer import write_pdb
from reed_protein.structure import read_structure

PROGRAM = [sys.executable, "-c", "from reed_protein.cli import main; main()"]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    save_pretrained(InverseFolding(NetworkConfig(width=16, neighbours=8, encoder_layers=1, decoder_layers=1)), folder)
    return folder


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    path = tmp_path / "helix.pdb"
    write_pdb(helix(24), path)
    return path


def call(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)  # type: ignore[call-overload]


def refused(*arguments: object) -> str:
    """Runs a command that must end with one clear line and exit code 2, and returns that line."""
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    return errors[0]


def test_fasta_and_nothing_else_goes_to_standard_output(backbone: Path, weights: Path, tmp_path: Path) -> None:
    done = call("fold-invert", backbone, "--num", 3, "--seed", 5, "--temperature", 0.7, "--weights", weights)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.fa").write_text(done.stdout)
    native, *designs = read_fasta(tmp_path / "out.fa")
    assert native.sequence == helix(24).sequence
    assert [record.fields["sample"] for record in designs] == [1, 2, 3]
    for record in designs:
        assert list(record.fields) == ["score", "score_kind", "recovery", "temperature", "seed", "sample"]
        same = np.mean([a == b for a, b in zip(record.sequence, native.sequence, strict=True)])
        assert float(record.fields["recovery"]) == pytest.approx(same, abs=1e-4)
        assert record.fields["temperature"] == 0.7
        assert record.fields["seed"] == 5
    assert re.fullmatch(r"helix: designed 24 of 24 residues, chains A \(24 of 24\); sequences: 3", done.stderr.strip())


def test_out_holds_what_standard_output_would(backbone: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--num", 2, "--weights", weights)
    shown = call("fold-invert", backbone, *options)
    written = call("fold-invert", backbone, *options, "--out", tmp_path / "new" / "designs.fa")
    assert written.stdout == ""
    assert (tmp_path / "new" / "designs.fa").read_text() == shown.stdout


def test_chains_are_chosen_and_parted(weights: Path, tmp_path: Path) -> None:
    one, two = helix(15), helix(20, seed=1)
    text = []
    for chain, structure, shift in (("A", one, 0.0), ("B", two, 30.0)):
        path = tmp_path / f"{chain}.pdb"
        write_pdb(structure, path)
        for line in path.read_text().splitlines():
            if line.startswith("ATOM"):
                text.append(f"{line[:21]}{chain}{line[22:30]}{float(line[30:38]) + shift:8.3f}{line[38:]}")
    both = tmp_path / "both.pdb"
    both.write_text("\n".join([*text, "END", ""]))
    done = call("fold-invert", both, "--weights", weights, "--separator", ":")
    assert done.stdout.splitlines()[1] == f"{one.sequence}:{two.sequence}"
    only = call("fold-invert", both, "--weights", weights, "--chains", "B")
    assert only.stdout.splitlines()[1] == two.sequence
    line = refused("fold-invert", both, "--weights", weights, "--chains", "Z")
    assert "Z" in line
    assert "A" in line
    assert "B" in line


def broken_files(folder: Path) -> dict[str, Path]:
    whole = folder / "whole.pdb"
    write_pdb(helix(24), whole)
    lines = whole.read_text().splitlines()
    atoms = [line for line in lines if line.startswith("ATOM")]
    nucleic = {"N": "P", "CA": "C4'", "C": "C1'", "O": "O3'"}
    files = {
        "empty": b"",
        "binary": bytes(range(256)) * 20,
        "header_only": b"HEADER    HYDROLASE\nTITLE     NOTHING\nEND\n",
        "truncated": "\n".join([*atoms[:20], atoms[20][:40]]).encode(),
        "nan": "\n".join([*atoms[:8], f"{atoms[8][:30]}     nan{atoms[8][38:]}", *atoms[9:]]).encode(),
        "ca_only": "\n".join(line for line in atoms if line[12:16].strip() == "CA").encode(),
        "no_carbon": "\n".join(line for line in atoms if line[12:16].strip() != "C").encode(),
        "dna": "\n".join(f"{li[:12]}{nucleic[li[12:16].strip()]:^4}{li[16]} DA{li[20:]}" for li in atoms).encode(),
    }
    paths = {"missing": folder / "missing.pdb", "folder": folder}
    for name, content in files.items():
        paths[name] = folder / f"{name}.pdb"
        paths[name].write_bytes(content)
    return paths


BROKEN = ["missing", "folder", "empty", "binary", "header_only", "truncated", "nan", "ca_only", "no_carbon", "dna"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_structure_is_one_line_and_leaves_out_alone(kind: str, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.fa"
    out.write_text(">kept\nAAAA\n")
    path = broken_files(tmp_path)[kind]
    line = refused("fold-invert", path, "--weights", weights, "--out", out)
    assert path.stem in line
    assert out.read_text() == ">kept\nAAAA\n"
    assert not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize("kind", ["absent", "cut", "flipped", "foreign", "not_json"])
def test_bad_weights_are_one_line(kind: str, backbone: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    tensors, config = (weights / "model.safetensors").read_bytes(), (weights / "config.json").read_text()
    if kind == "cut":
        tensors = tensors[: len(tensors) // 2]
    elif kind == "flipped":
        tensors = tensors[:-9] + bytes([tensors[-9] ^ 0x40]) + tensors[-8:]
    elif kind == "foreign":
        config = '{"model": {"kind": "language-model"}}'
    elif kind == "not_json":
        config = "weights"
    if kind != "absent":
        (folder / "model.safetensors").write_bytes(tensors)
        (folder / "config.json").write_text(config)
    assert str(folder) in refused("fold-invert", backbone, "--weights", folder)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--num", "0"),
        ("--steps", "0"),
        ("--temperature", "-1"),
        ("--seed", "-2"),
        ("--separator", "A"),
        ("--device", "abacus"),
    ],
)
def test_bad_numbers_are_one_line(option: str, value: str, backbone: Path, weights: Path) -> None:
    assert option.strip("-") in refused("fold-invert", backbone, "--weights", weights, option, value)


def test_a_full_disk_is_one_line_and_the_old_file_stays(backbone: Path, weights: Path, tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the write fails half-way, for real."""
    out = tmp_path / "designs.fa"
    out.write_text(">kept\nAAAA\n")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = call("fold-invert", backbone, "--weights", weights, "--num", 4, "--out", out, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert out.read_text() == ">kept\nAAAA\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["designs.fa", "helix.pdb"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_standard_output_is_one_line(backbone: Path, weights: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, "fold-invert", str(backbone), "--weights", str(weights)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_leaves_out_alone(weights: Path, tmp_path: Path) -> None:
    whole = helix(24)
    broken = tmp_path / "broken.pdb"
    write_pdb(whole, broken)
    lines = broken.read_text().splitlines(keepends=True)
    broken.write_text("".join(line for line in lines if line[22:26].strip() != "12"))
    out = tmp_path / "designs.fa"
    command = [*PROGRAM, "fold-invert", str(broken), "--weights", str(weights), "--num", "1000000", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("note: "), "the note on the chain break says that it has begun"
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in errors
    assert not out.exists()


def test_a_reader_that_leaves_early_is_no_error_message(backbone: Path, weights: Path) -> None:
    command = " ".join([sys.executable, "-c", "'from reed_protein.cli import main; main()'", "fold-invert"])
    line = f"{command} {backbone} --weights {weights} --num 300 | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.startswith(">helix")
    assert "Traceback" not in done.stderr


def folder_of_structures(folder: Path) -> Path:
    folder.mkdir()
    for name, length in (("one", 12), ("two", 14), ("three", 16)):
        write_pdb(helix(length, name=name), folder / f"{name}.pdb")
    (folder / "two.pdb").rename(folder / "two.ent")
    (folder / "notes.txt").write_text("not a structure")
    (folder / ".hidden.pdb").write_text("not a structure")
    return folder


def test_several_structures_go_to_a_file_each_and_one_that_fails_stops_no_other(weights: Path, tmp_path: Path) -> None:
    folder, out = folder_of_structures(tmp_path / "in"), tmp_path / "designs"
    (folder / "broken.pdb").write_text("HEADER    NOTHING\nEND\n")
    done = call("fold-invert", folder, tmp_path / "no*.cif", "--weights", weights, "--out-dir", out, "--num", 2)
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert any("broken.pdb: broken has no atoms, only a header" in line for line in errors)
    assert any("no*.cif: this pattern matches no structure file" in line for line in errors)
    assert done.stderr.splitlines()[-1] == "structures: 3 done, 2 failed"
    assert sorted(path.name for path in out.iterdir()) == ["one.fa", "three.fa", "two.fa"]
    alone = call("fold-invert", folder / "two.ent", "--weights", weights, "--num", 2)
    assert (out / "two.fa").read_text() == alone.stdout


def test_finished_structures_are_passed_over_only_when_asked(weights: Path, tmp_path: Path) -> None:
    folder, out = folder_of_structures(tmp_path / "in"), tmp_path / "designs"
    out.mkdir()
    (out / "two.fa").write_text("as it was")
    command = ("fold-invert", folder, "--weights", weights, "--out-dir", out)
    asked = call(*command, "--skip-finished")
    assert asked.returncode == 0, asked.stderr
    assert (out / "two.fa").read_text() == "as it was"
    assert "two.fa is there already, skipped" in asked.stderr
    assert call(*command).returncode == 0
    assert (out / "two.fa").read_text().startswith(">two")


def test_what_several_structures_need_is_said(weights: Path, tmp_path: Path) -> None:
    folder = folder_of_structures(tmp_path / "in")
    assert "--out-dir" in refused("fold-invert", folder)
    assert "--out-dir" in refused("fold-invert", folder, "--out", tmp_path / "x.fa")
    assert "both given" in refused("fold-invert", folder, "--out", tmp_path / "x.fa", "--out-dir", tmp_path)
    assert "--skip-finished" in refused("fold-invert", folder, "--skip-finished")
    (tmp_path / "empty").mkdir()
    assert "holds no structure file" in refused("fold-invert", tmp_path / "empty")


def test_a_dry_run_says_what_would_be_designed_and_imports_no_torch(tmp_path: Path) -> None:
    structure = complex_of({"A": range(1, 13), "B": [*range(101, 106), *range(108, 113)]})
    path = tmp_path / "dimer.pdb"
    write_pdb(structure, path)
    x, y, z = structure.coords[4, 1] + 3.0
    zinc = f"HETATM  999 ZN    ZN A 201    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
    path.write_text(path.read_text().replace("END\n", f"{zinc}\nEND\n"))
    program = "import sys; sys.modules['torch'] = None; from reed_protein.cli import main; main()"
    options = ["--symmetry", "A,B", "--fix", "A1-2,B101-102", "--dry-run", "--at-most", "K:10%", "--num", "3"]
    command = [sys.executable, "-c", program, "fold-invert", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[:3] == [
        "dimer: 22 residues",
        "chain A: 12 residues, A1 to A12, 10 designed",
        "chain B: 10 residues, B101 to B112, 8 designed",
    ]
    assert "designed: 18 (A3 to A12, B103 to B112)" in lines
    assert "fixed: 4 (A1 to A2, B101 to B102)" in lines
    assert "breaks inside chains: 1" in lines
    assert "ties: 8 (draws: 10 for 18 residues)" in lines
    assert "at most, in residues: K 1" in lines
    assert "within 6 A of designed residues, not seen by this model: 1 ZN" in lines
    assert "note: not in every chain of A,B, so not tied: A6, A7" in lines
    assert done.stderr == ""


def test_controls_reach_the_designs(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "dimer.pdb"
    write_pdb(complex_of({"A": range(1, 13), "B": range(101, 113)}), path)
    (tmp_path / "omit.csv").write_text("residue,letters\nA3,ACDEFGHIKL\n")
    (tmp_path / "bias.json").write_text('{"A4": {"W": 500}}')
    out = tmp_path / "out.fa"
    options = (
        "--symmetry",
        "A,B",
        "--omit-file",
        tmp_path / "omit.csv",
        "--bias-file",
        tmp_path / "bias.json",
        "--at-most",
        "W:10%,K:10%",
        "--no-cysteine",
        "--omit",
        "M",
        "--temperature",
        "0.5,2",
        "--diverse",
        1,
    )
    done = call("fold-invert", path, "--weights", weights, "--num", 3, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    _, *designs = read_fasta(out)
    assert [(record.fields["temperature"], record.fields["sample"]) for record in designs] == [
        (t, i) for t in (0.5, 2) for i in (1, 2, 3)
    ]
    for record in designs:
        first, second = record.sequence.split("/")
        assert first == second
        assert not set("CM") & set(first)
        assert first[2] not in "ACDEFGHIKL"
        assert first[3] == "W"
        assert first.count("W") == 1
        assert first.count("K") <= 1
    known = "WWW" + "X" * 9 + "/" + "X" * 12
    filled = call("fold-invert", path, "--weights", weights, "--sequence", known)
    assert filled.stdout.splitlines()[3].startswith("WWW")


@pytest.mark.parametrize(
    "options",
    [
        ("--design", "A", "--fix", "A"),
        ("--sequence", "ABC"),
        ("--tie", "A1,Z1"),
        ("--symmetry", "A,B"),
        ("--temperature", "warm"),
        ("--at-most", "K:x"),
        ("--omit-file", "absent.csv"),
        ("--model", "2"),
        ("--diverse", "-1"),
    ],
)
def test_controls_that_cannot_be_are_one_line(options: tuple[str, ...], backbone: Path, weights: Path) -> None:
    refused("fold-invert", backbone, "--weights", weights, *options)
    refused("fold-invert", backbone, "--dry-run", *options)


def test_train_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    assert "no.toml" in refused("train", tmp_path / "no.toml")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[train]\nsamples = 10\nsample = 3\n")
    assert "train.sample" in refused("train", recipe)
    recipe.write_text("[train\n")
    assert "recipe.toml" in refused("train", recipe)
    recipe.write_text("train_set = 'absent.npz'\n[train]\nsamples = 10\n")
    assert "absent.npz" in refused("train", recipe, "--out", tmp_path / "run")
    assert "absent.npz" in refused("evaluate", "absent.npz")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.pdb")), ids=lambda path: path.stem)
def test_examples_are_whole_backbones(path: Path) -> None:
    structure = read_structure(path)
    assert "X" not in structure.sequence
    assert structure.breaks.sum() == len(structure.chains)


def test_examples_exist() -> None:
    assert len(list(EXAMPLES.glob("*.pdb"))) >= 2
    assert os.path.getsize(next(EXAMPLES.glob("*.pdb"))) > 1000
