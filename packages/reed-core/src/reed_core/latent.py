"""A latent: one representation z of x_0, the likelihood that scores it, and where a denoiser is asked about it.

Heads are likelihoods (THEORY section 3, D11). `energy` is what training minimises; `energy + log_normaliser` is
-log p(z | h) in nats:
    vMF          energy = -kappa cos(h, z),            log_normaliser = -log C_d(kappa)
    Gaussian     energy = |h - z|^2 / (2 sigma^2),     log_normaliser = d/2 log(2 pi sigma^2)
    categorical  energy = -log softmax(h)[z],          log_normaliser = 0
    log C_d(kappa) = (d/2 - 1) log kappa - d/2 log 2 pi - log I_{d/2-1}(kappa)
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.reveal import RevealDensity, Uniform


@runtime_checkable
class Head(Protocol):
    """A likelihood of z given a projected hidden state."""

    def energy(self, predicted: Float[Tensor, "... d"], z: Tensor) -> Float[Tensor, "..."]:
        """The part of -log p(z | h) that depends on the prediction."""
        ...

    def log_normaliser(self, dim: int) -> float:
        """The constant of -log p(z | h), in nats."""
        ...


@dataclass(frozen=True)
class VonMisesFisher:
    """Directions on the unit sphere; the usual cosine alignment. z is normalised here.

    Attributes:
        kappa: Concentration, >= 0. It is fixed: a free kappa makes bounds incomparable (THEORY section 1).
    """

    kappa: float = 1.0

    def __post_init__(self) -> None:
        if not self.kappa >= 0:
            raise InputError(f"a concentration kappa is not negative, got {self.kappa:g}")

    def energy(self, predicted: Float[Tensor, "... d"], z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """-kappa times the cosine of prediction and z, computed in float32 or wider."""
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        unit_h, unit_z = F.normalize(predicted.to(dtype), dim=-1), F.normalize(z.to(dtype), dim=-1)
        return -self.kappa * (unit_h * unit_z).sum(-1)

    def log_normaliser(self, dim: int) -> float:
        """-log C_d(kappa); at kappa = 0 the log-area of the sphere."""
        order = dim / 2 - 1
        if self.kappa == 0:
            return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
        # The series of the Bessel function (DLMF 10.25.2); its largest term lies below kappa / 2.
        terms = torch.arange(int(2 * self.kappa) + 200, dtype=torch.float64)
        log_half = math.log(self.kappa / 2)
        log_bessel = torch.logsumexp(
            (2 * terms + order) * log_half - torch.lgamma(terms + 1) - torch.lgamma(terms + order + 1), dim=0
        ).item()
        return -(order * math.log(self.kappa) - dim / 2 * math.log(2 * math.pi) - log_bessel)


@dataclass(frozen=True)
class Gaussian:
    """Vectors with isotropic noise; mean-square alignment.

    Attributes:
        sigma: Standard deviation, > 0, fixed.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(f"a standard deviation sigma is positive, got {self.sigma:g}")

    def energy(self, predicted: Float[Tensor, "... d"], z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Squared distance over 2 sigma^2, summed over the last axis, in float32 or wider."""
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        return (predicted.to(dtype) - z.to(dtype)).square().sum(-1) / (2 * self.sigma**2)

    def log_normaliser(self, dim: int) -> float:
        """d/2 log(2 pi sigma^2)."""
        return 0.5 * dim * math.log(2 * math.pi * self.sigma**2)


@dataclass(frozen=True)
class Categorical:
    """Classes; the prediction holds logits and z class indices. An index of -1 says "unknown" and costs nothing."""

    def energy(self, predicted: Float[Tensor, "*n k"], z: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Cross-entropy in nats, in float32 or wider."""
        logits = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
        return F.cross_entropy(logits.flatten(0, -2), z.flatten(), reduction="none", ignore_index=-1).view(z.shape)

    def log_normaliser(self, dim: int) -> float:
        """0: the softmax is normalised."""
        return 0.0


@dataclass(frozen=True)
class Latent:
    """One representation and the question asked of the denoiser about it.

    Attributes:
        name: A short name; the key of its z, its loss and its projector.
        tap: Path of the module of the denoiser whose output is read, as in `named_modules` ("blocks.7").
        tap_dim: Width of that output.
        dim: Width of z (number of classes for a categorical head).
        head: The likelihood.
        level: "token" (z: [b, n, d]), "pair" (z: [b, n, k, d] on neighbours) or "global" (z: [b, d]).
        weight: lambda, the weight of this latent in the training loss.
        reveal: The reveal-time density alpha(t).
        hidden: Width of the projector's hidden layers.
        layers: Number of linear layers of the projector.
    """

    name: str
    tap: str
    tap_dim: int
    dim: int
    head: Head = field(default_factory=VonMisesFisher)
    level: Literal["token", "pair", "global"] = "token"
    weight: float = 0.5
    reveal: RevealDensity = field(default_factory=Uniform)
    hidden: int = 256
    layers: int = 3


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
