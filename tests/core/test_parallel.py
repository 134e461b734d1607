"""Two processes train what one trains: DDP and FSDP2 over gloo, in float64, against a run in this process."""

import math
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from core.parallel_toy import (
    ALONE,
    CONFIG,
    FORM,
    HALF,
    KIND,
    RESHARDED,
    SCOPED,
    SIZES,
    TOGETHER,
    USUAL,
    Data,
    Network,
    Setting,
    continued,
)
from reed_core.curriculum import Curriculum
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.regulariser import Dispersive
from reed_core.train import TrainConfig, Trainer
from reed_core.train.checkpoint import load_latest
from reed_core.train.early_stop import EarlyStop
from reed_core.train.log import read_log
from reed_core.train.optimizer import set_rates, what_reaches
from reed_core.train.parallel import blocks, called_alone, pieces, start
from torch import Tensor

TOY = Path(__file__).with_name("parallel_toy.py")
EXACT = 1e-10


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every run: those of two processes, and those of one."""
    out = tmp_path_factory.mktemp("runs")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    continued("ddp", HALF).trainer(out / "1 to 2").fit(progress=False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, TOY, out, str(rank)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for name, setting in ALONE.items():
        setting.trainer(out / name).fit(progress=False)
    said = [process.communicate(timeout=900)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    for kind in RESHARDED:
        continued(kind, CONFIG.samples).trainer(out / f"2 to 1, {kind}").fit(progress=False)
    torch.set_num_threads(before)
    return out


def left(setting: Setting, folder: Path) -> dict[str, Any]:
    """What the newest checkpoint holds, read by one process."""
    state = load_latest(folder / "checkpoints", setting.trainer(folder)._state())
    assert state is not None
    return state


def gap(one: Any, other: Any) -> float:
    """The largest difference between the tensors of two states of the same form."""
    if isinstance(one, Tensor):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        return float((one - other).abs().max())
    assert one.keys() == other.keys()
    return max((gap(one[key], other[key]) for key in one if isinstance(one[key], dict | Tensor)), default=0.0)


PAIRS = [(name, name.split(",")[0]) for name in TOGETHER]
PAIRS += [(f"{way}, {kind}", "plain") for way in ("1 to 2", "2 to 1") for kind in RESHARDED]


@pytest.mark.parametrize(("name", "alone"), PAIRS)
def test_two_processes_train_what_one_does(runs: Path, name: str, alone: str) -> None:
    """Weights, average, optimiser and counters; resumed by another number of processes too."""
    ours, theirs = (left(ALONE[alone], runs / one) for one in (name, alone))
    assert gap(ours, theirs) < EXACT
    assert ours["counters"] == theirs["counters"]
    assert ours["early_stop"]["stale"] == theirs["early_stop"]["stale"]


@pytest.mark.parametrize(("name", "alone"), PAIRS)
def test_two_processes_log_what_one_does(runs: Path, name: str, alone: str) -> None:
    """Each line once, of the whole batch; the main process's figures."""
    ours, theirs = (read_log(runs / one / "log.jsonl") for one in (name, alone))
    if alone not in name:  # the first half ended with an evaluation of its own
        ours, theirs = ([line for line in lines if "total" in line] for lines in (ours, theirs))
    losses = {"total", "denoising", "kind", "form", "size", "rank", "learning_rate"}
    assert [(line["samples"], line["step"]) for line in ours] == [(line["samples"], line["step"]) for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert losses & one.keys() == losses & other.keys()
        for figure in losses & one.keys():
            assert one[figure] == pytest.approx(other[figure], rel=1e-9, abs=1e-10)
    assert all(line["rank"] == 0 for line in ours if "rank" in line)


@pytest.mark.parametrize("name", ["plain, ddp", "plain, fsdp", "1 to 2, fsdp"])
def test_the_main_process_alone_writes_samples(runs: Path, name: str) -> None:
    ours, theirs = (
        {path.parent.name: path.read_text() for path in (runs / one / "samples").glob("*/*")} for one in (name, "plain")
    )
    assert len(theirs) == 3
    assert theirs.items() <= ours.items()
    assert len(ours) == 3 + name.startswith("1 to 2"), "the end of the first half"
    assert {path.name for path in (runs / name).iterdir()} == {"checkpoints", "log.jsonl", "samples"}


def test_the_toy_would_notice(runs: Path) -> None:
    """Latents go on and off, the average trails, an unused parameter stays, and a rank that drew its own would show."""
    lines = [line for line in read_log(runs / "plain, fsdp" / "log.jsonl") if "total" in line]
    assert {"kind" in line for line in lines} == {True, False}
    state = left(ALONE["plain"], runs / "plain")
    assert gap(state["denoiser"], state["ema"] | {"scale": state["denoiser"]["scale"]}) > 1e-3
    assert torch.equal(state["denoiser"]["unused"], torch.ones(3).double())
    assert int(state["optimizer"]["denoiser.unused"]["step"]) == 0
    assert gap(state["denoiser"], left(ALONE["scoped"], runs / "scoped")["denoiser"]) > 1e-3
    assert min(SIZES) < 2


def test_a_run_stops_early_on_its_metric(runs: Path) -> None:
    state = left(ALONE["stopping"], runs / "stopping")
    assert state["early_stop"]["stale"] == 2
    assert state["counters"]["samples"] < CONFIG.samples
    again = ALONE["stopping"].trainer(runs / "stopping")
    again.fit(progress=False)
    assert again.samples == state["counters"]["samples"]


# The cut


@pytest.mark.parametrize("count", [1, 2, 5, 8, 23])
@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (3, 1), (1, 2), (2, 3), (4, 4)])
def test_pieces_hold_every_item_once_in_order(count: int, accumulate: int, processes: int) -> None:
    items = list(range(100, 100 + count))
    cut = [pieces(items, accumulate, processes, number) for number in range(processes)]
    counted = [piece for own in cut for piece in own if piece.counts]
    assert [item for piece in counted for item in piece.items] == items
    assert [piece.start for piece in counted] == [piece.items[0] - 100 for piece in counted]
    sizes = [len(piece.items) for piece in counted]
    assert max(sizes) - min(sizes) <= 1
    if processes > 1:
        assert {len(own) for own in cut} == {accumulate}, "all take part in the same collectives"
    assert all(piece.items == (100,) and piece.start == 0 for own in cut for piece in own if not piece.counts)


@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_a_batch_in_pieces_is_the_batch(tmp_path: Path, accumulate: int, runs: Path) -> None:
    """Also where a batch has fewer samples than pieces."""
    setting = Setting({"accumulate": accumulate})
    setting.trainer(tmp_path).fit(progress=False)
    assert gap(left(setting, tmp_path), left(ALONE["plain"], runs / "plain")) < EXACT


def test_a_batch_that_is_compared_with_itself_is_not_cut(tmp_path: Path) -> None:
    trainer = Setting({}).trainer(tmp_path)
    objective = Objective(Interpolant(), regularisers=[Dispersive("blocks.0")])

    def build(accumulate: int) -> Trainer:
        config = trainer.config.model_copy(update={"accumulate": accumulate})
        return Trainer(trainer.denoiser, objective, Data(), config, tmp_path, trainer.evaluate)

    build(1)
    with pytest.raises(InputError, match=r"'dispersive' compares the samples of a batch .* into 2 pieces"):
        build(2)


def test_what_is_called_outside_its_block_is_found() -> None:
    """Of a block whose part is called on its own, FSDP must gather that part by itself."""
    network = Network().double()

    def run() -> None:
        x, mask = torch.ones(2, 3, 8).double(), torch.ones(2, 3).bool()
        for block in network.blocks[:2]:
            x = block(x, mask)
        network.blocks[1].second(network.blocks[1].first(x))
        network.blocks[2].norm(x)

    found = called_alone(blocks(network), run)
    assert blocks(network) == list(network.blocks)
    second, first, norm = network.blocks[1].second, network.blocks[1].first, network.blocks[2].norm
    assert {id(one) for one in found} == {id(one) for one in (first, second, norm)}
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in network.modules())


@pytest.mark.parametrize("curriculum", [SCOPED, USUAL], ids=["scoped", "late"])
def test_what_reaches_a_parameter_is_what_has_a_gradient(tmp_path: Path, curriculum: Curriculum) -> None:
    """Against the gradients themselves; the network is left as it was."""
    trainer = Setting({}, (KIND, FORM), curriculum).trainer(tmp_path)
    network, objective = trainer.denoiser.eval(), trainer.objective
    batch, noise = trainer._few()
    reached = what_reaches(network, objective, batch, noise)
    assert not network.training
    noise = NoiseSource(noise.seed, noise.positions)
    loss = objective(network, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, n=5.0)
    parts = {"denoising": loss.denoising.sum(), "alignment": sum(value.sum() for value in loss.alignment.values())}
    named = dict(trainer.guided.named_parameters())
    touched = {
        part: {
            name
            for name, slope in zip(
                named,
                torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True),
                strict=True,
            )
            if slope is not None
        }
        for part, value in parts.items()
    }
    for name in named:
        of = {part for part, names in touched.items() if name in names}
        assert reached[name] == (next(iter(of)) if len(of) == 1 else "both"), name
    assert reached["denoiser.blocks.1.first.weight"] == "both"
    assert reached["denoiser.blocks.2.first.weight"] == reached["denoiser.out.bias"] == "denoising"
    assert {reached[name] for name in named if name.startswith("objective.")} == {"alignment"}


def test_the_scope_scales_each_rate_by_what_reaches_it(tmp_path: Path) -> None:
    trainer = Setting({}, (KIND, FORM), SCOPED).trainer(tmp_path)
    curriculum, config = trainer.objective.curriculum, trainer.config
    for n in (0.0, 10.0, 25.0, 39.0, 43.0):
        set_rates(trainer.optimizer, config, curriculum, n)
        a, b = curriculum.a(n), curriculum.b(n)
        for group in trainer.optimizer.param_groups:
            factor = {"both": max(a, b), "denoising": b, "alignment": a}[group["reached"]]
            assert group["lr"] == pytest.approx(config.rate(n) * factor)
    assert {group["reached"] for group in trainer.optimizer.param_groups} == {"both", "denoising", "alignment"}


@pytest.mark.parametrize(("lower", "ends"), [(True, 6), (False, 3)])
def test_patience_runs_out(lower: bool, ends: int) -> None:
    config = TrainConfig(samples=1, evaluate_every=1, stop_metric="m", stop_patience=2, stop_lower=lower)
    stop, seen = EarlyStop(config), 0
    for value in (3.0, 2.0, math.nan, 1.0, 1.0, 5.0, 0.0):
        stop.saw({"m": value})
        seen += 1
        if stop.ended:
            break
        again = EarlyStop(config)
        again.load_state_dict(stop.state_dict())
        stop = again
    assert seen == ends
    with pytest.raises(InputError, match="stop_metric m is no figure of the evaluation; there are other"):
        stop.saw({"other": 1.0})


def test_a_metric_that_nothing_measures_is_one_line(tmp_path: Path) -> None:
    trainer = Setting({}).trainer(tmp_path)
    config = trainer.config.model_copy(update={"stop_metric": "size"})
    with pytest.raises(InputError, match=r"stop_metric size is never measured"):
        Trainer(trainer.denoiser, trainer.objective, Data(), config, tmp_path)


def test_fp16_skips_a_step_that_overflows_and_halves_the_scale(tmp_path: Path) -> None:
    """A scale far too large overflows float32; the next step, at a sane one, moves the weights as no scale would."""
    trainer, plain = (
        Setting({"precision": precision}, curriculum=Curriculum()).trainer(tmp_path) for precision in ("fp16", "fp32")
    )
    scaler, weight = trainer.stepper.scaler, trainer.denoiser.get_parameter("out.weight")
    before = weight.detach().clone()
    works = [make().work for make in islice(trainer._makers(), 2)]
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**127})
    assert not trainer.stepper.take(works[0], 1).finite
    assert torch.equal(weight, before)
    assert scaler.get_scale() == 2.0**126
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1024.0})
    assert trainer.stepper.take(works[1], 1).finite
    assert plain.stepper.take(next(islice(plain._makers(), 1, None))().work, 1).finite
    moved, expected = weight.detach() - before, plain.denoiser.get_parameter("out.weight").detach() - before
    assert float(torch.cosine_similarity(moved.double().flatten(), expected.flatten(), dim=0)) > 0.9
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_a_device_that_cannot_be_shared_is_one_line(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "99", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"mps|no GPU"):
        start(device)


def test_without_torchrun_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert start("cpu") == torch.device("cpu")
    assert not torch.distributed.is_initialized()
