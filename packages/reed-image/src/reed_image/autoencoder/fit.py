"""The loop that trains an autoencoder, whatever its loss: seeded, logged, and resumed from its last checkpoint.

Pictures and noise of a step are functions of (seed, pictures seen), so a killed run goes on as if it had not been.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.log import RunLog
from reed_core.train.order import permutation
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from reed_image.data.prepared import Prepared


class FitConfig(BaseModel):
    """How an autoencoder is trained.

    Attributes:
        samples: Pictures to train on.
        batch: Pictures of a step.
        learning_rate: Of AdamW, falling linearly to 0 over the last quarter.
        seed: Seeds weights, order and noise.
        checkpoint_every: Pictures between checkpoints.
        log_every: Steps between lines of the log.
        measured: Pictures that set the normalisation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(default=200_000, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = 0
    checkpoint_every: int = Field(default=20_000, ge=1)
    log_every: int = Field(default=20, ge=1)
    measured: int = Field(default=2048, ge=2)


Loss = Callable[[Tensor, NoiseSource], Any]
"""`loss(x, noise)` of pictures x in [-1, 1]: a NamedTuple of scalars, among them `total` and `distance`."""


def fit(
    network: nn.Module,
    loss_of: Loss,
    data: Prepared,
    config: FitConfig,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> None:
    """Trains a network to the end of its run; it is left in evaluation mode.

    Args:
        network: The network, on its device.
        loss_of: Its loss.
        data: Pictures, prepared with `images`; mirrored at random.
        config: How.
        folder: The run: `log.jsonl` and `checkpoints/`.
        device: Where.
        progress: Show a progress bar on standard error.

    Raises:
        InputError: If the folder holds another run.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.0)
    samples = _resume(folder, network, optimizer, config)
    log = RunLog(folder / "log.jsonl", samples)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("training", total=config.samples, completed=samples)
        network.train()
        while samples < config.samples:
            noise = NoiseSource(config.seed, range(samples, samples + config.batch))
            x = _pictures(data, _items(data, config, samples), noise).to(device)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, 4 * (1 - samples / config.samples))
            loss = loss_of(x, noise)
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            before, samples = samples, samples + config.batch
            if samples // config.batch % config.log_every == 0:
                parts = {name: value.item() for name, value in loss._asdict().items()}
                log.write({"samples": samples, **parts})
                bar.update(task, description=f"distance {parts['distance']:.3f}")
            bar.update(task, completed=min(samples, config.samples))
            if before // config.checkpoint_every != samples // config.checkpoint_every:
                _save(folder, samples, network, optimizer, config)
    network.eval()


def _items(data: Prepared, config: FitConfig, samples: int) -> list[int]:
    """The pictures of the step that begins after `samples`: epochs follow one another without a gap."""
    pictures = data.manifest.pictures
    found: list[int] = []
    while len(found) < config.batch:
        epoch, place = divmod(samples + len(found), pictures)
        order = permutation(config.seed, epoch, pictures)
        found += [int(one) for one in order[place : place + config.batch - len(found)]]
    return found


def _pictures(data: Prepared, pictures: Sequence[int], noise: NoiseSource) -> Float[Tensor, "b 3 h w"]:
    """Pictures in [-1, 1], each mirrored with probability 1/2."""
    x = data.pictures([one * data.copies for one in pictures]) * 2 - 1
    mirrored = noise.uniform(()) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def _state(network: Any, optimizer: torch.optim.Optimizer, config: FitConfig, samples: int) -> dict[str, Any]:
    moments = {name: optimizer.state[value] for name, value in network.named_parameters()}
    return {
        "network": network.state_dict(),
        "moments": moments,
        "samples": samples,
        "config": config.model_dump_json(exclude={"samples", "checkpoint_every", "log_every", "measured"}),
    }


def _save(folder: Path, samples: int, network: Any, optimizer: torch.optim.Optimizer, config: FitConfig) -> None:
    save_checkpoint(folder / "checkpoints", samples, _state(network, optimizer, config, samples))


def _resume(folder: Path, network: Any, optimizer: torch.optim.Optimizer, config: FitConfig) -> int:
    """Fills network and optimiser from the last checkpoint; the pictures seen by then, 0 if there is none."""
    for value in network.parameters():  # as AdamW makes it at its first step
        optimizer.state[value] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(value, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(value, memory_format=torch.preserve_format),
        }
    wanted = _state(network, optimizer, config, 0)
    found = load_latest(folder / "checkpoints", wanted)
    if found is None:
        return 0
    if json.loads(found["config"]) != json.loads(wanted["config"]):
        raise InputError(f"{folder} holds a run of another configuration; choose another folder, or remove this one")
    network.load_state_dict(found["network"])
    return int(found["samples"])
