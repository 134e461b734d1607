"""Training a small autoencoder of one's own: diffusers' AutoencoderKL, so that anything that reads diffusers reads it.

    loss = mean |x' - x| + weight * KL(q(z | x) || N(0, 1)) / (pixels x colours)        x' = decode(z), z ~ q(z | x)

Pictures and noise of a step are functions of (seed, pictures seen), and a killed run goes on from its last checkpoint.
At the end latents are normalised to mean 0 and deviation 1 per channel (`latents_mean`, `latents_std` of the
configuration), by the pictures of the first epoch's first batches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from reed_core.files import directory_written_aside
from reed_core.noise import NoiseSource, mix_seed
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.log import RunLog
from reed_core.train.order import permutation
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from reed_image.autoencoder.codec import KlCodec
from reed_image.autoencoder.load import load_autoencoder
from reed_image.autoencoder.model import Autoencoder
from reed_image.data.prepared import Prepared


class VaeConfig(BaseModel):
    """A small autoencoder and how it is trained.

    Attributes:
        widths: Channels at each resolution; each after the first halves the side.
        latent: Channels of the latents.
        layers: Residual blocks at each resolution.
        weight: Of the KL divergence.
        samples: Pictures to train on.
        batch: Pictures of a step.
        learning_rate: Of AdamW, falling linearly to 0 over the last quarter.
        seed: Seeds weights, order and noise.
        checkpoint_every: Pictures between checkpoints.
        log_every: Steps between lines of the log.
        measured: Pictures that set the normalisation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, ...] = Field(default=(32, 64, 64), min_length=2)
    latent: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    weight: float = Field(default=1e-4, ge=0)
    samples: int = Field(default=200_000, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = 0
    checkpoint_every: int = Field(default=20_000, ge=1)
    log_every: int = Field(default=20, ge=1)
    measured: int = Field(default=2048, ge=2)


class VaeLoss(NamedTuple):
    """The parts of the loss, each a mean over pictures, pixels and colours.

    Attributes:
        total: What is minimised.
        distance: Mean absolute difference of pictures in [-1, 1].
        divergence: KL(q || N(0, 1)) in nats per pixel and colour.
    """

    total: Float[Tensor, ""]
    distance: Float[Tensor, ""]
    divergence: Float[Tensor, ""]


def vae_network(config: VaeConfig) -> Any:
    """The network, with weights drawn by the seed.

    Raises:
        InputError: If a width is no multiple of 8.
    """
    if any(width % 8 for width in config.widths):
        raise InputError(f"widths {config.widths}; expected multiples of 8")
    levels = len(config.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(config.seed))
        return diffusers.AutoencoderKL(
            block_out_channels=config.widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=config.layers,
            latent_channels=config.latent,
            norm_num_groups=8,
            mid_block_add_attention=False,
            scaling_factor=1.0,
        )


def vae_loss(network: Any, x: Float[Tensor, "b 3 h w"], noise: NoiseSource, weight: float) -> VaeLoss:
    """The loss of a batch.

    Args:
        network: An AutoencoderKL.
        x: Pictures in [-1, 1].
        noise: One stream per picture.
        weight: Of the KL divergence.
    """
    posterior = network.encode(x).latent_dist
    z = posterior.mean + posterior.std * noise.normal(posterior.mean.shape[1:]).to(x.device)
    distance = F.l1_loss(network.decode(z).sample, x)
    divergence = posterior.kl().sum() / x.numel()
    return VaeLoss(distance + weight * divergence, distance, divergence)


def train_vae(
    data: Prepared, config: VaeConfig, folder: Path, *, device: torch.device | str = "cpu", progress: bool = True
) -> Autoencoder:
    """Trains an autoencoder in a run folder, from its last checkpoint if there is one.

    Args:
        data: Pictures, prepared with `images`; mirrored at random.
        config: What and how.
        folder: The run: `log.jsonl`, `checkpoints/` and in the end `autoencoder/`, as diffusers reads it.
        device: Where to train.
        progress: Show a progress bar on standard error.

    Returns:
        The autoencoder, from `folder/autoencoder`.

    Raises:
        InputError: If the side of the pictures does not fit, or the folder holds another run.
    """
    folder = Path(folder)
    if (folder / "autoencoder").is_dir():
        return load_autoencoder(folder / "autoencoder")
    network = vae_network(config).to(device)
    codec, side = KlCodec(network), data.manifest.recipe.size
    if side % codec.factor:
        raise InputError(f"pictures of {side} pixels; widths {config.widths} need a multiple of {codec.factor}")
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
            loss = vae_loss(network, x, noise, config.weight)
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
    _measure(data, network, codec, config)
    with directory_written_aside(folder / "autoencoder") as aside:
        network.save_pretrained(aside)
    return load_autoencoder(folder / "autoencoder")


def _items(data: Prepared, config: VaeConfig, samples: int) -> list[int]:
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


@torch.no_grad()
def _measure(data: Prepared, network: Any, codec: KlCodec, config: VaeConfig) -> None:
    """Writes mean and deviation of the latents into the configuration."""
    whole = Autoencoder("new", codec, (0.0,) * config.latent, (1.0,) * config.latent)
    count = min(config.measured, data.manifest.pictures)
    chosen = np.linspace(0, data.manifest.pictures - 1, count).round().astype(int) * data.copies
    parts = [whole.moments(data.pictures(part.tolist())) for part in np.array_split(chosen, -(-count // 64))]
    mean = torch.cat([part.mean for part in parts]).double()
    variance = torch.cat([part.std for part in parts if part.std is not None]).double().square()
    deviation = (mean.var((0, 2, 3), correction=0) + variance.mean((0, 2, 3))).sqrt()
    network.register_to_config(latents_mean=mean.mean((0, 2, 3)).tolist(), latents_std=deviation.tolist())


def _state(network: Any, optimizer: torch.optim.Optimizer, config: VaeConfig, samples: int) -> dict[str, Any]:
    moments = {name: optimizer.state[value] for name, value in network.named_parameters()}
    return {
        "network": network.state_dict(),
        "moments": moments,
        "samples": samples,
        "config": config.model_dump_json(exclude={"samples", "checkpoint_every", "log_every", "measured"}),
    }


def _save(folder: Path, samples: int, network: Any, optimizer: torch.optim.Optimizer, config: VaeConfig) -> None:
    save_checkpoint(folder / "checkpoints", samples, _state(network, optimizer, config, samples))


def _resume(folder: Path, network: Any, optimizer: torch.optim.Optimizer, config: VaeConfig) -> int:
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
    if found["config"] != wanted["config"]:
        raise InputError(f"{folder} holds a run of another configuration; choose another folder, or remove this one")
    network.load_state_dict(found["network"])
    return int(found["samples"])
