"""Training a small autoencoder of one's own: diffusers' AutoencoderKL, so that anything that reads diffusers reads it.

    loss = mean |x' - x| + weight * KL(q(z | x) || N(0, 1)) / (pixels x colours)        x' = decode(z), z ~ q(z | x)

At the end latents are normalised to mean 0 and deviation 1 per channel (`latents_mean`, `latents_std` of the
configuration), by the pictures of the first epoch's first batches.
"""

from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from reed_core.errors import InputError
from reed_core.files import directory_written_aside
from reed_core.noise import NoiseSource, mix_seed
from torch import Tensor
from torch.nn import functional as F

from reed_image.autoencoder.codec import KlCodec
from reed_image.autoencoder.fit import FitConfig, fit
from reed_image.autoencoder.load import load_autoencoder
from reed_image.autoencoder.model import Autoencoder
from reed_image.data.prepared import Prepared


class VaeConfig(FitConfig):
    """A small autoencoder and how it is trained.

    Attributes:
        widths: Channels at each resolution; each after the first halves the side.
        latent: Channels of the latents.
        layers: Residual blocks at each resolution.
        weight: Of the KL divergence.
    """

    widths: tuple[int, ...] = Field(default=(32, 64, 64), min_length=2)
    latent: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    weight: float = Field(default=1e-4, ge=0)


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

    def loss_of(x: Tensor, noise: NoiseSource) -> VaeLoss:
        return vae_loss(network, x, noise, config.weight)

    fit(network, loss_of, data, config, folder, device=device, progress=progress)
    _measure(data, network, codec, config)
    with directory_written_aside(folder / "autoencoder") as aside:
        network.save_pretrained(aside)
    return load_autoencoder(folder / "autoencoder")


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
