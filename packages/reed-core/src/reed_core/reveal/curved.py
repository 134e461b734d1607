"""Smooth reveal densities whose survival is a special function: Beta, and the cosine weight of THEORY D15.

    Beta(p, q)     alpha = t^(p-1) (1-t)^(q-1) / B(p, q)        A = 1 - I_t(p, q), the incomplete beta function
    Cosine         alpha = 1 + cos pi t                         A = 1 - t - sin(pi t) / pi

A loss weight w(t) at uniform times is the density w / int w (THEORY D15): constant is Uniform, 1 - t is Beta(1, 2), t
is Beta(2, 1), (1 + cos pi t) / 2 is Cosine. Times drawn from a density pi multiply: alpha is pi times the weight.

Everything is computed on the CPU in float64 and given back in the dtype and on the device of the argument.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

from reed_core.errors import InputError
from reed_core.reveal.density import RevealDensity

_EDGE = 1e-3
_HALVINGS = 54


@dataclass(frozen=True)
class Beta(RevealDensity):
    """tau ~ Beta(p, q): large p reveals early (near noise), large q late (near data).

    With p < 1 the density grows without bound at t = 0, with q < 1 at t = 1. There, within 1e-3 of that end, `density`
    gives its mean over that last 1e-3: weights stay finite and the total mass is kept. `survival` and `quantile` are
    those of the true distribution everywhere.

    Attributes:
        p: First shape, > 0.
        q: Second shape, > 0.
    """

    p: float
    q: float

    def __post_init__(self) -> None:
        if not (0.0 < self.p < math.inf and 0.0 < self.q < math.inf):
            raise InputError(f"a beta density needs finite shapes p > 0 and q > 0, got p {self.p:g} and q {self.q:g}")

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """t^(p-1) (1-t)^(q-1) / B(p, q) on [0, 1], flattened at an end where it is unbounded."""
        return _exactly(self._density, t)

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 - I_t(p, q)."""
        return _exactly(lambda s: torch.as_tensor(special.betaincc(self.p, self.q, s.clamp(0.0, 1.0).numpy())), t)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The inverse of I_t(p, q)."""
        return _exactly(lambda v: torch.as_tensor(special.betaincinv(self.p, self.q, v.clamp(0.0, 1.0).numpy())), u)

    def _density(self, t: Tensor) -> Tensor:
        inside = t.clamp(0.0, 1.0)
        height = torch.xlogy(torch.tensor(self.p - 1.0, dtype=t.dtype), inside)
        height = height + torch.special.xlog1py(torch.tensor(self.q - 1.0, dtype=t.dtype), -inside)
        height = (height - float(special.betaln(self.p, self.q))).exp()
        if self.p < 1.0:
            height = torch.where(inside < _EDGE, float(special.betainc(self.p, self.q, _EDGE)) / _EDGE, height)
        if self.q < 1.0:
            last = float(special.betaincc(self.p, self.q, 1.0 - _EDGE)) / _EDGE
            height = torch.where(inside > 1.0 - _EDGE, last, height)
        return torch.where((t >= 0.0) & (t <= 1.0), height, 0.0)


@dataclass(frozen=True)
class Cosine(RevealDensity):
    """The weight (1 + cos pi t) / 2, normalised: late, near data, with no kink at either end (THEORY D15)."""

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 + cos pi t on [0, 1]."""
        return _exactly(lambda s: torch.where((s >= 0.0) & (s <= 1.0), 1.0 + (math.pi * s).cos(), 0.0), t)

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 - t - sin(pi t) / pi."""
        return _exactly(_cosine_survival, t)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """By bisection: the equation is Kepler's and has no closed solution."""

        def solved(v: Tensor) -> Tensor:
            low, high = torch.zeros_like(v), torch.ones_like(v)
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                early = _cosine_survival(middle) > 1.0 - v
                low, high = torch.where(early, middle, low), torch.where(early, high, middle)
            return 0.5 * (low + high)

        return _exactly(solved, u)


def _cosine_survival(t: Tensor) -> Tensor:
    left = 1.0 - t.clamp(0.0, 1.0)
    return (left - (math.pi * left).sin() / math.pi).clamp(0.0, 1.0)


def _exactly(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """A function of float64 numbers on the CPU, applied to a tensor of any precision on any device."""
    return function(t.detach().to("cpu", torch.float64)).to(t)
