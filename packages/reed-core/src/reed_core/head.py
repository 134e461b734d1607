"""Heads are likelihoods p(z | h) of a representation z given what a denoiser says of it (THEORY section 3, D11).

`energy` is what training minimises; `energy + log_normaliser` is -log p(z | h) in nats:
    vMF          energy = -kappa cos(h, z),            log_normaliser = -log C_d(kappa)
    Gaussian     energy = |h - z|^2 / (2 sigma^2),     log_normaliser = d/2 log(2 pi sigma^2)
    categorical  energy = -log softmax(h)[z],          log_normaliser = 0
    log C_d(kappa) = (d/2 - 1) log kappa - d/2 log 2 pi - log I_{d/2-1}(kappa)
`sample` draws z, as reveal-ancestral sampling asks (THEORY D13), and `mode` is the most likely z. For a z whose
distribution none of these families holds there is a small generator, `reed_core.generator.Flow`.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.noise import NoiseSource

_ANGLES = 8193
_TAIL = 40.0  # nats below the mode at which a density is cut: e^-40


@runtime_checkable
class Head(Protocol):
    """A likelihood of z given a projected hidden state."""

    def energy(self, predicted: Float[Tensor, "... d"], z: Tensor) -> Float[Tensor, "..."]:
        """The part of -log p(z | h) that depends on the prediction."""
        ...

    def log_normaliser(self, dim: int) -> float:
        """The constant of -log p(z | h), in nats."""
        ...

    def sample(self, predicted: Float[Tensor, "b ..."], noise: NoiseSource) -> Tensor:
        """A draw of z for each prediction."""
        ...

    def mode(self, predicted: Float[Tensor, "... d"]) -> Tensor:
        """The most likely z of each prediction."""
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

    def sample(self, predicted: Float[Tensor, "b *n d"], noise: NoiseSource) -> Float[Tensor, "b *n d"]:
        """Directions: the angle to the mean by inverting its distribution function, then a random tangent."""
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        mean = F.normalize(predicted.to(dtype), dim=-1)
        cosine = self._cosine(noise.uniform(mean.shape[1:-1]), mean.shape[-1]).to(mean)[..., None]
        tangent = noise.normal(mean.shape[1:]).to(mean)
        tangent = F.normalize(tangent - (tangent * mean).sum(-1, keepdim=True) * mean, dim=-1)
        return cosine * mean + (1.0 - cosine.square()).clamp(min=0.0).sqrt() * tangent

    def mode(self, predicted: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The mean direction, of length 1."""
        return F.normalize(predicted.to(torch.promote_types(predicted.dtype, torch.float32)), dim=-1)

    def _cosine(self, u: Float[Tensor, "*b"], dim: int) -> Float[Tensor, "*b"]:
        """Cosines at the quantiles u. The angle has the density exp(kappa cos) sin^(dim-2), on a grid of its bulk."""
        if dim == 1:
            return torch.where(u < 1.0 / (1.0 + math.exp(-2.0 * self.kappa)), 1.0, -1.0).double()

        def log_density(angle: Tensor) -> Tensor:
            return self.kappa * angle.cos() + (dim - 2) * angle.sin().clamp(min=1e-300).log()

        angle = torch.linspace(0.0, math.pi, _ANGLES, dtype=torch.float64)
        height = log_density(angle)
        bulk = (height > height.max() - _TAIL).nonzero()
        low, high = max(int(bulk[0]) - 1, 0), min(int(bulk[-1]) + 1, _ANGLES - 1)
        angle = torch.linspace(angle[low].item(), angle[high].item(), _ANGLES, dtype=torch.float64)
        height = log_density(angle)
        steps = torch.cumulative_trapezoid((height - height.max()).exp(), angle)
        mass = F.pad(steps / steps[-1], (1, 0))
        above = torch.searchsorted(mass, u.double().contiguous()).clamp(1, _ANGLES - 1)
        left, right = mass[above - 1], mass[above]
        share = ((u - left) / (right - left).clamp(min=1e-300)).clamp(0.0, 1.0)
        return (angle[above - 1] + share * (angle[above] - angle[above - 1])).cos()


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

    def sample(self, predicted: Float[Tensor, "b *n d"], noise: NoiseSource) -> Float[Tensor, "b *n d"]:
        """The prediction plus sigma times normal noise."""
        return predicted + self.sigma * noise.normal(predicted.shape[1:]).to(predicted)

    def mode(self, predicted: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The prediction itself."""
        return predicted


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

    def sample(self, predicted: Float[Tensor, "b *n k"], noise: NoiseSource) -> Int[Tensor, "b *n"]:
        """Class indices."""
        return (predicted.float() + noise.gumbel(predicted.shape[1:]).to(predicted.device)).argmax(-1)

    def mode(self, predicted: Float[Tensor, "*n k"]) -> Int[Tensor, "*n"]:
        """The class of the largest logit."""
        return predicted.argmax(-1)
