"""Training the decoder of a frozen encoder's tokens (RAE, arXiv 2510.11690): the encoder stays as it is.

    loss = mean |x' - x|,   x' = decode(z + s n),   z = normalised tokens of x,   n ~ N(0, I),   s = |N(0, noise^2)|
The noise readies the decoder for tokens that are not quite an encoder's, as a diffusion model draws them. The paper's
perceptual and adversarial losses are not part of it, so pictures are softer than the paper's.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from reed_core.errors import InputError
from reed_core.files import directory_written_aside
from reed_core.hub import save_pretrained
from reed_core.noise import NoiseSource, mix_seed
from torch import Tensor
from torch.nn import functional as F

from reed_image.autoencoder.fit import FitConfig, fit
from reed_image.autoencoder.model import Autoencoder
from reed_image.autoencoder.rae import EncoderSpec, RaeCodec, RaeSpec, load_encoder, load_rae
from reed_image.data.prepared import Prepared

BATCH = 64


class RaeConfig(FitConfig):
    """A decoder and how it is trained.

    Attributes:
        encoder: The frozen encoder.
        factor: Side of a picture over that of its grid of tokens.
        width: Width of the decoder.
        depth: Its blocks.
        heads: Its attention heads.
        noise: Deviation of the scale of the noise on normalised tokens; 0 adds none.
    """

    encoder: EncoderSpec
    factor: int = Field(default=16, ge=1)
    width: int = Field(default=256, ge=4)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    noise: float = Field(default=0.8, ge=0)


class RaeLoss(NamedTuple):
    """The loss, under both names that the log has.

    Attributes:
        total: What is differentiated.
        distance: Mean absolute difference of pixels in [-1, 1].
    """

    total: Float[Tensor, ""]
    distance: Float[Tensor, ""]


def train_rae(
    data: Prepared, config: RaeConfig, folder: Path, *, device: torch.device | str = "cpu", progress: bool = True
) -> Autoencoder:
    """Trains a decoder in a run folder, from its last checkpoint if there is one.

    Args:
        data: Pictures, prepared with `images`; mirrored at random.
        config: What and how.
        folder: The run: `log.jsonl`, `checkpoints/` and in the end `autoencoder/`.
        device: Where to train.
        progress: Show a progress bar on standard error.

    Returns:
        The autoencoder, from `folder/autoencoder`.

    Raises:
        InputError: If the encoder cannot be had, sizes do not fit, or the folder holds another run.
    """
    folder = Path(folder)
    if (folder / "autoencoder").is_dir():
        return load_rae(folder / "autoencoder")
    codec = rae_codec(data, config, device)
    scale, shift = torch.tensor((codec.config.scale, codec.config.shift), device=device)[..., None, None]

    def loss_of(x: Tensor, noise: NoiseSource) -> RaeLoss:
        with torch.no_grad():
            z = (codec.encode(x).mean - shift) * scale
        spread = config.noise * noise.normal(()).abs()[:, None, None, None]
        led = z + (spread * noise.normal(z.shape[1:])).to(z)
        distance = F.l1_loss(codec.decode(led / scale + shift), x)
        return RaeLoss(distance, distance)

    fit(codec.decoder, loss_of, data, config, folder, device=device, progress=progress)
    with directory_written_aside(folder / "autoencoder") as aside:
        save_pretrained(codec, aside)
    return load_rae(folder / "autoencoder")


def rae_codec(data: Prepared, config: RaeConfig, device: torch.device | str = "cpu") -> RaeCodec:
    """The encoder with a decoder whose weights are drawn by the seed, normalised by pictures of the data.

    Raises:
        InputError: If the encoder cannot be had, or sizes do not fit.
    """
    size = data.manifest.recipe.size
    if size % config.factor:
        raise InputError(f"pictures of {size} pixels; a factor of {config.factor} needs a multiple of it")
    grid = size // config.factor
    encoder = load_encoder(config.encoder, grid).to(device)
    count = min(config.measured, data.manifest.pictures)
    chosen = np.linspace(0, data.manifest.pictures - 1, count).round().astype(int) * data.copies
    total, square, rows = torch.zeros(encoder.dim).double(), torch.zeros(encoder.dim).double(), 0
    for part in np.array_split(chosen, -(-count // BATCH)):
        tokens = encoder(data.pictures(part.tolist())).z.flatten(0, 1).double().cpu()
        total, square, rows = total + tokens.sum(0), square + tokens.square().sum(0), rows + len(tokens)
    mean = total / rows
    deviation = (square / rows - mean.square()).clamp(min=0).sqrt()
    constant = deviation < 1e-6 * deviation.max()  # a channel that never varies stays as it is
    scale = torch.where(constant, 1.0, 1.0 / deviation.clamp(min=torch.finfo(torch.float64).tiny))
    sizes: dict[str, Any] = {name: getattr(config, name) for name in ("width", "depth", "heads")}
    form = {"size": size, "grid": grid, "channels": encoder.dim, "shift": mean.tolist(), "scale": scale.tolist()}
    try:
        spec = RaeSpec.model_validate({"encoder": config.encoder.model_dump(), **form, **sizes})
    except ValidationError as error:
        raise InputError("; ".join(item["msg"] for item in error.errors())) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(config.seed))
        codec = RaeCodec(spec)
    codec.use(encoder, new=True)
    return codec.to(device)
