"""Thin adapters: each autoencoder of diffusers as encode (to a mean and, for some, a deviation) and decode.

Pictures are in [-1, 1] on both sides, latents as the network makes them: nothing is scaled here
(`reed_image.autoencoder.model` does that, once for all of them).
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


class Moments(NamedTuple):
    """The Gaussian an encoder puts on the latents of each picture.

    Attributes:
        mean: [b, c, h, w].
        std: [b, c, h, w], or None where the encoder is deterministic.
    """

    mean: Float[Tensor, "b c h w"]
    std: Float[Tensor, "b c h w"] | None


@runtime_checkable
class Codec(Protocol):
    """An autoencoder, unscaled. A torch module too, but for its type.

    Attributes:
        channels: Channels of the latents.
        factor: Side of a picture over side of its latents.
        stochastic: Whether `encode` gives a deviation.
    """

    channels: int
    factor: int
    stochastic: bool

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """Latents of pictures in [-1, 1]."""
        ...

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures, about in [-1, 1]."""
        ...


class KlCodec(nn.Module):
    """`diffusers.AutoencoderKL`: SD, SDXL (4 channels), SD3, FLUX (16 channels)."""

    channels: int
    factor: int
    stochastic = True

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.channels = int(module.config.latent_channels)
        self.factor = 2 ** (len(module.config.block_out_channels) - 1)

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """Mean and deviation of the posterior."""
        found = self.module.encode(x).latent_dist
        return Moments(found.mean, found.std)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures."""
        return self.module.decode(z).sample


class DcCodec(nn.Module):
    """`diffusers.AutoencoderDC`: deterministic, 32 or 64 times smaller."""

    channels: int
    factor: int
    stochastic = False

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.channels = int(module.config.latent_channels)
        self.factor = int(module.spatial_compression_ratio)

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """The latents."""
        return Moments(self.module.encode(x).latent, None)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures."""
        return self.module.decode(z).sample


class TinyCodec(nn.Module):
    """`diffusers.AutoencoderTiny`: TAESD and its kin; deterministic."""

    channels: int
    factor: int
    stochastic = False

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.channels = int(module.config.latent_channels)
        self.factor = 2 ** (len(module.config.num_encoder_blocks) - 1)

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """The latents."""
        return Moments(self.module.encode(x).latents, None)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures; they may leave [-1, 1]."""
        return self.module.decode(z).sample


class PixelCodec(nn.Module):
    """No autoencoder: the latents are the pixels."""

    channels, factor, stochastic = 3, 1, False

    def encode(self, x: Float[Tensor, "b 3 H W"]) -> Moments:
        """The pixels themselves."""
        return Moments(x, None)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """The pixels themselves."""
        return z
