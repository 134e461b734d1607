"""Several latents on a few states: z is one index of a base model, read in the mixed radix of the latents' sizes.

Tables keep one axis for every latent, of length 1 where it is not seen: [T, k, l_1 or 1, .., l_L or 1, out]. A law is
[k, l_1 or 1, .., l_L or 1]: 1 where the latent is hidden.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reed_core.bound.kernels import CategoricalKernel
from reed_core.bound.many import geometric_mean
from reed_core.bound.solvable.categorical import CategoricalModel
from reed_core.bound.solvable.several import SetHeads, members


class SetTable:
    """A kernel for every step, state and value of the latents that it sees.

    Args:
        log_probs: [T, k, l_1 or 1, .., l_L or 1, out].
        sizes: l_1 .. l_L.
    """

    def __init__(self, log_probs: Float[Tensor, "T k ..."], sizes: Sequence[int]) -> None:
        self.log_probs, self.sizes = log_probs, tuple(sizes)

    def __call__(self, x: Int[Tensor, "m n"], z: Int[Tensor, "..."], first: int = 1) -> CategoricalKernel:
        """The kernels of steps first, first + 1, ... at x, batch [m, n]; z in one piece."""
        steps = torch.arange(first - 1, first - 1 + x.shape[1])
        seen = self.log_probs.shape[2:-1]
        parts = (part(z, latent, self.sizes).clamp(max=size - 1) for latent, size in enumerate(seen))
        return CategoricalKernel(self.log_probs[(steps, x, *parts)])


class SeveralCategorical:
    """A categorical model whose z stands for several latents.

    Args:
        base: The model; its z has prod_l l_l values.
        sizes: l_1 .. l_L, each at least 2.
    """

    def __init__(self, base: CategoricalModel, sizes: Sequence[int]) -> None:
        self.base, self.sizes, self.latents = base, tuple(sizes), len(sizes)
        joint = base.joint[1:].unflatten(-1, self.sizes)  # q(x_t, z_1 .. z_L)
        triples = base.triples.unflatten(-1, self.sizes)  # q(x_{t-1}, x_t, z_1 .. z_L)
        sets = range(2**self.latents)
        self.exact = SetHeads(
            prior=base.exact.prior,
            denoising=tuple(self._conditional(self._without(triples, revealed, 3).movedim(1, -1)) for revealed in sets),
            alignment=tuple(
                tuple(
                    None
                    if revealed >> latent & 1
                    else self._conditional(_drawn(self._without(joint, revealed | 1 << latent, 2), 2 + latent))
                    for revealed in sets
                )
                for latent in range(self.latents)
            ),
        )

    @classmethod
    def random(cls, generator: torch.Generator, steps: int, states: int, sizes: Sequence[int]) -> "SeveralCategorical":
        """A model with random tables.

        Args:
            generator: Source of randomness.
            steps: T.
            states: k.
            sizes: l_1 .. l_L.
        """
        return cls(CategoricalModel.random(generator, steps, states, math.prod(sizes)), sizes)

    def perturbed(self, generator: torch.Generator) -> SetHeads:
        """The exact heads with random factors on every probability, each head its own."""

        def shaken(log_probs: Tensor) -> Tensor:
            noise = torch.randn(log_probs.shape, generator=generator, dtype=log_probs.dtype)
            return torch.log_softmax(log_probs + 0.4 * noise, -1)

        def other(head: SetTable | None) -> SetTable | None:
            return None if head is None else SetTable(shaken(head.log_probs), self.sizes)

        return SetHeads(
            prior=CategoricalKernel(shaken(self.exact.prior.log_probs)),
            denoising=tuple(other(head) for head in self.exact.denoising),
            alignment=tuple(tuple(other(head) for head in row) for row in self.exact.alignment),
        )

    def part(self, z: Int[Tensor, "*p"], latent: int) -> Int[Tensor, "*p"]:
        """The value of latent l."""
        return part(z, latent, self.sizes)

    def prior_law(self, heads: SetHeads) -> Float[Tensor, "k ..."]:
        """The table of x_T."""
        table: Tensor = heads.prior.log_probs.exp()
        return table.reshape(-1, *(1 for _ in self.sizes))

    def step_law(self, law: Float[Tensor, "k ..."], head: SetTable, t: int) -> Float[Tensor, "k ..."]:
        """One reverse step of a table."""
        return (law[..., None] * head.log_probs[t - 1].exp()).sum(0).movedim(-1, 0)

    def reveal_law(self, law: Float[Tensor, "k ..."], head: SetTable, latent: int, t: int) -> Float[Tensor, "k ..."]:
        """The table with the axis of z_l filled."""
        return (law[..., None] * head.log_probs[t - 1].exp()).transpose(1 + latent, -1).squeeze(-1)

    def whole_law(self, law: Float[Tensor, "k ..."]) -> Float[Tensor, "k l"]:
        """The table of (x_0, z), z in one piece."""
        return law.flatten(1)

    def hybrid_head(self, heads: SetHeads, weights: Float[Tensor, "T S"]) -> SetTable:
        """The head p~ of steps 1..T."""
        full = heads.denoising[-1].log_probs
        kernels = [CategoricalKernel(head.log_probs.expand_as(full)) for head in heads.denoising]
        return SetTable(geometric_mean(kernels, weights).kernel.log_probs, self.sizes)

    def _without(self, table: Tensor, revealed: int, first: int) -> Tensor:
        """Sums out the latents that are not in a set; their axes begin at `first`."""
        gone = [first + latent for latent in range(self.latents) if latent not in members(revealed)]
        return table.sum(gone, keepdim=True) if gone else table

    def _conditional(self, table: Tensor) -> SetTable:
        return SetTable((table / table.sum(-1, keepdim=True)).log(), self.sizes)


def part(z: Int[Tensor, "*p"], latent: int, sizes: Sequence[int]) -> Int[Tensor, "*p"]:
    """The digit of latent l of an index in the mixed radix of `sizes`, the last changing fastest."""
    return z // math.prod(sizes[latent + 1 :]) % sizes[latent]


def _drawn(table: Tensor, axis: int) -> Tensor:
    """Moves an axis to the end, leaving one of length 1 in its place."""
    return table.unsqueeze(-1).transpose(axis, -1)
