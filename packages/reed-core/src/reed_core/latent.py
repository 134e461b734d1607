"""A latent: one representation z of x_0, the likelihood that scores it, and where a denoiser is asked about it or told.

Implicit injection: the denoiser is only asked (p_u = p_c), so the reveal density alpha(t) alone matters. Explicit: the
denoiser sees z with probability A(t) (THEORY D14), through an adapter (`reed_core.inject`) or as it takes z itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Head, VonMisesFisher
from reed_core.reveal import PointMass, RevealDensity, Uniform


@dataclass(frozen=True)
class Representation:
    """The value of one latent for a batch.

    Attributes:
        z: [b, n, d], [b, n, k, d] or [b, d] (class indices without the last axis for a categorical head).
        mask: True where z is known, with the leading axes of z: [b, n], [b, n, k] or [b]. It is taken as it is, so
            padding has to be False. None: z is known wherever an element exists (for pairs: the first of the two).
    """

    z: Tensor
    mask: Bool[Tensor, "b ..."] | None = None


Representations = Mapping[str, Representation]


@dataclass(frozen=True)
class Revealed(Representation):
    """What a denoiser is told of one latent.

    Attributes:
        shown: True for the samples that see z, [b]; the others see a null token in its place. None shows all.
    """

    shown: Bool[Tensor, "b"] | None = None


@dataclass(frozen=True)
class Latent:
    """One representation and the question asked of the denoiser about it.

    Attributes:
        name: A short name; the key of its z, its loss and its projector.
        tap: Path of the module of the denoiser whose output is read, as in `named_modules` ("blocks.7"). None reads
            nothing: the head is p(z), or p(z | given), which is what a latent revealed at t = 1 needs.
        tap_dim: Width of that output; 0 without a tap.
        dim: Width of z (number of classes for a categorical head).
        head: The likelihood, or `Flow`: a generator of z.
        level: "token" (z: [b, n, d]), "pair" (z: [b, n, k, d] on neighbours) or "global" (z: [b, d]).
        weight: lambda, the weight of this latent in the training loss.
        reveal: The reveal-time density alpha(t).
        hidden: Width of the projector's hidden layers.
        layers: Number of linear layers of the projector.
        injection: "implicit" or "explicit".
        given: Names of other latents that the head sees when they are revealed: p(z | x_t, given). Each is global or
            of the same level as this one.
    """

    name: str
    tap: str | None
    tap_dim: int
    dim: int
    head: Head | Flow = field(default_factory=VonMisesFisher)
    level: Literal["token", "pair", "global"] = "token"
    weight: float = 0.5
    reveal: RevealDensity = field(default_factory=Uniform)
    hidden: int = 256
    layers: int = 3
    injection: Literal["implicit", "explicit"] = "implicit"
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.injection not in ("implicit", "explicit") or self.level not in ("token", "pair", "global"):
            raise InputError(
                f"latent '{self.name}': injection '{self.injection}', level '{self.level}'; expected implicit or "
                "explicit, and token, pair or global"
            )
        if self.tap is None and not (isinstance(self.reveal, PointMass) and self.reveal.at == 1.0):
            raise InputError(
                f"latent '{self.name}' reads no tap, so its head does not depend on x_t; reveal it at t = 1 "
                "(PointMass(1.0)), where that is exact, or give a tap"
            )


def pool_tokens(hidden: Float[Tensor, "b *n d"], mask: Shaped[Tensor, "b *n"] | None) -> Float[Tensor, "b d"]:
    """The mean hidden state over each sample's own elements: padding never enters.

    Args:
        hidden: [b, n, d] or [b, n, k, d].
        mask: True where an element exists; None counts all.
    """
    flat = hidden.flatten(1, -2)
    if mask is None:
        return flat.mean(1)
    kept = mask.flatten(1).to(flat.dtype)
    return torch.einsum("bnd,bn->bd", torch.where(mask.flatten(1)[..., None].bool(), flat, 0.0), kept) / kept.sum(
        1, keepdim=True
    ).clamp(min=1)
