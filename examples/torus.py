"""Diffusion on the torus: a process of one's own, for angles, written against the public protocol of reed-core alone.

    x_t = x_0 + sigma(t) eps mod 2 pi,  sigma(t) = 4 t^2:  a wrapped normal, uniform at t = 1 but for e^-8

The denoiser predicts sigma grad log q(x_t | x_0), a sum over windings; in expectation that is sigma times the score.
A step back moves by (sigma_t^2 - sigma_s^2) score, with the noise of q(x_s | x_t, x_0) of unwrapped x. With
g^2 = d sigma^2 / dt the bound is g^2 / 2 |score error|^2 = 2 / t |error|^2. `torus_train.py` trains on it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from reed_core.noise import NoiseSource
from reed_core.process.base import Corrupted, HybridNats, expand_mask, expand_time, masked_mean, masked_sum
from torch import Tensor

Angles = Float[Tensor, "b ..."]
Mask = Bool[Tensor, "b ..."] | None
PerSample = Float[Tensor, "b"]
WIDEST = 4.0
WINDINGS = 2 * math.pi * torch.arange(-6, 7)


def wrap(x: Tensor) -> Tensor:
    """Angles in [-pi, pi)."""
    return (x + math.pi) % (2 * math.pi) - math.pi


def sigma(t: PerSample, like: Tensor) -> Tensor:
    """Width of the noise at t, with the rank of `like`."""
    return WIDEST * expand_time(t.to(like), like).square()


def hold(x: Tensor, mask: Mask) -> Tensor:
    """Padding is 0, whatever it held."""
    return x if mask is None else torch.where(expand_mask(mask, x), x, 0.0)


@dataclass(frozen=True)
class Torus:
    """Angles, [b, ...], in radians; a `BoundedProcess`."""

    t_min: float = 0.04
    t_max: float = 1.0

    def sample_time(self, noise: NoiseSource) -> PerSample:
        """Uniform on [t_min, t_max)."""
        return self.t_min + (self.t_max - self.t_min) * noise.times()

    def corrupt(self, x_0: Angles, t: PerSample, noise: NoiseSource, mask: Mask = None) -> Corrupted:
        """Adds wrapped normal noise; the target is the mean of the way to every copy of x_0, over sigma."""
        x_0, width = hold(x_0, mask), sigma(t, x_0)
        x_t = hold(wrap(x_0 + width * noise.normal(x_0.shape[1:]).to(x_0)), mask)
        away = ((x_0 - x_t)[..., None] + WINDINGS.to(x_0)) / width[..., None]
        target = (torch.softmax(-away.square() / 2, -1) * away).sum(-1)
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=target, mask=mask)

    def loss(self, prediction: Angles, corrupted: Corrupted) -> PerSample:
        """Mean squared error over a sample's own angles."""
        return masked_mean((prediction - corrupted.target).square(), corrupted.mask)

    def prior(self, like: Angles, noise: NoiseSource, mask: Mask = None) -> Angles:
        """Uniform angles."""
        return (2 * math.pi * noise.uniform(like.shape[1:]) - math.pi).to(like)

    def step(
        self, prediction: Angles, x_t: Angles, t: PerSample, s: PerSample, noise: NoiseSource, mask: Mask = None
    ) -> Angles:
        """One ancestral step; s = 0 gives the mean."""
        now, after = sigma(t, x_t), sigma(s, x_t)
        gone = now.square() - after.square()
        fresh = after / now * gone.sqrt() * noise.normal(x_t.shape[1:]).to(x_t)
        return hold(wrap(x_t + gone / now * prediction + fresh), mask)

    def prior_nats(self, x_0: Angles, mask: Mask = None) -> PerSample:
        """KL of a wrapped normal and the uniform law, by its first Fourier mode: exp(-sigma^2) for each angle."""
        return masked_sum(torch.full_like(x_0, math.exp(-((WIDEST * self.t_max**2) ** 2))), mask)

    def nats(self, prediction: Angles, corrupted: Corrupted) -> PerSample:
        """2 / t times the squared error."""
        return 2 / corrupted.t * masked_sum((prediction - corrupted.target).square(), corrupted.mask)

    def hybrid_nats(self, unconditional: Angles, conditional: Angles, A: PerSample, corrupted: Corrupted) -> HybridNats:
        """Kernels of one variance: the mixed prediction, and log Z = -A (1-A) times their distance (THEORY D5)."""
        mixed = torch.lerp(unconditional, conditional, expand_time(A, conditional))
        apart = 2 / corrupted.t * masked_sum((unconditional - conditional).square(), corrupted.mask)
        return HybridNats(self.nats(mixed, corrupted), -A * (1 - A) * apart)

    def reconstruction_nats(self, prediction: Angles, corrupted: Corrupted) -> PerSample:
        """A normal decoder of width sigma around the mean."""
        width = sigma(corrupted.t, corrupted.x_t)
        error = wrap(corrupted.x_0 - corrupted.x_t - width * prediction) / width
        return masked_sum(error.square() / 2 + width.log() + 0.5 * math.log(2 * math.pi), corrupted.mask)
