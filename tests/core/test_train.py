"""The trainer: what a kill, a full disk, a damaged file or a wrong setting does to a run. Resume is exact to the bit.

Run as a program, this file trains the toy of `Setup` in a folder and kills itself: `test_train.py FOLDER SETUP WHEN`.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError
from reed_core.head import Categorical
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import ConditionDropout, Objective
from reed_core.process import Interpolant, Masked, Process
from reed_core.reveal import PointMass
from reed_core.train import Batch, DataSource, TrainConfig, Trainer, claim, loop
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.config import read_config
from reed_core.train.ema import Ema
from reed_core.train.log import RunLog, read_log
from torch import Tensor, nn

ITEMS, NULL = 26, 3


class Network(nn.Module):
    """A small transformer with dropout and a class condition."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        masked = isinstance(process, Masked)
        self.embed = nn.Embedding(5, 8) if masked else nn.Linear(4, 8)
        self.condition = nn.Embedding(4, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(8, 4)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return self.out(self.encoder(self.embed(x_t) + t[:, None, None] + self.condition(c)[:, None]))


class Data:
    """Batches of different sizes, shuffled each epoch, with an augmentation that draws noise. `before` sees each."""

    def __init__(self, process: Process, before: Callable[[int], object] = lambda number: None) -> None:
        self.masked, self.before, self.number = isinstance(process, Masked), before, 0

    def plan(self, epoch: int) -> list[list[int]]:
        order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(epoch)).tolist()
        return [order[i : i + 4] for i in range(0, ITEMS, 4)]

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        self.before(self.number)
        self.number += 1
        item = torch.tensor(items)
        tokens = (item[:, None] * torch.arange(1, 6) + item[:, None] // 3) % 4
        tokens = torch.where(noise.uniform((5,)) < 0.1, 0, tokens)
        mask = torch.arange(5)[None] < (2 + item % 4)[:, None]
        x_0 = tokens if self.masked else nn.functional.one_hot(tokens, 4).float()
        z = {name: Representation(torch.where(mask, tokens, -1), mask) for name in ("token", "late")}
        return Batch(x_0, c=item % 3, mask=mask, z=lambda: z, weight=mask.sum(1).float())


def drop(c: Tensor, dropped: Tensor) -> Tensor:
    return torch.where(dropped, NULL, c)


@dataclass(frozen=True)
class Setup:
    """A run of the toy."""

    process: Process
    latents: tuple[Latent, ...] = ()
    curriculum: Curriculum = field(default_factory=Curriculum)
    config: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            samples=76, seed=3, warmup=20, weight_decay=0.1, ema=0.9, checkpoint_every=20, log_every=3
        )
    )

    def trainer(self, folder: Path, before: Callable[[int], object] = lambda number: None, **more: Any) -> Trainer:
        torch.manual_seed(self.config.seed)
        network = Network(self.process)
        objective = Objective(self.process, self.latents, self.curriculum, ConditionDropout(0.3, drop))
        return Trainer(network, objective, Data(self.process, before), self.config, folder, **more)

    def changed(self, **settings: Any) -> "Setup":
        return replace(self, config=self.config.model_copy(update=settings))


TOKEN = Latent("token", "encoder.layers.0", 8, 4, Categorical(), hidden=8)
LATE = Latent("late", "encoder.layers.1", 8, 4, Categorical(), hidden=8, reveal=PointMass(0.8))
PLAIN = Setup(Interpolant())
SETUPS = {
    "plain": PLAIN,
    "latents": Setup(Masked(4, 4), (TOKEN, LATE), Curriculum(Schedule(decay="stop", end=50), Schedule(warmup=30))),
    "late latents": Setup(Interpolant("trig", "x0"), (TOKEN,), Curriculum(Schedule(start=30, warmup=10))),
    "bf16": Setup(Masked(4, 4, "flat"), (TOKEN,)).changed(precision="bf16", evaluate_every=10),
    "fp16, in pieces": Setup(
        Interpolant(), (TOKEN,), Curriculum(denoising=Schedule(warmup=60), scope="learning_rate")
    ).changed(precision="fp16", accumulate=3, prefetch=0),
}


def measure(model: nn.Module) -> dict[str, float]:
    """A figure of the averaged weights, which also spends global randomness, as a careless evaluation might."""
    assert not model.training
    torch.rand(3)
    return {"figure": sum(float(parameter.detach().double().sum()) for parameter in model.parameters())}


@dataclass(frozen=True)
class Ended:
    """All that a run leaves."""

    live: dict[str, Tensor]
    averaged: dict[str, Tensor]
    projectors: dict[str, Tensor]
    optimizer: dict[str, Any]
    log: list[dict[str, Any]]


def held(setup: Setup, folder: Path) -> dict[str, Any]:
    """What the newest checkpoint of a folder holds."""
    state = load_latest(folder / "checkpoints", setup.trainer(folder)._state())
    assert state is not None
    return state


TIMED = {"samples_per_second", "data_wait_share", "mfu", "mfu_of_measured_peak"}


def finished(setup: Setup, folder: Path, evaluate: bool = True) -> Ended:
    """Trains to the end, from wherever the folder stands."""
    trainer = setup.trainer(folder, evaluate=measure if evaluate else None)
    network = trainer.fit(progress=False)
    averaged = {name: value.clone() for name, value in network.state_dict().items()}
    state = held(setup, folder)
    log = [{k: v for k, v in line.items() if k not in TIMED} for line in read_log(folder / "log.jsonl")]
    return Ended(state["denoiser"], averaged, state["objective"], state["optimizer"], log)


def assert_identical(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_identical(left, right)
    else:
        assert one == other


def assert_same_run(one: Ended, other: Ended) -> None:
    assert_identical(vars(one), vars(other))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend on how many threads share them; the killed programs use one too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class StopError(Exception):
    pass


def stop_at(number: int) -> Callable[[int], None]:
    def before(seen: int) -> None:
        if seen == number:
            raise StopError

    return before


# Resume


def test_the_toy_is_a_data_source() -> None:
    assert isinstance(Data(Masked(4, 4)), DataSource)


def train_and_be_killed(folder: Path, setup: Setup, when: str) -> None:
    """Dies at a step, or with a checkpoint half written."""
    what, number = when.split(":")
    save, saved = loop.save_checkpoint, [0]

    def before(seen: int) -> None:
        if what == "step" and seen == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def save_half(folder: Path, samples: int, state: dict[str, Any]) -> Path:
        saved[0] += 1
        if what == "save" and saved[0] == int(number):
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        return save(folder, samples, state)

    loop.save_checkpoint = save_half  # type: ignore[attr-defined]
    setup.trainer(folder, before, evaluate=measure).fit(progress=False)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize(("name", "when"), [("latents", "step:14"), ("bf16", "save:3")])
def test_a_killed_run_resumes_to_the_last_bit(tmp_path: Path, name: str, when: str) -> None:
    program = [sys.executable, __file__, str(tmp_path / "killed"), name, when]
    ended = subprocess.run(program, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    left = read_log(tmp_path / "killed" / "log.jsonl")
    checkpoint = max(int(path.stem) for path in (tmp_path / "killed" / "checkpoints").glob("[0-9]*"))
    assert 0 < checkpoint < left[-1]["samples"] < SETUPS[name].config.samples
    resumed = finished(SETUPS[name], tmp_path / "killed")
    assert_same_run(resumed, finished(SETUPS[name], tmp_path / "whole"))


@pytest.mark.parametrize("stops", [(1,), (5, 5), (6, 7, 13), (19,)], ids=str)
@pytest.mark.parametrize("name", list(SETUPS))
def test_a_run_that_stops_anywhere_resumes_to_the_last_bit(
    tmp_path: Path, name: str, stops: tuple[int, ...], whole: Callable[[str], Ended]
) -> None:
    """Steps are counted from the last checkpoint; a run may stop many times."""
    stopped = 0
    for stop in stops:
        try:
            SETUPS[name].trainer(tmp_path, stop_at(stop), evaluate=measure).fit(progress=False)
        except StopError:
            stopped += 1
    assert stopped >= 1
    assert_same_run(finished(SETUPS[name], tmp_path), whole(name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """The uninterrupted run of each setup."""
    runs: dict[str, Ended] = {}

    def run(name: str) -> Ended:
        if name not in runs:
            runs[name] = finished(SETUPS[name], tmp_path_factory.mktemp("whole"))
        return runs[name]

    return run


def test_the_toy_would_notice(tmp_path: Path, whole: Callable[[str], Ended]) -> None:
    """Dropout, alignment and the average are all at work in what the tests above compare."""
    run = whole("latents")
    assert any(not torch.equal(run.live[name], run.averaged[name]) for name in run.live)
    assert {"total", "denoising", "token", "late"} <= set(run.log[0])
    assert "token" not in [line for line in run.log if "total" in line][-1]
    other = finished(SETUPS["latents"].changed(seed=4), tmp_path)
    assert not torch.equal(run.live["out.weight"], other.live["out.weight"])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = finished(PLAIN, tmp_path)
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert_same_run(finished(PLAIN, tmp_path), first)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == files


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    """The second is refused before it writes; when the first has ended, however it ended, the folder is free."""
    with claim.held(tmp_path / "run"):
        with pytest.raises(InputError, match=r"another process trains in .*run; wait for it"):
            finished(PLAIN, tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())
        finished(PLAIN, tmp_path / "other")
    finished(PLAIN, tmp_path / "run")


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    """With a constant rate the length is no part of the mathematics."""
    long = PLAIN.changed(decay=0.0)
    short = long.changed(samples=40)
    finished(short, tmp_path / "a", evaluate=False)
    assert_same_run(finished(long, tmp_path / "a", evaluate=False), finished(long, tmp_path / "b", evaluate=False))


@pytest.mark.parametrize("name", ["plain", "bf16"])
def test_evaluation_does_not_disturb_training(tmp_path: Path, name: str) -> None:
    often = finished(SETUPS[name].changed(evaluate_every=1), tmp_path / "often")
    never = finished(SETUPS[name].changed(evaluate_every=0), tmp_path / "never", evaluate=False)
    assert_identical([often.live, often.averaged, often.optimizer], [never.live, never.averaged, never.optimizer])
    assert [line for line in often.log if "total" in line] == never.log


def test_cadences_count_samples(tmp_path: Path) -> None:
    finished(PLAIN.changed(evaluate_every=30), tmp_path)
    log = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in log if "total" in line] == [3, 6, 9, 12, 15, 18]
    evaluated = [line["samples"] for line in log if "figure" in line]
    assert evaluated == [30, 60, 76]  # batches of 4, one of 2 at the end of an epoch of 26
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000000060", "000000000076"]


# Damage


def cut(folder: Path) -> None:
    for path in folder.iterdir():
        os.truncate(path, path.stat().st_size // 2)


def flip(folder: Path) -> None:
    """One bit of the largest file."""
    path = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None], whole: Callable[[str], Ended]
) -> None:
    with pytest.raises(StopError):
        PLAIN.trainer(tmp_path, stop_at(17), evaluate=measure).fit(progress=False)
    found = sorted((tmp_path / "checkpoints").iterdir())
    assert len(found) == 2
    damage(found[1])
    assert held(PLAIN, tmp_path)["counters"]["samples"] == int(found[0].name)
    assert_same_run(finished(PLAIN, tmp_path), whole("plain"))


def test_no_readable_checkpoint_is_one_line(tmp_path: Path) -> None:
    finished(PLAIN, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        cut(path)
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read .*remove the folder") as raised:
        finished(PLAIN, tmp_path)
    assert "\n" not in str(raised.value)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """A real limit on the size of a file: writers stop part-way, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_earlier_checkpoints_and_a_run_that_goes_on(
    tmp_path: Path, whole: Callable[[str], Ended]
) -> None:
    with pytest.raises(StopError):
        PLAIN.trainer(tmp_path, stop_at(11), evaluate=measure).fit(progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert len({path.parent for path in before}) == 2
    with disk_of(10_000), pytest.raises(InputError, match=r"cannot write .*checkpoints.*; free some space") as raised:
        PLAIN.trainer(tmp_path, evaluate=measure).fit(progress=False)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()} == before
    assert_same_run(finished(PLAIN, tmp_path), whole("plain"))


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_log_that_cannot_grow_is_one_line(tmp_path: Path) -> None:
    with disk_of(300), pytest.raises(InputError, match=r"cannot write .*log.jsonl: .*; free some space and resume"):
        PLAIN.changed(log_every=1).trainer(tmp_path).fit(progress=False)
    left = read_log(tmp_path / "log.jsonl")
    assert 0 < len(left) < 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (PLAIN.changed(seed=4), "holds a run of seed 3, the configuration says 4"),
        (replace(PLAIN, process=Masked(4, 4)), "holds a run of another model"),
        (replace(PLAIN, latents=(TOKEN,)), "holds a run of another model"),
    ],
    ids=["seed", "network", "latents"],
)
def test_a_folder_of_another_run_is_refused_and_kept(tmp_path: Path, other: Setup, said: str) -> None:
    finished(PLAIN, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"{said}.*; use ") as raised:
        finished(other, tmp_path)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoints", 8, {"weights": torch.zeros(3)})
    with pytest.raises(InputError, match="holds a run of another model"):
        finished(PLAIN, tmp_path)


def test_data_without_batches_is_one_line(tmp_path: Path) -> None:
    trainer = PLAIN.trainer(tmp_path)
    trainer.data.plan = lambda epoch: []  # type: ignore[method-assign]
    with pytest.raises(InputError, match="epoch 0 of the data has 0 batches and the run needs number 1"):
        trainer.fit(progress=False)


def test_a_latent_named_as_a_figure_of_the_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be named 'samples'"):
        replace(PLAIN, latents=(replace(TOKEN, name="samples"),)).trainer(tmp_path)


# Steps


class Sick(Data):
    """Data that is not a number at some batches."""

    def __init__(self, process: Process, sick: Callable[[int], bool]) -> None:
        super().__init__(process)
        self.sick = sick

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        number = self.number
        made = super().batch(items, noise)
        return replace(made, x_0=made.x_0 * math.nan) if self.sick(number) else made


def test_a_step_whose_gradient_is_not_finite_is_skipped(tmp_path: Path) -> None:
    setup = PLAIN.changed(checkpoint_every=1, log_every=1)
    trainer = setup.trainer(tmp_path)
    trainer.data = Sick(setup.process, lambda number: number in (4, 5))
    weights: list[Tensor] = []
    averages: list[Tensor] = []
    counts: list[int] = []
    plain_step, plain_guard = trainer.stepper.take, trainer._guard

    def guarded(taken: Any) -> None:
        plain_guard(taken)
        counts.append(trainer.bad_steps)

    def watched(work: Any, step: int) -> Any:
        loss = plain_step(work, step)
        weights.append(trainer.denoiser.out.weight.detach().clone())  # type: ignore[union-attr]
        averages.append(trainer.ema.state_dict()["out.weight"].clone())
        assert all(parameter.grad is None for parameter in trainer.named.values())
        return loss

    trainer.stepper.take = watched  # type: ignore[method-assign]
    trainer._guard = guarded  # type: ignore[method-assign]
    trainer.fit(progress=False)
    assert counts[:8] == [0, 0, 0, 0, 1, 2, 0, 0]
    for moved in (weights, averages):
        changes = [not torch.equal(one, other) for one, other in pairwise(moved)]
        assert changes[:6] == [True, True, True, False, False, True]
        assert all(changes[6:-1])
    assert all(value.isfinite().all() for value in trainer.denoiser.state_dict().values())
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, len(weights) + 1))


def test_a_run_that_stays_sick_ends_in_one_line_and_keeps_its_count(tmp_path: Path) -> None:
    """The count is part of the state: a resume does not forgive."""
    setup = PLAIN.changed(samples=1000, max_bad_steps=30)
    trainer = setup.trainer(tmp_path)
    trainer.data = Sick(setup.process, lambda number: number >= 3)
    with pytest.raises(
        InputError, match=r"not finite for 30 steps in a row at [0-9]+ samples; lower the learning rate"
    ):
        trainer.fit(progress=False)
    state = held(setup, tmp_path)
    assert 20 < state["counters"]["bad_steps"] < 30
    assert all(value.isfinite().all() for value in state["denoiser"].values())


def test_the_update_is_that_of_a_slow_loop(tmp_path: Path) -> None:
    """AdamW with decay on matrices alone, clipping, the rate, the average: written out."""
    setup = replace(PLAIN, latents=(TOKEN,)).changed(samples=26, clip=0.3)
    run = finished(setup, tmp_path, evaluate=False)
    reference = setup.trainer(tmp_path / "unused")
    network, objective, data = reference.denoiser, reference.objective, Data(setup.process)
    parameters = [*network.parameters(), *objective.parameters()]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    config, samples = setup.config, 0
    clipped = 0
    for step, items in enumerate(data.plan(0), 1):
        noise = NoiseSource(config.seed, range(samples, samples + len(items)))
        torch.manual_seed(mix_seed(config.seed, samples))
        batch = data.batch(items, noise)
        loss = objective(
            network.train(), batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight, n=samples
        )
        gradients = torch.autograd.grad(loss.total, parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))  # type: ignore[arg-type]
        clipped += bool(norm > config.clip)
        rate = config.learning_rate * min(1, (samples + 1) / config.warmup, (config.samples - samples) / (0.25 * 26))
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                g = g * min(1.0, config.clip / (float(norm) + 1e-6))
                p.mul_(1 - rate * (config.weight_decay if p.ndim >= 2 else 0))
                m.lerp_(g, 1 - config.betas[0])
                v.lerp_(g * g, 1 - config.betas[1])
                m_hat, v_hat = m / (1 - config.betas[0] ** step), v / (1 - config.betas[1] ** step)
                p.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
            decay = min(config.ema, (1 + step) / (10 + step))
            for name, p in network.named_parameters():
                average[name].mul_(decay).add_((1 - decay) * p)
        samples += len(items)
    assert clipped
    expected = [*network.state_dict().values(), *objective.state_dict().values()]
    for one, other, v in zip([*run.live.values(), *run.projectors.values()], expected, second, strict=True):
        steady = v.sqrt() > 1e-6  # a gradient that is 0 but for rounding (the bias of keys) moves at random
        assert float(steady.float().mean()) > 0.6
        torch.testing.assert_close(one[steady], other[steady], atol=1e-6, rtol=1e-4)
    for (name, value), v in zip(average.items(), second, strict=False):
        steady = v.sqrt() > 1e-6
        torch.testing.assert_close(run.averaged[name][steady], value[steady], atol=1e-6, rtol=1e-4)


def test_bf16_is_for_matrices_of_network_and_projectors(tmp_path: Path) -> None:
    """They run under autocast; hidden states, weights, gradients, losses and heads are in float32."""
    trainer = SETUPS["bf16"].trainer(tmp_path)
    seen: list[torch.dtype] = []
    trainer.denoiser.out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = trainer.data.batch(range(4), NoiseSource(0, range(4)))
    read: list[tuple[torch.dtype, torch.dtype]] = []
    projector = trainer.objective.readout("token").projector
    projector.register_forward_hook(lambda module, inputs, output: read.append((inputs[0].dtype, output.dtype)))
    total, parts = trainer.guided(batch, NoiseSource(0, range(4)), 0.0)
    total.backward()
    assert seen == [torch.bfloat16]
    assert read == [(torch.float32, torch.bfloat16)]
    assert {total.dtype, parts["denoising"].dtype, parts["token"].dtype} == {torch.float32}
    assert all(p.dtype == torch.float32 == p.grad.dtype for p in trainer.named.values() if p.grad is not None)


def test_training_learns(tmp_path: Path) -> None:
    setup = Setup(Masked(4, 4), (TOKEN,)).changed(samples=1500, log_every=1, learning_rate=5e-3)
    finished(setup, tmp_path)
    losses = [line["total"] for line in read_log(tmp_path / "log.jsonl") if "total" in line]
    assert sum(losses[-50:]) < 0.8 * sum(losses[:50])


# The rate


@pytest.mark.parametrize("warmup", [0, 100])
@pytest.mark.parametrize("decay", [0.0, 0.25, 1.0])
def test_the_rate_rises_stays_and_falls(warmup: int, decay: float) -> None:
    config = TrainConfig(samples=1000, learning_rate=0.5, warmup=warmup, decay=decay)
    rates = [config.rate(n) for n in range(1001)]
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert all(rate > 0 for rate in rates[:1000])
    if warmup:
        assert rates[0] == pytest.approx(0.005)
        assert rates[49] == pytest.approx(0.25)
    start = 1000 - int(1000 * decay)
    if decay:
        assert rates[1000] == 0
        middle = (1000 + max(start, warmup)) // 2
        assert rates[middle] == pytest.approx(0.5 * (1000 - middle) / (1000 * decay))
    if start > warmup:
        assert rates[max(warmup, 0) : start] == [0.5] * (start - warmup)


# The average


def test_the_average_is_that_of_a_slow_loop() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    ema = Ema(module, 0.5)
    expected = {name: p.detach().double() for name, p in module.named_parameters()}
    for step in range(1, 30):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, p in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    for name, value in ema.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_swapping_twice_changes_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2, dtype=dtype)
    ema = Ema(module, 0.5)
    with torch.no_grad():
        module.weight.add_(1 / 3)
    ema.update(1)
    live = {name: value.clone() for name, value in module.state_dict().items()}
    average = {name: value.clone() for name, value in ema.state_dict().items()}
    ema.swap()
    assert_identical(dict(module.state_dict()), average)
    ema.swap()
    assert_identical(dict(module.state_dict()), live)
    assert_identical(ema.state_dict(), average)
    other = Ema(nn.Linear(3, 2, dtype=dtype), 0.5)
    other.load_state_dict(average)
    assert_identical(other.state_dict(), average)


# The log


def test_a_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0)
    for samples in (10, 20, 30):
        log.write({"samples": samples, "total": samples / 3})
    with path.open("a") as stream:
        stream.write('{"samples": 40, "tot')
    assert [line["samples"] for line in read_log(path)] == [10, 20, 30]
    log = RunLog(path, 20)
    log.write({"samples": 30, "total": 10.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"samples": 10, "total": 10 / 3},
        {"samples": 20, "total": 20 / 3},
        {"samples": 30, "total": 10.0},
    ]
    assert path.read_text().endswith("\n")
    RunLog(path, 0)
    assert path.read_text() == ""


def test_a_line_that_ends_the_log_is_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    line = {"samples": 10, "figure": 0.1}
    RunLog(path, 0).write(line)
    log = RunLog(path, 10)
    log.write(line)
    log.write({**line, "figure": 0.2})
    assert [line["figure"] for line in read_log(path)] == [0.1, 0.2]


# Configurations


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 4
    name: str = "x"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    train: TrainConfig
    inner: Inner = Inner()
    tags: tuple[str, ...] = ()


FILES = {
    "c.toml": '[train]\nsamples = 10\nbetas = [0.8, 0.9]\n[inner]\nwidth = 7\nname = "seven"\n',
    "c.yaml": "train:\n  samples: 10\n  betas: [0.8, 0.9]\ninner:\n  width: 7\n  name: seven\n",
    "c.json": '{"train": {"samples": 10, "betas": [0.8, 0.9]}, "inner": {"width": 7, "name": "seven"}}',
}


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("name", list(FILES))
def test_a_configuration_is_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    config = read_config(Outer, written(tmp_path, name, FILES[name]))
    assert config == Outer(train=TrainConfig(samples=10, betas=(0.8, 0.9)), inner=Inner(width=7, name="seven"))
    assert Outer.model_validate_json(config.model_dump_json()) == config


def test_assignments_win_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "c.toml", FILES["c.toml"])
    config = read_config(
        Outer,
        path,
        ["train.samples=20", "train.samples=30", "train.learning_rate=1e-4", "inner.name=a=b", 'tags=["p", "q"]'],
    )
    assert (config.train.samples, config.train.learning_rate) == (30, 1e-4)
    assert (config.inner, config.tags) == (Inner(width=7, name="a=b"), ("p", "q"))
    bare = written(tmp_path, "bare.toml", "[train]\nsamples = 1\n")
    assert read_config(Outer, bare, ["inner.width=9"]).inner == Inner(width=9)
    assert read_config(TrainConfig, written(tmp_path, "t.toml", ""), ["samples=5"]).samples == 5


@pytest.mark.parametrize(
    ("name", "text", "overrides", "said"),
    [
        ("absent.toml", None, [], "cannot read configuration .*absent.toml: .*No such file"),
        ("folder", "FOLDER", [], "cannot read configuration .*Is a directory"),
        ("c.toml", "samples = = 1", [], "is not valid TOML: .*line 1"),
        ("c.toml", "[train]\nsamples = 1\n[train]\n", [], "is not valid TOML"),
        ("c.yaml", "a: [1,\nb: }", [], "is not valid YAML: .*line 2"),
        ("c.yaml", "samples: 2024-13-45", [], "is not valid YAML"),
        ("c.json", '{"a": ', [], "is not valid JSON"),
        ("c.yaml", "", [], "holds no settings"),
        ("c.yaml", "- 1\n- 2\n", [], "holds no settings"),
        ("c.toml", "", [], "train: Field required"),
        ("c.toml", "[train]\nsamples = 1\nsampels = 2\n", [], "train.sampels: Extra inputs are not permitted"),
        ("c.toml", "[train]\nsamples = 'many'\n", [], "train.samples: Input should be a valid integer"),
        ("c.toml", "[train]\nsamples = 0\n", [], "train.samples: Input should be greater than or equal to 1"),
        ("c.toml", "[train]\nsamples = 1\nema = 1.0\n", [], "train.ema: Input should be less than 1"),
        ("c.toml", "[train]\nsamples = 1\nlearning_rate = inf\n", [], "train.learning_rate: .*finite"),
        ("c.toml", "[train]\nsamples = 1\nbetas = [0.9, 2]\n", [], "train.betas.1: Input should be less than 1"),
        (
            "c.toml",
            "[train]\nsamples = 1\nprecision = 'fp8'\n",
            [],
            "train.precision: Input should be 'fp32', 'bf16' or 'fp16'",
        ),
        (
            "c.toml",
            FILES["c.toml"],
            ["train.stop_metric=loss"],
            "stop_metric loss needs evaluations; set evaluate_every",
        ),
        ("c.toml", FILES["c.toml"], ["train.samples"], "--set train.samples: expected NAME=VALUE"),
        ("c.toml", FILES["c.toml"], ["=3"], "--set =3: expected"),
        ("c.toml", FILES["c.toml"], ["train.=3"], "--set train.=3: expected"),
        ("c.toml", FILES["c.toml"], ["inner.width.deep=3"], "--set inner.width.deep: width is a value, not a table"),
        ("c.toml", FILES["c.toml"], ["inner.wdth=3"], "--set|inner.wdth: Extra inputs"),
        ("c.toml", FILES["c.toml"], ["inner.width=wide"], "inner.width=wide: inner.width: Input should be a valid int"),
        ("c.toml", FILES["c.toml"], ["train=3"], "train: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    tmp_path: Path, name: str, text: str | None, overrides: list[str], said: str
) -> None:
    path = tmp_path / name
    if text == "FOLDER":
        path.mkdir()
    elif text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        read_config(Outer, path, overrides)
    assert "\n" not in str(raised.value)


def test_a_configuration_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read configuration"):
        read_config(Outer, tmp_path / "c.toml")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_and_be_killed(Path(sys.argv[1]), SETUPS[sys.argv[2]], sys.argv[3])
