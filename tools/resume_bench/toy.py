"""A small model of core, trained: a masked diffusion of token chains with two latents, dropout and a curriculum.

uv run tools/resume_bench/toy.py RUN --samples 400          (trains, or resumes what RUN holds)
uv run torchrun --nproc-per-node 2 tools/resume_bench/toy.py RUN
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from reed_core.console import run
from reed_core.curriculum import Curriculum, Schedule
from reed_core.head import Categorical
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Masked
from reed_core.train import Batch, TrainConfig, Trainer
from torch import Tensor, nn

TOKENS, LENGTH, ITEMS, BATCH, WIDTH = 8, 16, 50, 4, 48


class Network(nn.Module):
    """A transformer that reads a chain of tokens, some of them masked, and names each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS + 1, WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        layer = [nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.1, batch_first=True) for _ in range(3)]
        self.blocks = nn.ModuleList(layer)
        self.out = nn.Linear(WIDTH, TOKENS)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        """Logits [b, n, tokens] of the clean tokens."""
        hidden = self.embed(x_t) + self.place + t[:, None, None]
        for block in self.blocks:
            hidden = block(hidden)
        return self.out(hidden)


class Chains:
    """Arithmetic sequences with a few errors; the latents are the clean tokens and the step between them."""

    def plan(self, epoch: int) -> list[list[int]]:
        """Batches of four in an order of the epoch; the last one is smaller."""
        order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(epoch)).tolist()
        return [order[start : start + BATCH] for start in range(0, ITEMS, BATCH)]

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """The chains of these items."""
        item = torch.tensor(items)[:, None]
        step = item // TOKENS
        clean = (item + step * torch.arange(LENGTH)) % TOKENS
        tokens = torch.where(noise.uniform((LENGTH,)) < 0.05, 0, clean)
        z = {"clean": Representation(clean), "stride": Representation((step % TOKENS).expand_as(clean))}
        return Batch(tokens, z=lambda: z)


def figure(model: nn.Module) -> dict[str, float]:
    """The sum of all averaged weights: it changes with the last bit of any."""
    return {"weights": sum(float(parameter.detach().double().sum()) for parameter in model.parameters())}


def trainer(folder: Path, samples: int, every: int, parallel: str = "ddp", ends: int | None = None) -> Trainer:
    """The toy in a folder.

    Args:
        folder: The run.
        samples: Its length; the learning rate does not depend on it.
        every: Samples between checkpoints.
        parallel: "ddp" or "fsdp", for several processes.
        ends: Samples after which it ends already, without the evaluation at the end.
    """
    torch.manual_seed(0)
    latents = [
        Latent("clean", "blocks.0", WIDTH, TOKENS, Categorical(), hidden=WIDTH),
        Latent("stride", "blocks.1", WIDTH, TOKENS, Categorical(), hidden=WIDTH),
    ]
    curriculum = Curriculum(Schedule(decay="stop", end=samples // 2), Schedule(warmup=20))
    config = TrainConfig(
        samples=ends or samples,
        warmup=40,
        decay=0.0,
        weight_decay=0.1,
        ema=0.99,
        checkpoint_every=every,
        evaluate_every=10 * every,
        log_every=1,
        parallel="fsdp" if parallel == "fsdp" else "ddp",
    )
    return Trainer(
        Network(),
        Objective(Masked(TOKENS, TOKENS), latents, curriculum),
        Chains(),
        config,
        folder,
        figure if ends is None else None,
    )


def main(
    folder: Annotated[Path, typer.Argument(metavar="RUN")],
    samples: Annotated[int, typer.Option(min=1)] = 400,
    every: Annotated[int, typer.Option(help="Samples between checkpoints.", min=1)] = BATCH,
    parallel: Annotated[str, typer.Option(help="ddp or fsdp, under torchrun.")] = "ddp",
) -> None:
    """Trains the toy in RUN, or resumes it."""
    torch.set_num_threads(1)
    trainer(folder, samples, every, parallel).fit(progress=False)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
