"""An autoencoder that owns its normalisation: latents go out scaled and come back scaled, and the scale is recorded.

    z = (raw - shift) * scale        raw = z / scale + shift        per channel

With diffusers' constants: scale = scaling_factor and shift = shift_factor (SD: 0.18215 and 0; FLUX: 0.3611 and 0.1159;
TAESD: 1 and 0), or scale = scaling_factor / latents_std and shift = latents_mean where a model has statistics for each
channel. A deviation is scaled, and not shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.representation import fingerprint_module
from torch import Tensor, nn

from reed_image.autoencoder.codec import Codec, Moments


class AutoencoderSpec(BaseModel):
    """What latents were made with; kept beside them, and needed to decode.

    Attributes:
        name: As `load_autoencoder` takes it.
        kind: The class of the adapter, such as "KlCodec".
        channels: Channels of the latents.
        factor: Side of a picture over side of its latents.
        stochastic: Whether the encoder gives a deviation.
        shift: Per channel, of the unscaled latents.
        scale: Per channel.
        weights: Hash of the weights; "" where the latents were made elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    channels: int
    factor: int
    stochastic: bool
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    weights: str

    def side(self, size: int) -> int:
        """The side of the latents of pictures of `size` pixels.

        Raises:
            InputError: If `size` is no multiple of the factor.
        """
        if size < self.factor or size % self.factor:
            raise InputError(f"pictures of {size} pixels; {self.name} needs a multiple of {self.factor}")
        return size // self.factor


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder and its normalisation.

    Attributes:
        name: As `load_autoencoder` takes it.
        codec: The network; a torch module.
        shift: Per channel, of the unscaled latents.
        scale: Per channel.
        batch: Pictures encoded or decoded at once.
    """

    name: str
    codec: Codec
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    batch: int = 16

    def __post_init__(self) -> None:
        if not len(self.shift) == len(self.scale) == self.codec.channels or not all(self.scale):
            raise InputError(
                f"{self.name} has {self.codec.channels} channels, {len(self.shift)} shifts and {len(self.scale)} "
                "scales; expected one of each per channel, no scale of 0"
            )
        self._module.eval().requires_grad_(False)

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self.codec, nn.Module)
        return self.codec

    @property
    def spec(self) -> AutoencoderSpec:
        """What to keep beside its latents; hashes the weights."""
        return AutoencoderSpec(
            name=self.name,
            kind=type(self.codec).__name__,
            channels=self.codec.channels,
            factor=self.codec.factor,
            stochastic=self.codec.stochastic,
            shift=self.shift,
            scale=self.scale,
            weights=fingerprint_module(self._module),
        )

    def to(self, device: torch.device | str) -> "Autoencoder":
        """Moves the network; returns this object."""
        self._module.to(device)
        return self

    @torch.no_grad()
    def moments(self, images: Float[Tensor, "b 3 H W"]) -> Moments:
        """Mean and deviation of the normalised latents.

        Args:
            images: In [0, 1], on any device.

        Returns:
            Float32, on the device of `images`.

        Raises:
            InputError: If the side is no multiple of the factor.
        """
        if images.shape[2] % self.codec.factor or images.shape[3] % self.codec.factor:
            raise InputError(
                f"pictures of {images.shape[3]} x {images.shape[2]} pixels; {self.name} needs multiples of "
                f"{self.codec.factor}"
            )
        parts = [self.codec.encode(self._enter(part) * 2 - 1) for part in images.split(self.batch)]
        means = torch.cat([part.mean.float() for part in parts]).to(images.device)
        deviations = [part.std.float() for part in parts if part.std is not None]
        scale, shift = self._constants(images.device)
        std = torch.cat(deviations).to(images.device) * scale.abs() if deviations else None
        return Moments((means - shift) * scale, std)

    def encode(self, images: Float[Tensor, "b 3 H W"], noise: NoiseSource | None = None) -> Float[Tensor, "b c h w"]:
        """Normalised latents: the mean, or with `noise` a draw.

        Args:
            images: In [0, 1].
            noise: One stream per picture.
        """
        return draw(self.moments(images), noise)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures in [0, 1] (clamped), float32, on the device of `latents`."""
        scale, shift = self._constants(latents.device)
        raw = latents.float() / scale + shift
        parts = [self.codec.decode(self._enter(part)).float() for part in raw.split(self.batch)]
        return ((torch.cat(parts).to(latents.device) + 1) / 2).clamp(0, 1)

    def fitted(self, mean: Sequence[float], std: Sequence[float]) -> "Autoencoder":
        """The same network, normalised so that latents of this mean and deviation get mean 0 and deviation 1.

        Args:
            mean: Per channel, of this object's normalised latents.
            std: Per channel, likewise.

        Raises:
            InputError: If a channel does not vary.
        """
        if not all(value > 0 for value in std):
            raise InputError(f"a channel of the latents of {self.name} does not vary; give other pictures")
        pairs = list(zip(self.shift, self.scale, mean, std, strict=True))
        shift = tuple(old + centre / scale for old, scale, centre, _ in pairs)
        return Autoencoder(
            self.name, self.codec, shift, tuple(scale / width for _, scale, _, width in pairs), self.batch
        )

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Scale and shift, [c, 1, 1] each."""
        scale, shift = torch.tensor((self.scale, self.shift), device=device)[..., None, None]
        return scale, shift

    def _enter(self, value: Tensor) -> Tensor:
        """A tensor as the network wants it: its device and its type."""
        like = next(self._module.parameters(), value)
        return value.to(like.device, like.dtype)


def draw(moments: Moments, noise: NoiseSource | None) -> Float[Tensor, "b c h w"]:
    """Latents of their Gaussian: the mean without noise, or where there is no deviation.

    Args:
        moments: Mean and deviation.
        noise: One stream per picture.
    """
    if noise is None or moments.std is None:
        return moments.mean
    return moments.mean + moments.std * noise.normal(moments.mean.shape[1:]).to(moments.mean.device)
