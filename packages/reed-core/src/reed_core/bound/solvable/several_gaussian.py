"""Several Gaussian latents: z of a base model, cut into blocks of coordinates.

Every head is affine in (x_t, z), with columns of zeros for the blocks that it does not see. A law is the matrix of raw
moments of (1, x_t, z) times its mass, with zeros for the blocks that are still hidden.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reed_core.bound.kernels import GaussianKernel
from reed_core.bound.many import geometric_mean
from reed_core.bound.solvable.gaussian import AffineHead, GaussianModel
from reed_core.bound.solvable.several import SetHeads, members


class SeveralGaussian:
    """A Gaussian model whose z stands for several latents.

    Args:
        base: The model.
        sizes: The number of coordinates of each latent; they sum to that of z.
    """

    def __init__(self, base: GaussianModel, sizes: Sequence[int]) -> None:
        self.base, self.latents = base, len(sizes)
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.blocks = [slice(low, high) for low, high in pairwise(ends)]
        self.exact = SetHeads(
            prior=base.exact.prior,
            denoising=tuple(self._conditional(list(range(base.dim)), revealed) for revealed in range(2**self.latents)),
            alignment=tuple(
                tuple(
                    None if revealed >> latent & 1 else self._conditional(self._places(1 << latent), revealed)
                    for revealed in range(2**self.latents)
                )
                for latent in range(self.latents)
            ),
        )

    @classmethod
    def random(
        cls, generator: torch.Generator, steps: int, dim: int, schedule: str, sizes: Sequence[int]
    ) -> "SeveralGaussian":
        """A random model, the latents of which depend on each other given x_t.

        Args:
            generator: Source of randomness.
            steps: T.
            dim: d.
            schedule: As in `GaussianModel.random`.
            sizes: The number of coordinates of each latent.
        """
        return cls(GaussianModel.random(generator, steps, dim, schedule, sum(sizes)), sizes)

    @classmethod
    def separate(cls, generator: torch.Generator, steps: int, dim: int, latents: int) -> "SeveralGaussian":
        """A random model whose latents are conditionally independent given x_t, for every t.

        The coordinates of x are independent throughout, and latent l reads coordinates l, l + L, l + 2 L, ...

        Args:
            generator: Source of randomness.
            steps: T.
            dim: d, at least L.
            latents: L; each z_l is a number.
        """
        rate = 4.0 / steps * (0.3 + 1.4 * torch.rand(steps, dim, generator=generator, dtype=torch.float64))
        reads = (torch.arange(dim) % latents == torch.arange(latents)[:, None]).double()
        weights = torch.randn(latents, dim, generator=generator, dtype=torch.float64)
        base = GaussianModel(
            data_mean=torch.randn(dim, generator=generator, dtype=torch.float64),
            data_covariance=torch.diag(0.2 + 1.8 * torch.rand(dim, generator=generator, dtype=torch.float64)),
            encoder=1.5 * F.normalize(reads * weights, dim=-1),
            encoder_offset=torch.randn(latents, generator=generator, dtype=torch.float64),
            encoder_noise=torch.diag(0.3 + 0.7 * torch.rand(latents, generator=generator, dtype=torch.float64)),
            scale=(-0.5 * rate.mean(-1)).exp(),
            noise=torch.diag_embed(rate),
        )
        return cls(base, (1,) * latents)

    def perturbed(self, generator: torch.Generator) -> SetHeads:
        """The exact heads with random matrices, offsets and covariances, each head its own."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def shaken(head: AffineHead | None) -> AffineHead | None:
            if head is None:
                return None
            steps, out, inputs = head.matrix.shape
            scale = 0.3 / self.base.steps / math.sqrt(inputs)
            matrix = head.matrix + scale * normal(steps, out, inputs) * (head.matrix != 0)
            offset, covariance = _shaken(normal(steps, out), normal(steps, out), head.covariance)
            return AffineHead(matrix, head.offset + offset, covariance)

        prior = self.exact.prior
        offset, covariance = _shaken(normal(self.base.dim), normal(self.base.dim), prior.covariance)
        return SetHeads(
            prior=GaussianKernel(prior.mean + offset, covariance),
            denoising=tuple(shaken(head) for head in self.exact.denoising),
            alignment=tuple(tuple(shaken(head) for head in row) for row in self.exact.alignment),
        )

    def part(self, z: Float[Tensor, "*p k"], latent: int) -> Float[Tensor, "*p k_l"]:
        """The coordinates of latent l."""
        return z[..., self.blocks[latent]]

    def noisy(self, z: Float[Tensor, "m T k"], revealed: int) -> GaussianKernel:
        """The kernels q(x_t | z_S) of t = 1..T, batch [m, T] (or [1, T] for the empty set)."""
        base, places = self.base, [index - self.base.dim for index in self._places(revealed)]
        if not places:
            return base.noisy()
        seen = GaussianModel(
            base.data_mean,
            base.data_covariance,
            base.encoder[places],
            base.encoder_offset[places],
            base.encoder_noise[places][:, places],
            base.scale,
            base.noise,
        )
        return seen.noisy(z[..., places])

    def prior_law(self, heads: SetHeads) -> Float[Tensor, "n n"]:
        """Moments of (1, x_T), zeros for z."""
        mean, size = heads.prior.mean, self.base.encoder.shape[0]
        first = torch.cat([mean.new_ones(1), mean])
        law = torch.outer(first, first) + F.pad(heads.prior.covariance, (1, 0, 1, 0))
        return F.pad(law, (0, size, 0, size))

    def step_law(self, law: Float[Tensor, "n n"], head: AffineHead, t: int) -> Float[Tensor, "n n"]:
        """One reverse step of the moments."""
        return self.base.step_law(law, head, t)

    def reveal_law(self, law: Float[Tensor, "n n"], head: AffineHead, latent: int, t: int) -> Float[Tensor, "n n"]:
        """The moments with the block of z_l filled."""
        rows = torch.eye(law.shape[0], dtype=law.dtype)
        start, block = 1 + self.base.dim, self.blocks[latent]
        span = slice(start + block.start, start + block.stop)
        rows[span] = torch.cat([head.offset[t - 1, :, None], head.matrix[t - 1]], 1)
        after = rows @ law @ rows.mT
        after[span, span] += law[0, 0] * head.covariance[t - 1]
        return after

    def whole_law(self, law: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
        """The moments themselves."""
        return law

    def hybrid_head(self, heads: SetHeads, weights: Float[Tensor, "T S"]) -> AffineHead:
        """The head p~ of steps 1..T, read off its kernel at 0 and at unit inputs."""
        inputs = torch.eye(heads.denoising[-1].matrix.shape[-1], dtype=weights.dtype)
        inputs = torch.cat([torch.zeros_like(inputs[:1]), inputs])[:, None].expand(-1, self.base.steps, -1)
        x, z = inputs[..., : self.base.dim], inputs[..., self.base.dim :]
        kernel = geometric_mean([head(x, z) for head in heads.denoising], weights[None]).kernel
        offset = kernel.mean[0]
        return AffineHead((kernel.mean[1:] - offset).permute(1, 2, 0), offset, kernel.covariance[0])

    def _places(self, revealed: int) -> list[int]:
        """The coordinates of (x, z) that belong to the latents of a set."""
        blocks = (self.blocks[latent] for latent in members(revealed))
        return [self.base.dim + i for block in blocks for i in range(block.start, block.stop)]

    def _conditional(self, out: list[int], revealed: int) -> AffineHead:
        """The conditional of x_{t-1}, or of a block of z, given x_t and the latents of a set; zeros for the others.

        `out` counts coordinates of (x_{t-1}, z), `inputs` those of (x_t, z).
        """
        d, (mean, covariance) = self.base.dim, self.base.triple()
        inputs = [*range(d), *self._places(revealed)]
        index = [i if i < d else d + i for i in out] + [d + i for i in inputs]
        mean, covariance = mean[:, index], covariance[:, index][:, :, index]
        head = AffineHead.conditional(mean, covariance, slice(0, len(out)), slice(len(out), None))
        matrix = head.matrix.new_zeros(self.base.steps, len(out), d + self.base.encoder.shape[0])
        matrix[:, :, inputs] = head.matrix
        return AffineHead(matrix, head.offset, head.covariance)


def _shaken(shift: Tensor, stretch: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """An offset of a fifth of a standard deviation, and a covariance up to about twice as wide or narrow."""
    root = torch.linalg.cholesky(covariance)
    offset = 0.2 * (root @ shift[..., None])[..., 0]
    return offset, root @ torch.diag_embed(0.7 + 0.7 * torch.sigmoid(stretch)) @ root.mT
