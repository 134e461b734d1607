"""A frozen encoder's own patch tokens as latents, and a decoder that was trained for them (RAE, arXiv 2510.11690).

    encode(x) = the encoder's tokens [n, d] as a map [d, grid, grid]      frozen; normalised per channel, as all latents
    decode(z) = a small transformer on that map, each token to the pixels of its patch
The folder holds the decoder and what the encoder was; the encoder itself is loaded when something is encoded, and has
to be the one whose fingerprint is in the folder. Drawing needs the decoder alone.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from reed_core.errors import InputError
from reed_core.hub import CONFIG, from_pretrained
from torch import Tensor, nn

from reed_image.autoencoder.codec import Moments
from reed_image.autoencoder.model import Autoencoder
from reed_image.network.attention import SelfAttention
from reed_image.network.block import Mlp
from reed_image.network.embedding import place_table


class EncoderSpec(BaseModel):
    """A frozen encoder of timm.

    Attributes:
        model: Its name, as `timm.list_models()` has it.
        weights: "pretrained", "random" (by the seed), or a safetensors file; as given, or below REED_DATA.
        at: Which block or stage is read; negative ones from the end.
        seed: Of random weights.
        settings: Further arguments of `timm.create_model`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    weights: str = "pretrained"
    at: int = -1
    seed: int = 0
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class RaeSpec(BaseModel):
    """Everything that an autoencoder of this kind is beside its weights.

    Attributes:
        kind: Only this one.
        encoder: The encoder.
        size: Side of the pictures, in pixels.
        grid: Tokens along a side.
        channels: Width of a token.
        width: Width of the decoder.
        depth: Its blocks.
        heads: Its attention heads.
        shift: Per channel, of the tokens as the encoder makes them.
        scale: Per channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["rae"] = "rae"
    encoder: EncoderSpec
    size: int = Field(ge=1)
    grid: int = Field(ge=1)
    channels: int = Field(ge=1)
    width: int = Field(256, ge=4)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @model_validator(mode="after")
    def _divisible(self) -> "RaeSpec":
        if self.size % self.grid or self.width % self.heads or self.width % 4:
            raise ValueError(
                f"grid {self.grid} must divide the side {self.size} of pictures, heads {self.heads} and 4 the width "
                f"{self.width}"
            )
        return self


class RaeCodec(nn.Module):
    """The encoder and its decoder.

    Args:
        config: What it is.

    Attributes:
        identity: The hash of the encoder, [32] bytes.
    """

    Config = RaeSpec
    stochastic = False
    identity: Tensor

    def __init__(self, config: RaeSpec) -> None:
        super().__init__()
        self.config = config
        self.channels, self.factor = config.channels, config.size // config.grid
        self.register_buffer("identity", torch.zeros(32, dtype=torch.uint8))
        self.decoder = RaeDecoder(config)
        self._loaded: list[Any] = []  # in a list: the encoder is no part of what is saved or hashed

    @property
    def encoder(self) -> Any:
        """The encoder; loaded at the first use.

        Raises:
            InputError: If it cannot be had, or is another one.
        """
        if not self._loaded:
            self.use(load_encoder(self.config.encoder, self.config.grid))
        return self._loaded[0]

    def use(self, encoder: Any, new: bool = False) -> None:
        """Takes an encoder.

        Args:
            encoder: A `VisionEncoder`.
            new: The decoder is being made for it; else it has to be the one that it was made for.

        Raises:
            InputError: If it is another one.
        """
        found = torch.frombuffer(bytearray(hashlib.sha256(encoder.fingerprint.encode()).digest()), dtype=torch.uint8)
        if new:
            self.identity.copy_(found)
        elif not torch.equal(found, self.identity.cpu()):
            raise InputError(f"{self.config.encoder.model} is not the encoder the decoder was made for; find that one")
        self._loaded = [encoder]

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """The tokens of pictures in [-1, 1], as a map.

        Raises:
            InputError: If the side of the pictures is another.
        """
        size, grid = self.config.size, self.config.grid
        if tuple(x.shape[2:]) != (size, size):
            raise InputError(f"pictures of {x.shape[3]} x {x.shape[2]} pixels; this autoencoder takes {size} x {size}")
        tokens = self.encoder.to(x.device)((x.float() + 1) / 2).z
        return Moments(tokens.transpose(1, 2).unflatten(2, (grid, grid)).to(x), None)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures of maps as `encode` makes them."""
        return self.decoder(z)


class RaeDecoder(nn.Module):
    """A transformer from tokens to the pixels of their patches.

    Args:
        config: Sizes, and the normalisation of its input.
    """

    shift: Tensor
    scale: Tensor
    places: Tensor

    def __init__(self, config: RaeSpec) -> None:
        super().__init__()
        self.grid, self.patch = config.grid, config.size // config.grid
        for name, values in (("shift", config.shift), ("scale", config.scale)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.register_buffer("places", place_table(config.width, config.grid), persistent=False)
        self.enter = nn.Linear(config.channels, config.width)
        self.blocks = nn.ModuleList(RaeBlock(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, 3 * self.patch**2)

    def forward(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures, about in [-1, 1], of tokens as the encoder makes them."""
        x = self.enter(((z - self.shift) * self.scale).flatten(2).transpose(1, 2)) + self.places.to(z)
        for block in self.blocks:
            x = block(x)
        pixels = self.leave(self.norm(x)).unflatten(2, (3, self.patch, self.patch))
        rows = pixels.unflatten(1, (self.grid, self.grid))  # b i j c p q
        return rows.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class RaeBlock(nn.Module):
    """Attention among patches, and an MLP.

    Args:
        width: Width of states.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = SelfAttention(width, heads, qk_norm=False), Mlp(width, 4 * width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Applies the block."""
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


def load_encoder(spec: EncoderSpec, grid: int) -> Any:
    """The frozen encoder, on the CPU.

    Raises:
        InputError: If it cannot be had, or does not meet the grid.
    """
    from reed_image.encoders.timm_model import timm_encoder
    from reed_image.latents.spec import data_path

    weights: Any = spec.weights if spec.weights in ("pretrained", "random") else data_path(spec.weights)
    form: dict[str, Any] = {**spec.settings, "at": spec.at, "seed": spec.seed}
    return timm_encoder(spec.model, grid=grid, weights=weights, **form)


def is_rae(folder: Path) -> bool:
    """Whether a folder holds an autoencoder of this kind."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return bool(content["model"]["kind"] == "rae")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_rae(folder: Path | str) -> Autoencoder:
    """An autoencoder that `train-vae` wrote; its encoder is not loaded yet.

    Raises:
        InputError: If the folder is damaged.
    """
    codec = from_pretrained(RaeCodec, Path(folder))
    return Autoencoder(os.fspath(folder), codec, codec.config.shift, codec.config.scale)
