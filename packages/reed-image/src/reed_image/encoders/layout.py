"""A second modality that needs no weights: where edges run and which colours there are, as one vector.

    edges    gradients of the luminance (central differences) of the picture at 64 pixels, in 4 x 4 cells; in each, a
             histogram of 8 orientations (mod pi) weighted by strength, each vote shared by the two nearest
    colours  a histogram of 4 x 4 x 4 bins of RGB over the picture

Both are brought to sum 1 and their square root is taken (Hellinger), so that the cosine of two is one minus half their
squared Hellinger distance; a picture without an edge has zeros there.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from reed_core.latent import Representation
from torch import Tensor
from torch.nn import functional as F

from reed_image.encoders.vision import resized

SIDE, CELLS, ORIENTATIONS, LEVELS = 64, 4, 8, 4
_LUMINANCE = (0.299, 0.587, 0.114)
_FAINT = 1e-3  # gradients below this are the rounding of a flat picture


class Layout:
    """Edges and colours of a picture, [b, 192]."""

    name = "layout"
    level: Literal["global"] = "global"
    dim = CELLS**2 * ORIENTATIONS + LEVELS**3
    fingerprint = f"layout-1,{SIDE},{CELLS},{ORIENTATIONS},{LEVELS}"

    @torch.no_grad()
    def __call__(
        self, x_0: Float[Tensor, "b 3 H W"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Encodes a batch of pictures in [0, 1]."""
        images = resized(x_0.float(), SIDE)
        return Representation(torch.cat([_root(edges(images)), _root(colours(images))], 1))


def edges(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
    """Strength of the edges by cell and orientation."""
    grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(_LUMINANCE))
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = torch.hypot(across, down)
    strength = torch.where(strength > _FAINT, strength, 0.0)
    place = torch.atan2(down, across).remainder(math.pi) / math.pi * ORIENTATIONS
    lower = place.floor()
    share = place - lower
    first = lower.long() % ORIENTATIONS
    votes = images.new_zeros(len(images), ORIENTATIONS, *grey.shape[1:])
    votes.scatter_add_(1, first[:, None], ((1 - share) * strength)[:, None])
    votes.scatter_add_(1, ((first + 1) % ORIENTATIONS)[:, None], (share * strength)[:, None])
    return F.avg_pool2d(votes, images.shape[-1] // CELLS).flatten(1)


def colours(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
    """How many pixels have each of 64 colours."""
    level = (images * LEVELS).long().clamp(0, LEVELS - 1)
    number = (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
    counts = images.new_zeros(len(images), LEVELS**3)
    return counts.scatter_add_(1, number.flatten(1), torch.ones_like(number.flatten(1), dtype=counts.dtype))


def _root(histogram: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    total = histogram.sum(1, keepdim=True)
    return (histogram / total.clamp(min=1e-12)).sqrt()
