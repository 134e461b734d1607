"""Generators of a latent: flow matching with a small MLP, for p(z | h) or p(z) (RCG, arXiv 2312.03701, section 3.2).

    u = (z - mean) / std                       the scale of the data, held in buffers
    u_s = (1 - s) u + s eps,  v = eps - u      s = 0 is z, s = 1 is noise: a linear `Interpolant`
    energy(z) = |v - v_hat(u_s, s, h)|^2 / d   an unweighted surrogate of -log p(z | h): it is not in nats
    nats(z)   = one draw of the variational bound on -log p(z | h):
        KL(q(u_1 | u) || N(0, I)) + int nats(s) ds - log p(u | u_{s_min}) + sum log std
`nats` draws s with a density proportional to 1/s and divides by it, as the integrand grows like 1/s at small s. From
the same draws it subtracts what N(0, I) would cost, and adds the mean of that (a control variate).

The network: residual blocks x + gate * MLP(norm(x) * (1 + scale) + shift) with SiLU, where shift, scale and gate are
linear in an embedding of (s, h) (adaLN-zero, arXiv 2212.09748); h are features of any origin, one row an element.
An element (a token, a pair, a sample) is drawn alone: given h, elements are independent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import Corrupted
from reed_core.process.interpolant import Interpolant

_FREQUENCIES = 64
_LOG_FASTEST = math.log(1000.0)
_MIN_STD = 1e-6
_QUADRATURE = 4097


@dataclass(frozen=True)
class Flow:
    """A head that is a generator of its own, for a z whose distribution no fixed family holds.

    Its energy needs random numbers, so it is not a `Head`: `reed_core.readout.Readout` builds the `LatentFlow`.

    Attributes:
        hidden: Width of the residual blocks.
        layers: Number of residual blocks, at least 1.
        steps: Steps of the ODE when z is sampled, at least 1.
        method: "heun" (two evaluations a step) or "euler".
    """

    hidden: int = 512
    layers: int = 4
    steps: int = 32
    method: Literal["euler", "heun"] = "heun"

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.steps) < 1 or self.method not in ("euler", "heun"):
            raise InputError(
                f"a flow has hidden, layers and steps of at least 1 and is solved by euler or heun, got {self}"
            )


@dataclass(frozen=True)
class FlowDraw:
    """The random numbers of one energy.

    Attributes:
        s: Time of each element in [0, 1], with the leading axes of z.
        eps: Standard normal noise, of the shape of z.
    """

    s: Float[Tensor, "b ..."]
    eps: Float[Tensor, "b ..."]


class LatentFlow(nn.Module):
    """Flow matching for vectors z, conditioned on features (none: p(z)). A denoiser of rows: `flow(u_s, s, given)`.

    Call `fit_scale` once on data before training: without it z has to be of mean 0 and variance 1. A direction in 768
    dimensions, whose elements have a deviation of 0.04, would otherwise drown in the noise.

    Args:
        dim: Width of z.
        given_dim: Width of the features; 0 for an unconditional p(z).
        hidden: Width of the residual blocks.
        layers: Number of residual blocks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, given_dim: int = 0, hidden: int = 512, layers: int = 4) -> None:
        super().__init__()
        self.dim, self.given_dim = dim, given_dim
        self.process = Interpolant(path="linear", prediction="v")
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.enter = nn.Linear(dim, hidden)
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.told = (
            nn.Sequential(nn.Linear(given_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) if given_dim else None
        )
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(layers))
        self.leave = nn.Linear(hidden, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, u_s: Float[Tensor, "r d"], s: Float[Tensor, "r"], given: Float[Tensor, "r g"] | None = None
    ) -> Float[Tensor, "r d"]:
        """The velocity of the scaled z at time s.

        Args:
            u_s: Noised, scaled z; one element a row.
            s: Times in [0, 1].
            given: Features of each element; None for an unconditional flow.
        """
        weight = self.enter.weight
        frequencies = torch.exp(torch.linspace(0.0, _LOG_FASTEST, _FREQUENCIES, device=s.device, dtype=s.dtype))
        angles = s[:, None] * frequencies
        condition = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(weight.dtype))
        if self.told is not None:
            condition = condition + self.told(given.to(weight.dtype))  # type: ignore[union-attr]
        condition = F.silu(condition)
        h = self.enter(u_s.to(weight.dtype))
        for block in self.blocks:
            h = block(h, condition)
        return self.leave(h)

    @torch.no_grad()
    def fit_scale(self, z: Float[Tensor, "b *n d"], mask: Bool[Tensor, "b *n"] | None = None) -> None:
        """Sets mean and std of every feature of z from data; constant features get std 1.

        Args:
            z: Values as they will be trained on.
            mask: True where z is known; None counts all.
        """
        rows = z.flatten(0, -2) if mask is None else z[mask]
        rows = rows.double()
        std = rows.std(0, correction=0)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(torch.where(std > _MIN_STD, std, 1.0))

    def draw(self, z: Float[Tensor, "b *n d"], noise: NoiseSource) -> FlowDraw:
        """The random numbers of one energy: a time for each element, uniform on [s_min, s_max), and its noise."""
        low, high = self.process.t_min, self.process.t_max
        s = low + (high - low) * noise.uniform(z.shape[1:-1]).float()
        return FlowDraw(s=s, eps=noise.normal(z.shape[1:]))

    def energy(
        self, given: Float[Tensor, "b *n g"] | None, z: Float[Tensor, "b *n d"], draw: FlowDraw
    ) -> Float[Tensor, "b *n"]:
        """Mean squared error of the velocity of each element: the training surrogate, not nats.

        Args:
            given: Features of each element, or None.
            z: Values.
            draw: As `draw` returns it.
        """
        at = self._noised(z, draw)
        return (self(at.u_s, at.s, _rows(given)).to(at.u) - at.v).square().mean(-1).view(z.shape[:-1])

    @torch.no_grad()
    def nats(
        self, given: Float[Tensor, "b *n g"] | None, z: Float[Tensor, "b *n d"], noise: NoiseSource
    ) -> Float[Tensor, "b *n"]:
        """One unbiased draw, for each element, of the variational bound on -log p(z | given), in nats (no gradient).

        Args:
            given: Features of each element, or None.
            z: Values.
            noise: One stream per sample.
        """
        low, high = self.process.t_min, self.process.t_max
        span = math.log(high / low)
        s = (low * torch.exp(span * noise.uniform(z.shape[1:-1]))).to(torch.float32)
        inner = self._noised(z, FlowDraw(s, noise.normal(z.shape[1:])))
        edge = self._noised(z, FlowDraw(torch.full_like(s, low), noise.normal(z.shape[1:])))
        rows = _rows(given)

        def spent(velocity: Callable[[_Noised], Tensor]) -> Tensor:
            running = inner.s * span * self.process.nats(velocity(inner), inner.corrupted())
            return running + self.process.reconstruction_nats(velocity(edge), edge.corrupted())

        own = spent(lambda at: self(at.u_s, at.s, rows))
        normal = spent(lambda at: _normal_velocity(at.u_s, at.s))
        total = self.process.prior_nats(inner.u) + own - normal + _normal_nats(inner.u, low, high)
        return (total + self.std.log().sum().to(total)).view(z.shape[:-1])

    @torch.no_grad()
    def sample(
        self,
        given: Float[Tensor, "b *n g"] | None,
        noise: NoiseSource,
        elements: tuple[int, ...] = (),
        steps: int = 32,
        method: Literal["euler", "heun"] = "heun",
    ) -> Float[Tensor, "b *n d"]:
        """Draws z by the probability-flow ODE.

        Args:
            given: Features of each element, or None.
            noise: One stream per sample.
            elements: The axes of z between batch and features.
            steps: Steps of the time grid.
            method: "euler" or "heun".
        """
        return self._solve(given, noise.normal((*elements, self.dim)), steps, method)

    @torch.no_grad()
    def predict(
        self,
        given: Float[Tensor, "b *n g"] | None,
        lead: tuple[int, ...],
        steps: int = 32,
        method: Literal["euler", "heun"] = "heun",
    ) -> Float[Tensor, "b *n d"]:
        """One central z for each element: the ODE from zero noise (the mode only when p(z | given) is Gaussian).

        Args:
            given: Features of each element, or None.
            lead: The axes of z before its features: the batch, then the elements.
            steps: Steps of the time grid.
            method: "euler" or "heun".
        """
        return self._solve(given, torch.zeros(*lead, self.dim), steps, method)

    def _solve(self, given: Tensor | None, eps: Tensor, steps: int, method: Literal["euler", "heun"]) -> Tensor:
        from reed_core.sample.ode import integrate  # the samplers import this module's readers

        start = eps.to(self.mean).flatten(0, -2)
        u = integrate(self.process, self, start, steps, c=_rows(given), method=method)
        return (self.mean + self.std * u).view(eps.shape)

    def _noised(self, z: Tensor, draw: FlowDraw) -> "_Noised":
        dtype = torch.promote_types(z.dtype, torch.float32)
        u = ((z.to(self.mean.device, dtype) - self.mean) / self.std).flatten(0, -2)
        s, eps = draw.s.to(u).flatten(), draw.eps.to(u).flatten(0, -2)
        at = self.process.coefficients(s[:, None])
        return _Noised(u, at.signal * u + at.noise * eps, s, at.d_signal * u + at.d_noise * eps)


class _Noised(NamedTuple):
    """Scaled z, one element a row: clean, noised, when, and the velocity."""

    u: Tensor
    u_s: Tensor
    s: Tensor
    v: Tensor

    def corrupted(self) -> Corrupted:
        """As a process takes it."""
        return Corrupted(x_0=self.u, x_t=self.u_s, t=self.s, target=self.v)


class _Block(nn.Module):
    """A residual MLP, the identity at the start of training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.modulate = nn.Linear(hidden, 3 * hidden)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, h: Float[Tensor, "r w"], condition: Float[Tensor, "r w"]) -> Float[Tensor, "r w"]:
        """One step, told by `condition`."""
        shift, scale, gate = self.modulate(condition).chunk(3, -1)
        return h + gate * self.mlp(self.norm(h) * (1 + scale) + shift)


def _rows(given: Tensor | None) -> Tensor | None:
    return None if given is None else given.flatten(0, -2)


def _normal_velocity(u_s: Tensor, s: Tensor) -> Tensor:
    """E[v | u_s] for u ~ N(0, I): (2 s - 1) / ((1 - s)^2 + s^2) u_s."""
    s = s[:, None]
    return (2 * s - 1) / ((1 - s).square() + s.square()) * u_s


def _normal_nats(u: Tensor, low: float, high: float) -> Tensor:
    """What N(0, I) costs for u between s = low and high, and in the decoder: the mean of the control variate.

    The error of its noise at s is a eps - b u, with a = (1 - s)^2 / D, b = s (1 - s) / D and D = (1 - s)^2 + s^2.
    """
    log_s = torch.linspace(math.log(low), math.log(high), _QUADRATURE, dtype=torch.float64)
    s = log_s.exp()
    spread = (1 - s).square() + s.square()
    a, b = (1 - s).square() / spread, s * (1 - s) / spread
    of_noise, of_u = (torch.trapezoid(c.square() / (1 - s), log_s) + 0.5 * c[0].square() for c in (a, b))
    constant = math.log(low / (1 - low)) + 0.5 * math.log(2 * math.pi)
    return u.shape[-1] * (float(of_noise) + constant) + float(of_u) * u.square().sum(-1)
