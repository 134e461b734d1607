"""Models whose samples are known exactly, for the tests of samplers: Gaussians with latents, and tables of tokens."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from reed_core.head import Categorical, Gaussian
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.reveal import PointMass, RevealDensity
from torch import Tensor

INTERPOLANTS = [Interpolant(path, prediction) for path in ("linear", "trig") for prediction in ("v", "eps", "x0")]
every_interpolant = pytest.mark.parametrize("process", INTERPOLANTS, ids=str)
MEAN = torch.tensor([0.7, -1.0], dtype=torch.float64)
STD = torch.tensor([0.5, 1.5], dtype=torch.float64)
MASK = 9


class Counted:
    """A denoiser that counts its calls and keeps the times, conditions and latents it saw."""

    def __init__(self, denoiser: Callable[..., Any]) -> None:
        self.denoiser = denoiser
        self.seen: list[tuple[Tensor, Tensor, Any]] = []
        self.told: list[Mapping[str, Revealed] | None] = []

    def __call__(self, x_t: Any, t: Tensor, c: Any = None, **more: Any) -> Any:
        self.seen.append((x_t, t, c))
        self.told.append(more.get("z"))
        return self.denoiser(x_t, t, c, **more)


# One Gaussian


def exact_denoiser(process: Interpolant, mean: Tensor = MEAN, std: Tensor = STD) -> Counted:
    """The exact prediction when x_0 ~ N(mean, diag std^2)."""

    def denoise(x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        at = process.coefficients(t.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)))
        spread = at.signal**2 * std**2 + at.noise**2
        residual = x_t - at.signal * mean
        x_0, eps = mean + at.signal * std**2 / spread * residual, at.noise / spread * residual
        return {"x0": x_0, "eps": eps, "v": at.d_signal * x_0 + at.d_noise * eps}[process.prediction]

    return Counted(denoise)


def exact_flow(process: Interpolant, x: Tensor, start: float, end: float, std: Tensor = STD) -> Tensor:
    """Where the probability flow of that Gaussian carries x: its standardised value never changes."""
    signal, noise, *_ = process.coefficients(torch.tensor([start, end], dtype=torch.float64))
    spread = (signal[:, None] ** 2 * std**2 + noise[:, None] ** 2).sqrt()
    return signal[1] * MEAN + spread[1] * (x - signal[0] * MEAN) / spread[0]


def worst_moment(samples: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """The largest error of a mean or covariance of rows of samples, in its own standard errors."""
    count, variance = len(samples), covariance.diagonal()
    off_mean = (samples.mean(0) - mean).abs() / (variance / count).sqrt()
    width = ((torch.outer(variance, variance) + covariance**2) / count).sqrt()
    return max(float(off_mean.max()), float(((torch.cov(samples.T) - covariance).abs() / width).max()))


# A Gaussian with latents: (x_0, z_1..z_L) of every element are jointly normal, elements are independent


class ExactStep(Interpolant):
    """A process of an outsider: told mean and variance of x_0 given x_t, [b, n, 2], its step is exact for Gaussians."""

    def step(
        self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None
    ) -> Tensor:
        now, after = (self.coefficients(time.double()[:, None]) for time in (t, s))
        ratio = now.signal / after.signal
        fresh = now.noise**2 - ratio**2 * after.noise**2
        share = after.signal * fresh / now.noise**2
        mean = ratio * after.noise**2 / now.noise**2 * x_t + share * prediction[..., 0]
        variance = fresh * after.noise**2 / now.noise**2 + share**2 * prediction[..., 1]
        return mean + variance.sqrt() * noise.normal(x_t.shape[1:]).double()


@dataclass(frozen=True)
class Jointly:
    """Exact p_u, p_c and p(z | x_t, z_S), whatever is revealed for each sample.

    x is [b, n], each z [b, n, 1], float64.
    """

    process: Interpolant
    mean: Tensor
    covariance: Tensor
    names: tuple[str, ...]

    def posterior(self, x_t: Tensor, t: Tensor, told: Mapping[str, Revealed] | None) -> tuple[Tensor, Tensor]:
        """Mean [b, n, 1 + L] and covariance [b, 1 + L, 1 + L] of (x_0, z), all but exactly observed where shown."""
        at = self.process.coefficients(t.double())
        count, size = len(x_t), len(self.mean)
        seen = torch.eye(size, dtype=torch.float64).repeat(count, 1, 1)
        seen[:, 0, 0] = at.signal
        spread = torch.full((count, size), 1e12, dtype=torch.float64)
        spread[:, 0] = at.noise**2
        value = torch.zeros(*x_t.shape, size, dtype=torch.float64)
        value[..., 0] = x_t
        for index, name in enumerate(self.names):
            if told and name in told:
                shown = told[name].shown
                shown = torch.ones(count, dtype=torch.bool) if shown is None else shown
                spread[shown, index + 1] = 1e-12
                value[shown, :, index + 1] = told[name].z[shown, :, 0]
        prior = self.covariance.expand(count, size, size)
        gain = torch.linalg.solve(
            seen @ prior @ seen.mT + torch.diag_embed(spread), seen @ prior
        ).mT  # K H' (H K H' + R)^-1
        residual = value - (seen @ self.mean)[:, None]
        return self.mean + torch.einsum("bij,bnj->bni", gain, residual), prior - gain @ seen @ prior

    def __call__(self, x_t: Tensor, t: Tensor, c: Any = None, z: Mapping[str, Revealed] | None = None) -> Tensor:
        mean, covariance = self.posterior(x_t, t, z)
        x_0 = mean[..., 0]
        if isinstance(self.process, ExactStep):
            return torch.stack([x_0, covariance[:, :1, 0].clamp(min=0).expand_as(x_0)], -1)
        at = self.process.coefficients(t.double()[:, None])
        eps = (x_t - at.signal * x_0) / at.noise
        return {"x0": x_0, "eps": eps, "v": at.d_signal * x_0 + at.d_noise * eps}[self.process.prediction]

    def source(
        self, name: str, x_t: Tensor, t: Tensor, c: Any, revealed: Any, noise: NoiseSource, mask: Any
    ) -> Representation:
        mean, covariance = self.posterior(x_t, t, revealed)
        index = self.names.index(name) + 1
        width = covariance[:, index, index].clamp(min=0).sqrt()[:, None]
        return Representation((mean[..., index] + width * noise.normal(x_t.shape[1:]).double())[..., None])

    def latents(self, *reveals: RevealDensity, tap: str | None = "any") -> list[Latent]:
        return [explicit(name, reveal, tap) for name, reveal in zip(self.names, reveals, strict=True)]

    def rows(self, x: Tensor, z: Mapping[str, Representation]) -> Tensor:
        """(x, z_1..z_L) of every element, one a row."""
        return torch.stack([x, *(z[name].z[..., 0] for name in self.names)], -1).flatten(0, 1)


def explicit(name: str, reveal: RevealDensity | None = None, tap: str | None = "any") -> Latent:
    """A latent of which only the name, the time and the injection matter."""
    return Latent(name, tap, 1, 1, Gaussian(), reveal=reveal or PointMass(1.0), injection="explicit")


def one_latent(process: Interpolant) -> Jointly:
    """z ~ N(0.5, 1), x_0 = z + N(0, 0.6^2)."""
    covariance = torch.tensor([[1.36, 1.0], [1.0, 1.0]], dtype=torch.float64)
    return Jointly(process, torch.tensor([0.5, 0.5], dtype=torch.float64), covariance, ("z",))


def two_latents(process: Interpolant) -> Jointly:
    """A coarse and a fine latent that depend on each other even given x_0."""
    root = torch.tensor([[0.9, 0.5, 0.3], [0.8, -0.4, 0.2], [0.1, 0.3, 0.7]], dtype=torch.float64)
    return Jointly(process, torch.tensor([0.4, -0.5, 1.0], dtype=torch.float64), root @ root.T, ("coarse", "fine"))


# Tables of tokens


def table_denoiser(joint: Tensor) -> Counted:
    """log p(x_i | visible tokens) of a joint table, looked up in a table over all states."""
    length, tokens = joint.ndim, joint.shape[0]
    looked_up = torch.empty(*[tokens + 1] * length, length, tokens, dtype=torch.float64)
    for state in itertools.product(range(tokens + 1), repeat=length):
        seen = joint[tuple(slice(None) if token == tokens else slice(token, token + 1) for token in state)]
        for axis in range(length):
            rest = [k for k in range(length) if k != axis]
            marginal = seen.sum(rest) if rest else seen
            full = torch.full((tokens,), -30.0, dtype=torch.float64)
            if state[axis] == tokens:
                full = (marginal / marginal.sum()).log()
            looked_up[(*state, axis)] = full

    def denoise(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return looked_up[tuple(torch.where(x == MASK, tokens, x).unbind(1))].float()

    return Counted(denoise)


@dataclass(frozen=True)
class PairTable:
    """Many independent pairs of tokens, each with a class z: p(x_1, x_2, z), [k, k, classes].

    x is [b, 2m], pairs side by side; z is [b, m], class indices.
    """

    joint: Tensor

    def posterior(self, x: Tensor, told: Mapping[str, Revealed] | None) -> Tensor:
        """p(x_1, x_2, z | what is seen), [b, m, k, k, classes]."""
        tokens, _, classes = self.joint.shape
        weights = self.joint.expand(x.shape[0], x.shape[1] // 2, tokens, tokens, classes)
        for axis in (0, 1):
            token = x[:, axis::2]
            fits = (token[..., None] == torch.arange(tokens)) | (token == MASK)[..., None]
            weights = weights * fits.reshape(*token.shape, *[tokens if k == axis else 1 for k in range(3)])
        if told and "z" in told:
            value = told["z"]
            shown = torch.ones(len(x), dtype=torch.bool) if value.shown is None else value.shown
            fits = (value.z[..., None] == torch.arange(classes)) | ~shown[:, None, None]
            weights = weights * fits[:, :, None, None]
        return weights / weights.sum((2, 3, 4), keepdim=True)

    def __call__(self, x: Tensor, t: Tensor, c: Any = None, z: Mapping[str, Revealed] | None = None) -> Tensor:
        posterior = self.posterior(x, z)
        return torch.stack([posterior.sum((3, 4)), posterior.sum((2, 4))], 2).flatten(1, 2).log()

    def source(
        self, name: str, x_t: Tensor, t: Tensor, c: Any, revealed: Any, noise: NoiseSource, mask: Any
    ) -> Representation:
        logits = self.posterior(x_t, revealed).sum((2, 3)).log()
        return Representation(Categorical().sample(logits, noise))

    def rows(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.stack([x[:, 0::2], x[:, 1::2], z], -1).flatten(0, 1)


def random_joint(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    joint = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) ** 3 + 0.02
    return joint / joint.sum()


def chi_square(samples: Tensor, expected: Tensor) -> float:
    """Pearson's statistic of rows of tokens against a table."""
    index = torch.zeros(len(samples), dtype=torch.long)
    for token, size in zip(samples.unbind(1), expected.shape, strict=True):
        index = index * size + token
    counts = torch.bincount(index, minlength=expected.numel()).double()
    wanted = expected.flatten() * len(samples)
    return float(((counts - wanted) ** 2 / wanted).sum())


def critical(freedom: int) -> float:
    """What chi-square exceeds once in ten thousand (Wilson-Hilferty)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


def all_masked(count: int, length: int) -> Tensor:
    return torch.full((count, length), MASK)
