"""A toy in float64 that trains alone or in a group of processes, and the runs that `test_parallel.py` compares.

Run as a program it is one process of two: `parallel_toy.py FOLDER RANK` trains every run of `TOGETHER`, in a group that
meets in a file.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from reed_core.curriculum import Curriculum, Schedule
from reed_core.head import Categorical, Gaussian
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.reveal import PointMass
from reed_core.train import Batch, TrainConfig, Trainer, parallel
from torch import Tensor, nn

SIZES = (4, 3, 1, 5, 2, 6)  # one batch has fewer samples than there are processes


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 12), nn.Linear(12, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean = (x * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        return x + self.second(torch.tanh(self.first(self.norm(x + mean))))


class Network(nn.Module):
    """Blocks in a ModuleList, a parameter that no step uses, and a method beside `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 8), nn.Linear(8, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        x = self.embed(x_t * self.scale) + t[:, None, None].to(x_t)
        for block in self.blocks:
            x = block(x, c)
        return self.out(x)

    def size(self) -> float:
        return sum(float(parameter.detach().abs().sum()) for parameter in self.parameters())


class Data:
    """Batches of many sizes; lengths differ, so pieces are padded differently; samples have weights."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype

    def plan(self, epoch: int) -> list[list[int]]:
        order = torch.randperm(sum(SIZES), generator=torch.Generator().manual_seed(epoch)).tolist()
        edges = [sum(SIZES[:number]) for number in range(len(SIZES) + 1)]
        return [order[first:last] for first, last in pairwise(edges)]

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        item = torch.tensor(items)
        mask = torch.arange(int(item.max()) % 3 + 3)[None] < (item % 3 + 1)[:, None]
        place = torch.arange(mask.shape[1])
        x_0 = torch.sin(item[:, None, None] + place[None, :, None] + torch.arange(4.0)).to(self.dtype)
        x_0 = x_0 + 0.1 * noise.normal(x_0.shape[1:])
        classes = torch.where(mask, (item[:, None] + place) % 4, -1)
        z = {"kind": Representation(classes, mask), "form": Representation(torch.cos(x_0[..., :2]), mask)}
        return Batch(x_0, c=mask, mask=mask, z=lambda: z, weight=mask.sum(1).double())


KIND = Latent("kind", "blocks.0", 8, 4, Categorical(), hidden=8)
FORM = Latent("form", "blocks.1", 8, 2, Gaussian(0.5), hidden=8)
LATE = replace(FORM, reveal=PointMass(0.7))
CONFIG = TrainConfig(
    samples=44, seed=3, learning_rate=0.01, warmup=12, decay=0.0, weight_decay=0.1, clip=0.5, ema=0.9,
    checkpoint_every=22, evaluate_every=17, sample_every=17, log_every=2,
)  # fmt: skip


USUAL = Curriculum(Schedule(start=5, decay="stop", end=28), Schedule(warmup=20))


@dataclass(frozen=True)
class Setting:
    """A run.

    Attributes:
        settings: Changes to `CONFIG`.
        latents: Its latents.
        curriculum: Its curriculum; by default alignment is on for part of the run.
    """

    settings: dict[str, Any]
    latents: tuple[Latent, ...] = (KIND, FORM)
    curriculum: Curriculum = USUAL

    def trainer(self, folder: Path) -> Trainer:
        torch.manual_seed(3 + (dist.get_rank() if dist.is_initialized() else 0))  # the main process's weights count
        low = self.settings.get("precision", "fp32") != "fp32"
        dtype = torch.float32 if low else torch.float64  # autocast leaves float64 alone
        objective = Objective(Interpolant(), self.latents, self.curriculum).to(dtype)
        config = TrainConfig.model_validate(CONFIG.model_dump() | self.settings)
        return Trainer(Network().to(dtype), objective, Data(dtype), config, folder, measure, sample=write)


def measure(network: nn.Module) -> dict[str, float]:
    """A figure of whole weights, by a method that is not `forward`; each process says another one."""
    assert isinstance(network, Network)
    assert not network.training
    return {"size": network.size(), "rank": float(dist.get_rank() if dist.is_initialized() else 0)}


def write(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, Network)
    x = network(torch.ones(1, 3, 4).to(network.out.weight), torch.zeros(1), torch.ones(1, 3).bool())
    (folder / "sample.txt").write_text(f"{float(x.detach().sum()):.9f}")


SCOPED = Curriculum(Schedule(decay="linear", end=40), Schedule(warmup=30), scope="learning_rate")
ALONE = {
    "plain": Setting({}),
    "scoped": Setting({}, (KIND, LATE), SCOPED),
    "stopping": Setting({"evaluate_every": 4, "stop_metric": "size", "stop_patience": 2}),
}
TOGETHER = {
    "plain, ddp": Setting({}),
    "plain, fsdp": Setting({"parallel": "fsdp"}),
    "plain, ddp, 2 pieces": Setting({"accumulate": 2, "prefetch": 0}),
    "plain, fsdp, 3 pieces": Setting({"parallel": "fsdp", "accumulate": 3}),
    "scoped, ddp": ALONE["scoped"],
    "scoped, fsdp": Setting({"parallel": "fsdp"}, (KIND, LATE), SCOPED),
    "stopping, fsdp": Setting(ALONE["stopping"].settings | {"parallel": "fsdp"}),
}
RESHARDED = ("ddp", "fsdp")
HALF = 22


def continued(kind: str, samples: int) -> Setting:
    """A run of alignment that ends between the halves, up to some number of samples."""
    return Setting({"parallel": kind, "samples": samples})


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'meet'}", rank=int(sys.argv[2]), world_size=2)
    for name, setting in TOGETHER.items():
        setting.trainer(out / name).fit(progress=False)
    for kind in RESHARDED:
        continued(kind, HALF).trainer(out / f"2 to 1, {kind}").fit(progress=False)
        if dist.get_rank() == 0:
            shutil.copytree(out / "1 to 2", out / f"1 to 2, {kind}")
        dist.barrier()
        continued(kind, CONFIG.samples).trainer(out / f"1 to 2, {kind}").fit(progress=False)
    for kind in RESHARDED:
        low = Setting({"parallel": kind, "precision": "bf16", "samples": 14})
        network = low.trainer(out / f"bf16, {kind}").fit(progress=False)
        assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    torch.compile = partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
    short = {"samples": 8, "evaluate_every": 0, "parallel": "fsdp"}
    slow, fast = (
        Setting({**short, "compile": on}).trainer(out / f"compiled {on}").fit(progress=False).state_dict()
        for on in (False, True)
    )
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, atol=1e-10, rtol=0.0)
    parallel.stop()
