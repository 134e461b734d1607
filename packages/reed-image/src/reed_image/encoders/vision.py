"""A vision network as an encoder: pictures in [0, 1] in, tokens on a wanted grid (or one vector) out.

The grid is met by the size of the input, never by resampling what comes out: a network of patch p (or of stride p at
the stage that is read) gets pictures of p * grid pixels. Resizing is bicubic, with antialiasing, clamped to [0, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import fingerprint_module
from reed_core.representation.identity import named
from torch import Tensor, nn
from torch.nn import functional as F

Level = Literal["token", "global"]
Reading = Callable[[Tensor], Tensor]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VisionEncoder:
    """A frozen network, how its input is made, and how its output is read.

    The module is given over: it is frozen and set to evaluation mode.

    Args:
        name: A short name.
        module: The network; its weights are the fingerprint.
        read: Makes z, [b, n, d] or [b, d], of pictures that are resized and normalised.
        size: Side of the input, in pixels.
        level: "token" (rows of the grid from top to bottom, each from left to right) or "global".
        mean: Of each colour, as the network was trained.
        std: Likewise.
        version: What else the values depend on: what is read, and how.

    Raises:
        InputError: If the network cannot read pictures of this size.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        read: Reading,
        size: int,
        level: Level,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        version: str = "",
    ) -> None:
        self.name, self.level, self.size, self.version = name, level, size, version
        self.module, self.read = module.eval().requires_grad_(False), read
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        try:
            shape = self._read(torch.zeros(1, 3, size, size)).shape
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{name} cannot read pictures of {size} pixels ({reason}); choose another grid") from error
        if len(shape) != (3 if level == "token" else 2):
            raise InputError(f"{name} puts out {list(shape)}, which is no {level} representation; choose another level")
        self.tokens, self.dim = int(shape[1]) if level == "token" else 1, int(shape[-1])

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, and the preprocessing."""
        parts = {"size": str(self.size), "level": self.level, "mean": str(self.mean), "std": str(self.std)}
        return named({"weights": fingerprint_module(self.module), **parts, "version": f"vision-1,{self.version}"})

    def to(self, device: torch.device | str) -> "VisionEncoder":
        """Moves the network; returns this object."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, x_0: Float[Tensor, "b 3 H W"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Encodes a batch of pictures in [0, 1]."""
        return Representation(self._read(x_0))

    @torch.no_grad()
    def _read(self, images: Tensor) -> Tensor:
        like = next(self.module.parameters(), images)
        mean, std = (torch.tensor(value, device=like.device)[:, None, None] for value in (self.mean, self.std))
        x = (resized(images.to(like.device, torch.float32), self.size) - mean) / std
        return self.read(x.to(like.dtype)).float()


def resized(images: Float[Tensor, "b c H W"], size: int) -> Float[Tensor, "b c s s"]:
    """Square pictures of another side, in [0, 1]; unchanged if they have it."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def map_to_tokens(maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h*w d"]:
    """A feature map as tokens, row by row."""
    return maps.flatten(2).transpose(1, 2)
