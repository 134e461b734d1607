"""A toy and the plainest training loop of it: `accelerate_loop.py` and `lightning_loop.py` are this loop in theirs.

What is random belongs to samples: item k of the run has position k, whichever process sees it in whichever batch. The
network and the objective are one module, `Step`, so that whatever wraps it (data parallelism, mixed precision) wraps
the loss.

    python examples/plain_loop.py
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WIDTH, BATCH, RATE = 8, 32, 1e-3


class Net(nn.Module):
    """A small network on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Linear(WIDTH + 1, 64), nn.SiLU())
        self.middle = nn.Sequential(nn.Linear(64, 64), nn.SiLU())
        self.out = nn.Linear(64, WIDTH)

    def forward(self, x_t: Tensor, t: Tensor, c: None = None) -> Tensor:
        """The velocity."""
        return self.out(self.middle(self.up(torch.cat([x_t, t[:, None]], -1))))


class Walks(Dataset[tuple[int, Tensor]]):
    """The items of a run, in order: position and random walk."""

    def __init__(self, steps: int) -> None:
        self.walks = torch.randn(steps * BATCH, WIDTH, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 2

    def __len__(self) -> int:
        return len(self.walks)

    def __getitem__(self, position: int) -> tuple[int, Tensor]:
        return position, self.walks[position]


class Step(nn.Module):
    """Network and objective: a batch in, the loss out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()
        self.objective: Objective = presets.reed(
            Interpolant(),
            [
                Latent("ends", tap="middle", tap_dim=64, dim=2, level="global", hidden=32),
                Latent("whole", tap="up", tap_dim=64, dim=WIDTH, level="global", hidden=32),
            ],
        )

    def forward(self, positions: Int[Tensor, "b"], x_0: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = {"ends": Representation(x_0[:, [0, -1]]), "whole": Representation(x_0)}
        noise = NoiseSource(0, positions.tolist())
        return self.objective(self.net, x_0, noise, z=z, n=float(positions.min())).total


def batches(steps: int) -> DataLoader[tuple[int, Tensor]]:
    """The batches of a run."""
    return DataLoader(Walks(steps), batch_size=BATCH)


def run(steps: int) -> Iterator[float]:
    """Trains; yields the loss of every step."""
    step = Step()
    optimizer = torch.optim.AdamW(step.parameters(), lr=RATE)
    for positions, x_0 in batches(steps):
        loss = step(positions, x_0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


if __name__ == "__main__":
    print(*(f"{loss:.4f}" for loss in run(10)))
