"""A solvable model of Gaussian vectors: linear-Gaussian z and steps, everything by conditioning joint covariances.

    x_0 ~ N(m, C_0),   z = W x_0 + b + N(0, R),   x_t = a_t x_{t-1} + N(0, S_t)
    x_t = s_t x_0 + N(0, N_t):   s_t = a_t s_{t-1},   N_t = a_t^2 N_{t-1} + S_t

Heads are affine with a fixed covariance, so KLs, log Z and log-densities are quadratic in (x_t, z). Their expectations
under a Gaussian are exact on 2 D points, mean +- sqrt(D) times each column of a root of the covariance.

A law is the matrix of raw moments E[(1, x, z) (1, x, z)'] times its mass: laws of mixtures add.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from reed_core.bound.kernels import GaussianKernel
from reed_core.bound.solvable.model import Heads, Information, Nodes, Paths


class AffineHead:
    """N(matrix u + offset, covariance) for every step, with u = x_t or (x_t, z).

    Args:
        matrix: [T, out, in].
        offset: [T, out].
        covariance: [T, out, out].
    """

    def __init__(
        self,
        matrix: Float[Tensor, "T out inputs"],
        offset: Float[Tensor, "T out"],
        covariance: Float[Tensor, "T out out"],
    ) -> None:
        self.matrix, self.offset, self.covariance = matrix, offset, covariance

    @classmethod
    def conditional(
        cls, mean: Float[Tensor, "T n"], covariance: Float[Tensor, "T n n"], out: slice, given: slice
    ) -> "AffineHead":
        """The conditional of one block of a Gaussian vector given another, for every step."""
        across, within = covariance[:, out, given], covariance[:, given, given]
        matrix = torch.linalg.solve(within, across.mT).mT
        rest = covariance[:, out, out] - matrix @ across.mT
        return cls(matrix, mean[:, out] - _apply(matrix, mean[:, given]), 0.5 * (rest + rest.mT))

    def __call__(
        self, x: Float[Tensor, "m n d"], z: Float[Tensor, "... k"] | None = None, first: int = 1
    ) -> GaussianKernel:
        """The kernels of steps first, first + 1, ... at x, batch [m, n]."""
        steps = slice(first - 1, first - 1 + x.shape[1])
        inputs = x if z is None else torch.cat([x, z.expand(*x.shape[:2], -1)], -1)
        return GaussianKernel(_apply(self.matrix[steps], inputs) + self.offset[steps], self.covariance[None, steps])


class GaussianModel:
    """A linear-Gaussian forward process with a linear-Gaussian latent.

    Args:
        data_mean: m, [d].
        data_covariance: C_0, [d, d].
        encoder: W, [k, d].
        encoder_offset: b, [k].
        encoder_noise: R, [k, k].
        scale: a_t for t = 1..T, [T].
        noise: S_t for t = 1..T, [T, d, d].
    """

    def __init__(
        self,
        data_mean: Float[Tensor, "d"],
        data_covariance: Float[Tensor, "d d"],
        encoder: Float[Tensor, "k d"],
        encoder_offset: Float[Tensor, "k"],
        encoder_noise: Float[Tensor, "k k"],
        scale: Float[Tensor, "T"],
        noise: Float[Tensor, "T d d"],
    ) -> None:
        self.steps, self.dim = noise.shape[0], noise.shape[1]
        self.data_mean, self.data_covariance = data_mean, data_covariance
        self.encoder, self.encoder_offset, self.encoder_noise = encoder, encoder_offset, encoder_noise
        self.scale, self.noise = scale, noise
        signal, spread = [scale.new_ones(())], [torch.zeros_like(data_covariance)]
        for a, S in zip(scale, noise, strict=True):
            signal.append(a * signal[-1])
            spread.append(a * a * spread[-1] + S)
        self.signal, self.spread = torch.stack(signal), torch.stack(spread)  # s_t and N_t, t = 0..T
        d = self.dim
        mean, covariance = self.triple()
        past, now, latent = slice(0, d), slice(d, 2 * d), slice(2 * d, None)
        self.exact = Heads(
            prior=GaussianKernel(mean[-1, now], covariance[-1, now, now]),
            unconditional=AffineHead.conditional(mean, covariance, past, now),
            conditional=AffineHead.conditional(mean, covariance, past, slice(d, None)),
            alignment=AffineHead.conditional(mean, covariance, latent, now),
        )

    @classmethod
    def random(
        cls, generator: torch.Generator, steps: int, dim: int, schedule: str, latent_dim: int | None = None
    ) -> "GaussianModel":
        """A random model.

        Args:
            generator: Source of randomness.
            steps: T.
            dim: d.
            schedule: "preserving" (a_t^2 + sigma_t^2 = 1), "exploding" (a_t = 1) or "anisotropic" (any S_t).
            latent_dim: k, the dimension of z; None is max(1, d // 2).
        """
        latent = max(1, dim // 2) if latent_dim is None else latent_dim
        rate = 4.0 / steps * (0.3 + 1.4 * torch.rand(steps, generator=generator, dtype=torch.float64))
        eye = torch.eye(dim, dtype=torch.float64)
        if schedule == "preserving":
            scale, noise = (-0.5 * rate).exp(), (1.0 - (-rate).exp())[:, None, None] * eye
        elif schedule == "exploding":
            scale, noise = torch.ones_like(rate), rate[:, None, None] * eye
        else:
            scale, noise = (-0.25 * rate).exp(), rate[:, None, None] * _spd(generator, (steps,), dim, 0.5, 1.5)
        return cls(
            data_mean=_normal(generator, dim),
            data_covariance=_spd(generator, (), dim, 0.2, 2.0),
            encoder=1.5 * F.normalize(_normal(generator, latent, dim), dim=-1),
            encoder_offset=_normal(generator, latent),
            encoder_noise=_spd(generator, (), latent, 0.3, 1.0),
            scale=scale,
            noise=noise,
        )

    def perturbed(self, generator: torch.Generator) -> Heads:
        """The exact heads with random matrices, offsets and covariances, each head its own."""

        def shaken(head: AffineHead) -> AffineHead:
            steps, out, inputs = head.matrix.shape
            root = torch.linalg.cholesky(head.covariance)
            matrix = head.matrix + 0.3 / self.steps * _normal(generator, steps, out, inputs) / math.sqrt(inputs)
            offset = head.offset + 0.2 * _apply(root, _normal(generator, steps, out))
            return AffineHead(matrix, offset, root @ _spd(generator, (steps,), out, 0.7, 1.4) @ root.mT)

        prior = self.exact.prior
        root = torch.linalg.cholesky(prior.covariance)
        return Heads(
            prior=GaussianKernel(
                prior.mean + 0.2 * root @ _normal(generator, self.dim),
                root @ _spd(generator, (), self.dim, 0.7, 1.4) @ root.mT,
            ),
            unconditional=shaken(self.exact.unconditional),
            conditional=shaken(self.exact.conditional),
            alignment=shaken(self.exact.alignment),
        )

    def paths(self, noise: Float[Tensor, "p D"]) -> Paths:
        """The paths that standard normal numbers lead to; D = d (T + 1) + k.

        Args:
            noise: [p, D], for x_0, x_1 .. x_T and z in this order.
        """
        split = self.dim * (self.steps + 1)
        steps = noise[:, :split].unflatten(1, (self.steps + 1, self.dim))
        x = [self.data_mean + steps[:, 0] @ torch.linalg.cholesky(self.data_covariance).mT]
        for t in range(1, self.steps + 1):
            x.append(self.scale[t - 1] * x[-1] + steps[:, t] @ torch.linalg.cholesky(self.noise[t - 1]).mT)
        z = x[0] @ self.encoder.mT + self.encoder_offset
        return Paths(x=torch.stack(x, 1), z=z + noise[:, split:] @ torch.linalg.cholesky(self.encoder_noise).mT)

    def sample(self, count: int, generator: torch.Generator) -> Paths:
        """Draws from q(x_{0:T}, z)."""
        return self.paths(_normal(generator, count, self.dim * (self.steps + 1) + self.encoder.shape[0]))

    def path_nodes(self) -> Iterator[Paths]:
        """Paths, in parts, whose plain mean is an exact expectation over q(x_{0:T}, z), for quadratic functions."""
        points = _sphere(self.dim * (self.steps + 1) + self.encoder.shape[0])
        return map(self.paths, points.split(256))

    def log_forward(self, paths: Paths) -> Float[Tensor, "p"]:
        """Log-density q(x_{0:T}, z)."""
        noise = paths.x[:, 1:] - self.scale[:, None] * paths.x[:, :-1]
        moves = MultivariateNormal(torch.zeros_like(self.data_mean), self.noise).log_prob(noise)
        return self.log_data(paths.x[:, 0], paths.z) + moves.sum(-1)

    def log_data(self, x_0: Float[Tensor, "p d"], z: Float[Tensor, "p k"]) -> Float[Tensor, "p"]:
        """Log-density q(x_0, z)."""
        latent = MultivariateNormal(x_0 @ self.encoder.mT + self.encoder_offset, self.encoder_noise)
        return MultivariateNormal(self.data_mean, self.data_covariance).log_prob(x_0) + latent.log_prob(z)

    def nodes(self, x_0: Float[Tensor, "d"]) -> Nodes:
        """Exact for quadratic functions of x_t ~ q(x_t | x_0)."""
        root = torch.linalg.cholesky(self.spread[1:])
        x = self.signal[1:, None] * x_0 + _apply(root, _sphere(self.dim)[:, None])
        return Nodes(x=x, weight=x.new_full(x.shape[:2], 1.0 / x.shape[0]))

    def joint_nodes(self) -> Nodes:
        """Exact for quadratic functions of (x_t, z) ~ q(x_t, z)."""
        mean, covariance = self.triple()
        mean, covariance = mean[:, self.dim :], covariance[:, self.dim :, self.dim :]
        points = mean + _apply(torch.linalg.cholesky(covariance), _sphere(mean.shape[1])[:, None])
        weight = points.new_full(points.shape[:2], 1.0 / points.shape[0])
        return Nodes(x=points[..., : self.dim], weight=weight, z=points[..., self.dim :])

    def noised(self, x_0: Float[Tensor, "d"]) -> GaussianKernel:
        """The kernel q(x_T | x_0)."""
        return GaussianKernel(self.signal[-1] * x_0, self.spread[-1])

    def posterior(self, x: Float[Tensor, "m T2 d"], x_0: Float[Tensor, "... d"]) -> GaussianKernel:
        """The kernels q(x_{t-1} | x_t, x_0) of steps t = 2..T (product of N(s x_0, N_{t-1}) and the step's density)."""
        a, past, now = self.scale[1:, None, None], self.spread[1:-1], self.spread[2:]
        gain = a * torch.linalg.solve(now, past).mT
        mean = self.signal[1:-1, None] * x_0 + _apply(gain, x - self.signal[2:, None] * x_0)
        covariance = past - a * gain @ past
        return GaussianKernel(mean, 0.5 * (covariance + covariance.mT)[None])

    def marginal(self) -> GaussianKernel:
        """The kernel q(x_T)."""
        covariance = self.signal[-1] ** 2 * self.data_covariance + self.spread[-1]
        return GaussianKernel(self.signal[-1] * self.data_mean, covariance)

    def clean(self, z: Float[Tensor, "*b k"] | None = None) -> GaussianKernel:
        """The kernel q(x_0), or q(x_0 | z)."""
        if z is None:
            return GaussianKernel(self.data_mean, self.data_covariance)
        cross = self.data_covariance @ self.encoder.mT
        gain = torch.linalg.solve(self.encoder @ cross + self.encoder_noise, cross.mT).mT
        mean = self.data_mean + _apply(gain, z - self.encoder @ self.data_mean - self.encoder_offset)
        return GaussianKernel(mean, (self.data_covariance - gain @ cross.mT).expand(*z.shape[:-1], -1, -1))

    def noisy(self, z: Float[Tensor, "m T k"] | None = None) -> GaussianKernel:
        """The kernels q(x_t), or q(x_t | z), of t = 1..T, batch [1, T] or [m, T]."""
        clean, signal = self.clean(z), self.signal[1:, None]
        mean, covariance = signal * clean.mean, signal[..., None] ** 2 * clean.covariance + self.spread[1:]
        return GaussianKernel(mean, covariance) if z is not None else GaussianKernel(mean[None], covariance[None])

    def denoised(self, x: Float[Tensor, "m T d"], z: Float[Tensor, "m T k"] | None = None) -> Float[Tensor, "m T d"]:
        """The exact x_0-predictions E[x_0 | x_t], or E[x_0 | x_t, z], of t = 1..T."""
        clean, noisy = self.clean(z), self.noisy(z)
        gain = self.signal[1:, None, None] * torch.linalg.solve(noisy.covariance, clean.covariance).mT
        return clean.mean + _apply(gain, x - noisy.mean)

    def information(self) -> Information:
        """Entropies from log-determinants of the covariances of (x_{t-1}, x_t, z)."""
        _, covariance = self.triple()
        d, n = self.dim, covariance.shape[-1]
        past, now, latent = (torch.arange(*span) for span in ((0, d), (d, 2 * d), (2 * d, n)))

        def logdet(*blocks: Tensor) -> Tensor:
            index = torch.cat(blocks)
            return torch.logdet(covariance[:, index][:, :, index])

        constant = (n - 2 * d) * (1.0 + math.log(2 * math.pi))
        entropy = 0.5 * (logdet(now, latent) - logdet(now) + constant)
        entropy_clean = 0.5 * (torch.logdet(self.encoder_noise) + constant)
        gain = logdet(past, now) + logdet(now, latent) - logdet(now) - logdet(past, now, latent)
        return Information(entropy_clean, entropy, 0.5 * gain)

    def data_law(self) -> Float[Tensor, "n n"]:
        """Moments of (1, x_0, z)."""
        cross = self.data_covariance @ self.encoder.mT
        latent = self.encoder @ cross + self.encoder_noise
        covariance = torch.cat([torch.cat([self.data_covariance, cross], 1), torch.cat([cross.mT, latent], 1)])
        mean = torch.cat([self.data_mean, self.encoder @ self.data_mean + self.encoder_offset])
        return _law(mean, covariance)

    def prior_law(self, heads: Heads) -> Float[Tensor, "n n"]:
        """Moments of (1, x_T)."""
        return _law(heads.prior.mean, heads.prior.covariance)

    def step_law(self, law: Float[Tensor, "n n"], head: AffineHead, t: int) -> Float[Tensor, "n n"]:
        """One reverse step of the moments; z, if there, stays."""
        rows = torch.eye(law.shape[0], dtype=law.dtype)
        span = slice(1, 1 + self.dim)
        rows[span] = torch.cat([head.offset[t - 1, :, None], head.matrix[t - 1]], 1)
        after = rows @ law @ rows.mT
        after[span, span] += law[0, 0] * head.covariance[t - 1]
        return after

    def reveal_law(self, law: Float[Tensor, "n n"], head: AffineHead, t: int) -> Float[Tensor, "n2 n2"]:
        """Moments of (1, x_t, z)."""
        rows = torch.cat([head.offset[t - 1, :, None], head.matrix[t - 1]], 1)
        rows = torch.cat([torch.eye(law.shape[0], dtype=law.dtype), rows])
        after = rows @ law @ rows.mT
        after[law.shape[0] :, law.shape[0] :] += law[0, 0] * head.covariance[t - 1]
        return after

    def as_kernel(self, law: Float[Tensor, "n n"]) -> GaussianKernel:
        """The Gaussian with the moments of a law."""
        mean = law[1:, 0] / law[0, 0]
        return GaussianKernel(mean, law[1:, 1:] / law[0, 0] - torch.outer(mean, mean))

    def outcome(self, x: Float[Tensor, "*p d"], z: Float[Tensor, "*p k"]) -> Float[Tensor, "*p n"]:
        """The vector (x, z)."""
        return torch.cat([x, z], -1)

    def hybrid_head(self, heads: Heads, A: Float[Tensor, "T"]) -> AffineHead:
        """The head p~ of steps 1..T, read off its kernel at 0 and at unit inputs."""
        inputs = torch.eye(heads.conditional.matrix.shape[-1], dtype=A.dtype)
        inputs = torch.cat([torch.zeros_like(inputs[:1]), inputs])[:, None].expand(-1, self.steps, -1)
        x, z = inputs[..., : self.dim], inputs[..., self.dim :]
        kernel = heads.unconditional(x).hybrid(heads.conditional(x, z), A[None]).kernel
        offset = kernel.mean[0]
        return AffineHead((kernel.mean[1:] - offset).permute(1, 2, 0), offset, kernel.covariance[0])

    def triple(self) -> tuple[Float[Tensor, "T n"], Float[Tensor, "T n n"]]:
        """Mean and covariance of (x_{t-1}, x_t, z) for t = 1..T."""
        data = self.signal[:, None, None] ** 2 * self.data_covariance + self.spread
        cross = self.signal[:, None, None] * (self.data_covariance @ self.encoder.mT)
        latent = (self.encoder @ self.data_covariance @ self.encoder.mT + self.encoder_noise).expand(self.steps, -1, -1)
        step = self.scale[:, None, None] * data[:-1]
        mean = self.signal[:, None] * self.data_mean
        z_mean = (self.encoder @ self.data_mean + self.encoder_offset).expand(self.steps, -1)
        covariance = torch.cat(
            [
                torch.cat([data[:-1], step, cross[:-1]], 2),
                torch.cat([step.mT, data[1:], cross[1:]], 2),
                torch.cat([cross[:-1].mT, cross[1:].mT, latent], 2),
            ],
            1,
        )
        return torch.cat([mean[:-1], mean[1:], z_mean], 1), covariance


def _apply(matrix: Float[Tensor, "... i j"], x: Float[Tensor, "... j"]) -> Float[Tensor, "... i"]:
    return torch.einsum("...ij,...j->...i", matrix, x)


def _law(mean: Float[Tensor, "n"], covariance: Float[Tensor, "n n"]) -> Float[Tensor, "n1 n1"]:
    first = torch.cat([mean.new_ones(1), mean])
    law = torch.outer(first, first)
    law[1:, 1:] += covariance
    return law


def _sphere(dim: int) -> Float[Tensor, "m d"]:
    points = math.sqrt(dim) * torch.eye(dim, dtype=torch.float64)
    return torch.cat([points, -points])


def _normal(generator: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _spd(generator: torch.Generator, batch: tuple[int, ...], dim: int, low: float, high: float) -> Float[Tensor, "..."]:
    basis, _ = torch.linalg.qr(_normal(generator, *batch, dim, dim))
    values = low + (high - low) * torch.rand(*batch, 1, dim, generator=generator, dtype=torch.float64)
    return basis * values @ basis.mT
