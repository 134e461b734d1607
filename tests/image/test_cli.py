"""The command line from pictures to a grid and to diffusers' folder, and how all of it refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import image.published_sit as published
import numpy as np
import pytest
import torch
from picture_files import write_folder
from PIL import Image
from reed_image.cli import app
from reed_image.export import SiTPipeline
from reed_image.model import load
from rich.text import Text

Call = Callable[..., int]
RECIPE = """
data = "data"
batch_size = 6
[network]
patch = 4
width = 32
depth = 2
heads = 2
[[latents]]
kind = "timm"
model = "test_vit"
weights = "random"
tap = "blocks.0"
hidden = 16
[[latents]]
kind = "layout"
tap = "blocks.1"
hidden = 16
[sampling]
num = 4
steps = 1
[train]
samples = 12
log_every = 1
"""


def caller(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Call:
    """A function that runs the program in this process, in a folder, and returns its exit code."""
    from reed_image.cli import main

    monkeypatch.chdir(folder)

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reed-image", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, prepared, encoded, and a run of two steps."""
    folder = tmp_path_factory.mktemp("run")
    write_folder(folder / "files", each=6)
    (folder / "files" / "ant" / "broken.png").write_bytes(b"none")
    (folder / "tiny.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        call = caller(patch, folder)
        assert call("prepare", "files", "--out", "data", "--size", 16, "--autoencoder", "pixels", "--quiet") == 0
        assert call("featurize", "tiny.toml", "--quiet", "--device", "cpu") == 0
        assert call("train", "tiny.toml", "--quiet", "--device", "cpu") == 0
    return folder


@pytest.fixture
def call(run: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(monkeypatch, run)


def test_it_starts_as_a_module_and_lists_its_commands() -> None:
    shown = subprocess.run([sys.executable, "-m", "reed_image", "--help"], capture_output=True, text=True, timeout=600)
    assert shown.returncode == 0
    names = ("prepare", "train-vae", "featurize", "train", "sample", "export", "import", "plot-run")
    assert all(name in shown.stdout for name in names)


def test_help_shows_all_that_is_written() -> None:
    """The help is read as markup, in which a word in brackets is a style: it would go missing."""
    for command in app.registered_commands:
        assert command.callback is not None
        written = command.callback.__doc__ or ""
        assert Text.from_markup(written).plain == written


def test_from_pictures_to_a_grid(run: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list((run / "cache").iterdir())) == 2
    assert (run / "runs" / "tiny" / "samples" / f"{12:012d}" / "grid.png").is_file()
    drawing = ["sample", "--weights", "runs/tiny/weights", "--steps", 2, "--quiet", "--device", "cpu"]
    assert call(*drawing, "--num", 6, "--columns", 3, "--zoom", 2, "--out", tmp_path / "grid.png") == 0
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    assert call(*drawing, "--num", 6, "--batch", 2, "--out", tmp_path / "many") == 0
    for number in range(6):
        top, left = 2 + 34 * (number // 3), 2 + 34 * (number % 3)
        one = np.asarray(Image.open(tmp_path / "many" / f"{number:06d}.png")).astype(int)
        assert np.abs(one - sheet[top : top + 32 : 2, left : left + 32 : 2]).max() <= 1
    assert "000001.png,1,bee" in (tmp_path / "many" / "pictures.csv").read_text()
    guided = ["--class", "bee", "--class", "none", "--cfg", 2, "--cfg-interval", "0.1,0.9", "--sampler", "sde"]
    assert call(*drawing, "--num", 2, *guided, "--out", tmp_path / "guided.png") == 0
    worse = ["--autoguidance", "runs/tiny/weights", "--cfg", 2, "--interpolate", 3]
    assert call(*drawing, "--num", 2, *worse, "--out", tmp_path / "rows.png") == 0
    assert Image.open(tmp_path / "rows.png").size == (3 * 18 + 2, 2 * 18 + 2)
    assert call("plot-run", "runs/tiny", "--table") == 0
    capsys.readouterr()


def test_to_diffusers_and_from_published_weights(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", "runs/tiny/weights", "--out", tmp_path / "folder") == 0
    pipeline = SiTPipeline.from_pretrained(tmp_path / "folder")
    pipeline.set_progress_bar_config(disable=True)
    assert len(pipeline(class_labels=["ant", "bee"], num_inference_steps=1).images) == 2
    torch.save({"ema": published.weights(doubled=True)}, tmp_path / "sit.pt")
    capsys.readouterr()
    assert call("import", tmp_path / "sit.pt", "--out", tmp_path / "sit", "--heads", published.HEADS) == 0
    assert "t = 1 was data" in capsys.readouterr().out
    assert load(tmp_path / "sit").config.autoencoder is not None
    assert call("import", tmp_path / "sit.pt", "--out", tmp_path / "sit", "--heads", published.HEADS) == 2


def test_dry_runs_and_single_latents(run: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run.rglob("*"))
    assert call("train", "tiny.toml", "--dry-run", "--init", "runs/tiny/weights", "--device", "cpu") == 0
    said = capsys.readouterr()
    assert "12 pictures in 2 steps" in said.out
    assert "tensors are taken over" in said.err
    alone = ["featurize", "--data", "data", "--encoder", "layout", "--set", "cache=other"]
    assert call(*alone, "--dry-run", "--device", "cpu") == 0
    assert "width 192" in capsys.readouterr().out
    assert sorted(run.rglob("*")) == before
    assert call(*alone, "--option", "format=int8", "--quiet", "--device", "cpu") == 0
    assert [path.name.partition("-")[0] for path in (run / "other").iterdir()] == ["layout"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["unheard"], "unheard"),
        (["prepare", "files", "--out", "new", "--size", 16], "--autoencoder is missing"),
        (["prepare", "none", "--out", "new", "--size", 16, "--autoencoder", "pixels"], "no file or folder none"),
        (["prepare", "files", "--out", "new", "--size", 16, "--autoencoder", "nothing"], "no autoencoder 'nothing'"),
        (["prepare", "files", "--out", "new", "--size", 0, "--autoencoder", "pixels"], "at least 1"),
        (["prepare", "files", "--out", "data", "--size", 8, "--autoencoder", "pixels"], "choose another folder"),
        (["featurize"], "needs a recipe"),
        (["featurize", "tiny.toml", "--encoder", "layout"], "needs a recipe"),
        (["featurize", "tiny.toml", "--option", "a=b"], "--option belongs to"),
        (["featurize", "tiny.toml", "--shard", "3/2"], "expected i/N"),
        (["featurize", "--data", "data", "--encoder", "clip"], "clip"),
        (["featurize", "--data", "data", "--encoder", "timm", "--option", "model=no_net"], "no timm model 'no_net'"),
        (["train", "none.toml"], "no recipe none.toml"),
        (["train", "tiny.toml", "--set", "nothing=1"], "nothing"),
        (["train", "tiny.toml", "--set", "train.samples=0"], "train.samples"),
        (["train", "tiny.toml", "--set", "batch_size=5"], "another recipe"),
        (["train", "tiny.toml", "--set", "cache=none", "--out", "new"], "reed-image featurize"),
        (["train", "tiny.toml", "--init", "none", "--out", "new"], "no weights 'none'"),
        (["train-vae", "data", "--out", "new", "--set", "latent=none"], "latent"),
        (["train-vae", "none", "--out", "new"], "no prepared pictures"),
        (["sample", "--weights", "none", "--out", "new"], "no weights 'none'"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new", "--class", "elk"], "no class 'elk'"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new", "--sampler", "rk4"], "'rk4' is not one of"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new", "--cfg-interval", "1"], "LOW,HIGH"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new", "--batch", 0], "at once"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new", "--autoguidance", "x"], "does nothing"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "files"], "not an empty folder"),
        (["sample", "--weights", "runs/tiny/weights", "--out", "new.jpg"], "expected a .png"),
        (["export", "runs/tiny/weights", "--out", "files"], "not empty"),
        (["export", "runs/tiny/weights", "--out", "new", "--autoencoder", "some/vae"], "needs no autoencoder"),
        (["import", "tiny.toml", "--out", "new"], "tiny.toml"),
        (["import", "none.pt", "--out", "new", "--source", "dit"], "--source dit"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(map(str, value))[:60],
)
def test_mistakes_end_with_one_line_and_leave_nothing(
    run: Path, call: Call, capsys: pytest.CaptureFixture[str], arguments: list[object], said: str
) -> None:
    before = sorted(run.rglob("*"))
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert sorted(run.rglob("*")) == before
