"""An estimate writes nothing, moves nothing, and is near what is then measured and written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reed_core import presets
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.representation import CacheBuilder
from reed_core.representation.estimate import estimate_encoding
from reed_core.train import Batch, TrainConfig, Trainer
from reed_core.train.estimate import Measure, estimate_training, size
from torch import Tensor, nn

WIDTH, ITEMS, ROWS = 256, 60, 6


@dataclass(frozen=True)
class Points:
    """Items of six vectors; batches of three and four."""

    fingerprint: str = "points"

    def __len__(self) -> int:
        return ITEMS

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        order = list(range(ITEMS))
        return [order[start : start + size] for start in range(0, ITEMS, 7) for size in (3, 7) if order[start:]]

    def batch(self, items: Sequence[int], noise: NoiseSource | None = None) -> Batch:
        x_0 = torch.stack([torch.full((ROWS, 4), float(item)).sin() for item in items])
        return Batch(x_0, z=lambda: {"z": Representation(x_0[..., :3])})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.out = nn.Linear(WIDTH, 4)
        self.steps = 0

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        self.steps += 1
        time.sleep(0.002)
        out: Tensor = self.out(self.body(x_t))
        return out


def parts() -> tuple[Net, Any]:
    torch.manual_seed(0)
    return Net(), presets.repa(Interpolant(), Latent("z", tap="body", tap_dim=WIDTH, dim=3))


def test_hours_and_disk_are_near_those_of_the_run(tmp_path: Path) -> None:
    config = TrainConfig(samples=300, checkpoint_every=100, log_every=5, prefetch=0)
    folder = tmp_path / "run"
    net, objective = parts()
    found = estimate_training(net, objective, Points(), config, unit="points", folder=folder)
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
    started = time.perf_counter()
    trainer = Trainer(net, objective, Points(), config, folder)
    trainer.fit(progress=False)
    seconds = time.perf_counter() - started
    assert found.hours is not None
    assert seconds / 4 < 3600 * found.hours < seconds * 4
    assert found.steps == trainer.step
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    promised = {part.name.split()[0]: part.bytes for part in found.disk}
    assert written == pytest.approx(promised["checkpoints"] + promised["log"], rel=0.1)
    one = max((folder / "checkpoints").iterdir())
    assert found.extra == pytest.approx(sum(path.stat().st_size for path in one.rglob("*") if path.is_file()), rel=0.1)


def test_nothing_moves() -> None:
    net, objective = parts()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    estimate_training(net, objective, Points(), TrainConfig(samples=40), steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in (*net.parameters(), *objective.parameters()))
    assert net.steps == 0


def test_the_work_of_an_epoch_is_weighed_by_its_measure() -> None:
    net, objective = parts()
    plan = Points().plan(0)
    found = estimate_training(
        net, objective, Points(), TrainConfig(samples=200), measure=Measure("rows", lambda items: ROWS * len(items))
    )
    assert found.most_measure == ROWS * 7
    assert found.mean_measure == pytest.approx(ROWS * sum(map(len, plan)) / len(plan))
    table = found.table()
    assert "rows (at most 42)" in table
    assert len({line.index("  ", 2) for line in table.splitlines()} | {0}) > 1
    assert all(word in table for word in ("memory", "disk", "time", "global batch"))


def test_alignment_that_ends_is_counted_for_its_share() -> None:
    """Making z sleeps; a run that aligns over its first half waits half as long."""

    class Slow(Points):
        def batch(self, items: Sequence[int], noise: NoiseSource | None = None) -> Batch:
            batch = super().batch(items, noise)
            assert callable(batch.z)

            def make() -> Any:
                time.sleep(0.05)
                return {"z": Representation(batch.x_0[..., :3])}

            return replace(batch, z=make)

    net, objective = parts()
    config = TrainConfig(samples=1000)
    always = estimate_training(net, objective, Slow(), config).hours
    objective.curriculum = Curriculum(Schedule(decay="stop", end=500))
    half = estimate_training(net, objective, Slow(), config).hours
    assert always is not None
    assert half is not None
    assert 0.3 < half / always < 0.8


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun"):
        estimate_training(*parts(), Points(), TrainConfig(samples=10))


@dataclass(frozen=True)
class Encoder:
    name: str = "slow"
    dim: int = 400
    level: Any = "token"
    fingerprint: str = "slow-1"

    def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
        time.sleep(0.004)
        return Representation(x_0[..., :1] * torch.arange(1, self.dim + 1))


@pytest.mark.parametrize("part", [(0, 1), (1, 2)])
def test_the_estimate_of_a_cache_is_near_what_it_costs(tmp_path: Path, part: tuple[int, int]) -> None:
    builder = CacheBuilder(tmp_path / "cache", Encoder(), Points(), shard_items=10, batch_items=2)
    whole = ITEMS * ROWS * (2 * 400 + 1)
    found = estimate_encoding(builder, [float(ROWS)] * ITEMS, whole, name="slow", part=part)
    assert not (tmp_path / "cache").exists()
    started = time.perf_counter()
    for index in range(part[0], builder.shards, part[1]):
        builder.write(index)
    seconds = time.perf_counter() - started
    assert found.hours is not None
    assert seconds / 4 < 3600 * found.hours < seconds * 4
    written = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert found.written == pytest.approx(written, rel=0.1)
    again = estimate_encoding(builder, [float(ROWS)] * ITEMS, whole, name="slow", part=part)
    assert again.samples == again.steps == again.hours == 0
    assert "0 items" in again.table()


def test_sizes_are_read_by_people() -> None:
    assert [size(count) for count in (0, 999, 1500, 2.5e6, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.00 TB",
    ]  # fmt: skip
