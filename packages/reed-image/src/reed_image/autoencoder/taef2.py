"""TAEF2, the tiny autoencoder of FLUX.2's latents: 32 channels, 8 times smaller, deterministic.

It is diffusers' `AutoencoderTiny` but for the three residual blocks of the lowest resolution, in encoder and decoder,
before each of which stands a wide pointwise branch:

    x <- x + W2 relu(norm(W1 x))        W1: 64 -> 256 channels, norm: 4 groups, W2: 256 -> 64
    x <- block(x)

Its checkpoints number the layers of both halves; the decoder's begin at 1, after the clamp 3 tanh(x / 3).
"""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from reed_core.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reed_image.autoencoder.codec import TinyCodec
from reed_image.autoencoder.model import Autoencoder

ENCODER_FILE, DECODER_FILE = "taef2_encoder.safetensors", "taef2_decoder.safetensors"
CHANNELS = 32
_WIDE_IN_ENCODER, _WIDE_IN_DECODER = range(11, 14), range(2, 5)


class WidenedBlock(nn.Module):
    """A residual block behind a wide pointwise branch.

    Args:
        block: The block.
        width: Its channels.
    """

    def __init__(self, block: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.pool = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.GroupNorm(4, 4 * width),
            nn.ReLU(),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )
        self.block = block

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Branch, then block."""
        return self.block(x + self.pool(x))


def taef2_network() -> Any:
    """The network, with random weights."""
    network: Any = AutoencoderTiny(latent_channels=CHANNELS)
    for layers, wide in ((network.encoder.layers, _WIDE_IN_ENCODER), (network.decoder.layers, _WIDE_IN_DECODER)):
        for place in wide:
            layers[place] = WidenedBlock(layers[place])
    return network


def load_taef2(folder: Path) -> Autoencoder:
    """Reads TAEF2's weights.

    Args:
        folder: Where `taef2_encoder.safetensors` and `taef2_decoder.safetensors` lie.

    Raises:
        InputError: If a file is missing or something else.
    """
    network = taef2_network()
    state: dict[str, Tensor] = {}
    for file, half, first, wide in (
        (ENCODER_FILE, "encoder", 0, _WIDE_IN_ENCODER),
        (DECODER_FILE, "decoder", 1, _WIDE_IN_DECODER),
    ):
        path = Path(folder) / file
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}); expected weights of TAEF2") from error
        for key, value in found.items():
            state[f"{half}.layers.{_key(key, first, wide)}"] = value.to(torch.float32)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{folder} does not hold the weights of TAEF2 ({reason}); copy them again") from error
    return Autoencoder(str(folder), TinyCodec(network), (0.0,) * CHANNELS, (1.0,) * CHANNELS)


def _key(key: str, first: int, wide: range) -> str:
    """Their name of a weight, as one of diffusers' layers and ours."""
    number, _, rest = key.partition(".")
    place = int(number) - first if re.fullmatch(r"\d+", number) else -1
    inner = "block." if place in wide and rest.startswith(("conv.", "skip.")) else ""
    return f"{place}.{inner}{rest}"
