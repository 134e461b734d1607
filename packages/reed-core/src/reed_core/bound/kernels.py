"""Reverse-kernel families p(x_{t-1} | x_t, ...): what the bound asks of a distribution, for Gaussian and categorical.

The hybrid of an unconditional p_u and a conditional p_c (THEORY section 1, Prop. 1) is p~ = p_u^{1-A} p_c^A / Z.
For Gaussians, with delta = mu_c - mu_u and M = A S_u + (1-A) S_c (the weights are swapped: A goes with S_u),

    p~ = N(mu_u + A S_u M^-1 delta,  S_u M^-1 S_c)
    -log Z = A(1-A)/2 delta' M^-1 delta + 1/2 (log|M| - A log|S_u| - (1-A) log|S_c|)

which needs no inverse covariance and vanishes exactly where it should. Equal variances give -log Z =
A(1-A)|delta|^2 / (2 sigma^2) (THEORY D5). For categoricals everything is a sum over k states.
B = -log int sqrt(p_u p_c), the Bhattacharyya distance, is -log Z at A = 1/2.

Batch axes of a kernel's fields broadcast. A is a number, or a tensor aligned with the first batch axes.
"""

import math
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reed_core.bound.hybrid import leading, power

Weight = Float[Tensor, "..."] | float


@runtime_checkable
class Kernel(Protocol):
    """A family of distributions closed under hybridisation. `other` is always of the same family."""

    def log_prob(self, x: Any) -> Float[Tensor, "..."]:
        """Log-density or log-probability of x, in nats."""
        ...

    def kl(self, other: Any) -> Float[Tensor, "..."]:
        """KL(self || other), in nats."""
        ...

    def hybrid(self, other: Any, A: Weight) -> "HybridKernel[Any]":
        """self^{1-A} other^A / Z: self is p_u, other is p_c, A in [0, 1]."""
        ...

    def bhattacharyya(self, other: Any) -> Float[Tensor, "..."]:
        """-log int sqrt(self other), >= 0."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw per batch element."""
        ...


K = TypeVar("K", bound=Kernel)


@dataclass(frozen=True)
class HybridKernel(Generic[K]):
    """The hybrid of two kernels.

    Attributes:
        kernel: p~, normalised.
        log_normaliser: log Z <= 0, one per batch element.
    """

    kernel: K
    log_normaliser: Float[Tensor, "..."]


@dataclass(frozen=True)
class GaussianKernel:
    """N(mean, covariance) on R^d.

    Attributes:
        mean: [*b, d].
        covariance: [*b, d, d], symmetric positive definite; its batch axes may be 1.
    """

    mean: Float[Tensor, "*#b d"]
    covariance: Float[Tensor, "*#b d d"]

    @classmethod
    def isotropic(cls, mean: Float[Tensor, "*b d"], variance: Float[Tensor, "..."] | float) -> "GaussianKernel":
        """N(mean, variance I).

        Args:
            mean: [*b, d].
            variance: sigma^2 > 0, a number or a tensor aligned with the first batch axes of `mean`.
        """
        eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return cls(mean, leading(variance, mean)[..., None] * eye)

    def log_prob(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Log-density at x, whose batch axes broadcast with the kernel's."""
        white = _whitener(self.covariance)
        return -0.5 * (_square(white, x - self.mean) + _logdet(white) + x.shape[-1] * math.log(2 * math.pi))

    def score(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The gradient of `log_prob` in x."""
        white = _whitener(self.covariance)
        return -_apply(white.mT, _apply(white, x - self.mean))

    def kl(self, other: "GaussianKernel") -> Float[Tensor, "..."]:
        """KL(self || other)."""
        root, white = torch.linalg.cholesky(self.covariance), _whitener(other.covariance)
        spread = (white @ root).square().sum((-2, -1)) - self.mean.shape[-1]
        log_ratio = _logdet(white) - 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * (_square(white, self.mean - other.mean) + spread + log_ratio)

    def hybrid(self, other: "GaussianKernel", A: Weight) -> "HybridKernel[GaussianKernel]":
        """self^{1-A} other^A / Z (THEORY Prop. 1, D5); A in [0, 1]."""
        delta = other.mean - self.mean
        a = leading(A, delta[..., 0])
        a_matrix = a[..., None, None]
        white = _whitener(a_matrix * self.covariance + (1.0 - a_matrix) * other.covariance)
        mean = self.mean + _apply(a_matrix * self.covariance @ white.mT, _apply(white, delta))
        covariance = (self.covariance @ white.mT) @ (white @ other.covariance)
        narrow = a * _logdet(_whitener(self.covariance)) + (1.0 - a) * _logdet(_whitener(other.covariance))
        log_z = -0.5 * (a * (1.0 - a) * _square(white, delta) + _logdet(white) - narrow)
        return HybridKernel(GaussianKernel(mean, 0.5 * (covariance + covariance.mT)), log_z)

    def bhattacharyya(self, other: "GaussianKernel") -> Float[Tensor, "..."]:
        """-log int sqrt(self other)."""
        return -self.hybrid(other, 0.5).log_normaliser

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "... d"]:
        """One draw per batch element; the generator lives on the kernel's device."""
        root = torch.linalg.cholesky(self.covariance)
        shape = torch.broadcast_shapes(self.mean.shape, root.shape[:-1])
        noise = torch.randn(shape, generator=generator, dtype=root.dtype, device=root.device)
        return self.mean + _apply(root, noise)


@dataclass(frozen=True)
class CategoricalKernel:
    """A distribution over k states.

    Attributes:
        log_probs: Normalised log-probabilities, [*b, k]; -inf where impossible.
    """

    log_probs: Float[Tensor, "*b k"]

    def log_prob(self, x: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log-probability of state x, whose axes broadcast with the kernel's batch axes."""
        shape = torch.broadcast_shapes(x.shape, self.log_probs.shape[:-1])
        table = self.log_probs.expand(*shape, -1)
        return table.gather(-1, x.expand(shape)[..., None].long())[..., 0]

    def kl(self, other: "CategoricalKernel") -> Float[Tensor, "..."]:
        """KL(self || other); infinite where other forbids what self allows."""
        ratio = torch.where(self.log_probs == -torch.inf, 0.0, self.log_probs - other.log_probs)
        return (self.log_probs.exp() * ratio).sum(-1)

    def hybrid(self, other: "CategoricalKernel", A: Weight) -> "HybridKernel[CategoricalKernel]":
        """self^{1-A} other^A / Z, with 0^0 = 1; A in [0, 1].

        When no state is possible under both, log Z is -inf and p~ has no mass: the bound is infinite, not undefined.
        """
        weight = leading(A, self.log_probs)
        unnormalised = power(self.log_probs, 1.0 - weight) + power(other.log_probs, weight)
        log_z = unnormalised.logsumexp(-1)
        shift = torch.where(log_z == -torch.inf, 0.0, log_z)
        return HybridKernel(CategoricalKernel(unnormalised - shift[..., None]), log_z)

    def bhattacharyya(self, other: "CategoricalKernel") -> Float[Tensor, "..."]:
        """-log sum sqrt(self other)."""
        return -self.hybrid(other, 0.5).log_normaliser

    def sample(self, generator: torch.Generator | None = None) -> Int[Tensor, "..."]:
        """One state per batch element; the generator lives on the kernel's device."""
        flat = self.log_probs.exp().reshape(-1, self.log_probs.shape[-1])
        return torch.multinomial(flat, 1, generator=generator).reshape(self.log_probs.shape[:-1])


def _whitener(covariance: Float[Tensor, "*b d d"]) -> Float[Tensor, "*b d d"]:
    """W with W covariance W' = I, lower triangular. Inverted once, however many means share the covariance."""
    root = torch.linalg.cholesky(covariance)
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    return torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)


def _apply(matrix: Float[Tensor, "... i j"], x: Float[Tensor, "... j"]) -> Float[Tensor, "... i"]:
    return torch.einsum("...ij,...j->...i", matrix, x)


def _square(white: Float[Tensor, "... d d"], x: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
    """The squared Mahalanobis length x' covariance^-1 x."""
    return _apply(white, x).square().sum(-1)


def _logdet(white: Float[Tensor, "*b d d"]) -> Float[Tensor, "*b"]:
    """The log-determinant of the covariance that `white` whitens."""
    return -2.0 * white.diagonal(dim1=-2, dim2=-1).log().sum(-1)
