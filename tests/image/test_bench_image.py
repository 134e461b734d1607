"""The image benches at the smallest scale, and that the peers' step which they time computes the same loss as ours."""

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_folder
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.train.log import read_log
from reed_image.encoders.resnet20 import ResNet20
from reed_image.network import Condition, SiT, SiTConfig
from safetensors.torch import save_file
from typer.testing import CliRunner

TOOLS = Path(__file__).parents[2] / "tools"
RECIPE = """
data = "data"
batch_size = 4
[network]
patch = 4
width = 32
depth = 2
heads = 2
[[latents]]
kind = "timm"
model = "test_vit"
weights = "random"
name = "maps"
tap = "blocks.0"
hidden = 16
[[latents]]
kind = "layout"
tap = "blocks.1"
hidden = 16
[train]
samples = 1
precision = "bf16"
log_every = 1
"""


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    """The folder of the tools, where their parts lie beside them, as when they are run."""
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))
    for name in [name for name in sys.modules if name.split(".")[0] in ("image_bench", "train_bench", "protein_bench")]:
        del sys.modules[name]


def invoke(tool: str, *options: object) -> Any:
    import typer

    app = typer.Typer()
    threads = torch.get_num_threads()
    app.command()(runpy.run_path(str(TOOLS / f"{tool}.py"))["main"])
    ended = CliRunner().invoke(app, [str(option) for option in options])
    torch.set_num_threads(threads)
    return ended


def test_the_peers_step_has_our_loss(path: None) -> None:
    peers = importlib.import_module("image_bench.peers")
    torch.manual_seed(0)
    net = SiT(SiTConfig(size=8, width=32, depth=3, heads=2, classes=3))
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    latent = Latent("tokens", "blocks.0", 32, 6, hidden=16)
    process = Interpolant()
    objective, peer = presets.repa(process, latent), peers.Peer(net, latent)
    peer.projector.load_state_dict(objective.readout("tokens").projector.state_dict())
    x_0, z = torch.randn(3, 4, 8, 8), torch.randn(3, 16, 6)
    label = torch.tensor([0, 2, 1])
    told = {"tokens": Representation(z)}
    ours = objective(net, x_0, NoiseSource(5, range(3)), z=told, c=Condition(label)).total
    noise = NoiseSource(5, range(3))
    t = process.sample_time(noise)
    theirs = peer.loss(x_0, noise.normal((4, 8, 8)), t, label, z)
    torch.testing.assert_close(theirs, ours)
    before = net.patch.weight.clone()
    peer.step(x_0, label, z)
    assert not torch.equal(net.patch.weight, before)
    assert not torch.equal(peer.average[0].patch.weight, before)


def test_steps_and_drawings_are_timed() -> None:
    small = ["--depth", 1, "--batch", 1, "--rounds", 2, "--encoder", "test_vit", "--steps", 1]
    ended = invoke("bench_image", *small)
    assert ended.exit_code == 0, ended.output
    for name in ("ours_cached", "theirs_cached", "bare_cached", "bare_online", "euler", "heun", "sde", "256 tokens"):
        assert name in ended.output
    rows = [
        line.split()[:3] for line in ended.output.splitlines() if line.split()[:1] in (["euler"], ["heun"], ["sde"])
    ]
    assert [int(row[2]) for row in rows] == [2, 4, 3, 6, 2, 4]


def test_arms_are_trained_compared_and_kept(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    save_file(ResNet20().state_dict(), tmp_path / "judge.safetensors")
    options: list[object] = ["--out", tmp_path / "out", "--samples", 8, "--seeds", "0,1", "--points", 2, "--num", 3]
    options += ["--steps", 1, "--size", 16, "--quiet", "--recipe", tmp_path / "tiny.toml"]
    options += ["--judge", f"resnet20={tmp_path / 'judge.safetensors'}"]
    for part in ("train", "test"):
        options += [f"--{part}", write_folder(tmp_path / part, each=3)]
    ended = invoke("bench_image_guidance", *options, "--arms", "none,shuffled")
    assert ended.exit_code == 0, ended.output
    ended = invoke("bench_image_guidance", *options)
    assert ended.exit_code == 0, ended.output
    written = [line.split("|")[1:3] for line in ended.output.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in written[1:]] == [
        [arm, "2"] for arm in ("none", "repa", "reed", "shuffled")
    ]
    logs = {arm: read_log(tmp_path / "out" / f"{arm}_0" / "log.jsonl") for arm in ("none", "repa", "reed", "shuffled")}
    assert [line["samples"] for line in logs["reed"] if "fd" in line] == [4, 8]
    assert {"maps", "layout"} <= logs["reed"][0].keys()
    assert "layout" not in logs["repa"][0]
    assert "maps" in logs["repa"][0]
    first = {arm: next(line["denoising"] for line in lines if "denoising" in line) for arm, lines in logs.items()}
    assert first["none"] == pytest.approx(first["reed"])  # one network, batch and noise to start with
    assert invoke("bench_image_guidance", *options, "--read").output.endswith(ended.output[-200:])
    assert invoke("bench_image_guidance", *options, "--arms", "best").exit_code != 0
