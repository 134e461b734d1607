"""Slow, obvious truths about several latents: products over one tuple of reveal steps at a time, no weights w or v.

Which sets a tuple reveals when is decided here by looking at its times, one by one; densities are those of
`reed_core.bound.solvable.reference`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from reed_core.bound.solvable import reference
from reed_core.bound.solvable.model import Paths
from reed_core.bound.solvable.several import SetHeads, SeveralModel


@dataclass(frozen=True)
class SetValues:
    """One number for every head, step and set.

    Attributes:
        ends: What does not depend on the tuple.
        denoising: [S][T] of tensors.
        alignment: [L][S][T] of tensors; an empty list where l is in the set.
    """

    ends: Tensor
    denoising: list[list[Tensor]]
    alignment: list[list[list[Tensor]]]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """`denoising` as [*b, T, S] and `alignment` as [*b, L, T, S], 0 where l is in the set."""
        steps = [torch.stack(row, -1) for row in self.denoising]
        none = torch.zeros_like(steps[0])
        draws = [[torch.stack(values, -1) if values else none for values in row] for row in self.alignment]
        return torch.stack(steps, -1), torch.stack([torch.stack(row, -1) for row in draws], -3)

    def of_tuple(self, times: tuple[int, ...]) -> Tensor:
        """The sum along one tuple: every step with what it sees, every latent with what came before it."""
        total = self.ends
        for t in range(1, len(self.denoising[0]) + 1):
            seen = _set(latent for latent, time in enumerate(times) if time >= t)
            total = total + self.denoising[seen][t - 1]
        order = sorted(range(len(times)), key=lambda latent: (-times[latent], latent))
        for place, latent in enumerate(order):
            total = total + self.alignment[latent][_set(iter(order[:place]))][times[latent] - 1]
        return total


def by_tuple(values: SetValues) -> Float[Tensor, "N ..."]:
    """`of_tuple` of every tuple, in the order of a flattened table."""
    steps, count = len(values.denoising[0]), len(values.alignment)
    return torch.stack([values.of_tuple(times) for times in product(range(1, steps + 1), repeat=count)])


def path_values(
    model: SeveralModel, heads: SetHeads, paths: Paths, log_prob: Callable[[Any, Tensor], Tensor] = reference.log_prob
) -> SetValues:
    """What every head says of every step of each path: log-probabilities, [p] each.

    Args:
        model: The model.
        heads: The heads.
        paths: The paths.
        log_prob: Log-density of a kernel at a point; the reference unless told otherwise.
    """
    past, now = paths.x[:, :-1], paths.x[:, 1:]
    z = paths.z[:, None].expand(-1, now.shape[1], *paths.z.shape[1:])
    return SetValues(
        ends=log_prob(heads.prior, paths.x[:, -1]),
        denoising=[_by_step(log_prob(head(now, z), past)) for head in heads.denoising],
        alignment=[
            [_by_step(log_prob(head(now, z), model.part(z, latent))) if head else [] for head in row]
            for latent, row in enumerate(heads.alignment)
        ],
    )


def set_costs(model: SeveralModel, heads: SetHeads, x_0: Shaped[Tensor, "..."], z: Shaped[Tensor, "..."]) -> SetValues:
    """What every head would cost in the bound of one (x_0, z), averaged over x_t ~ q(x_t | x_0), in nats.

    `ends` holds the prior and the reconstruction, so the first step of `denoising` is 0.
    """
    nodes = model.base.nodes(x_0)
    late, weight = nodes.x[:, 1:], nodes.weight[:, 1:]
    posterior = model.base.posterior(late, x_0)
    first = reference.log_prob(heads.denoising[-1](nodes.x[:, :1], z), x_0)
    zero = weight.new_zeros(())

    def kl(head: Any) -> list[Tensor]:
        return [zero, *(weight * reference.kl(posterior, head(late, z, first=2))).sum(0)]

    def surprise(head: Any, latent: int) -> list[Tensor]:
        return list(-(nodes.weight * reference.log_prob(head(nodes.x, z), model.part(z, latent))).sum(0))

    return SetValues(
        ends=reference.kl(model.base.noised(x_0), heads.prior) - (nodes.weight[:, :1] * first).sum(),
        denoising=[kl(head) for head in heads.denoising],
        alignment=[
            [surprise(head, latent) if head else [] for head in row] for latent, row in enumerate(heads.alignment)
        ],
    )


def _by_step(values: Float[Tensor, "p T"]) -> list[Tensor]:
    return list(values.unbind(-1))


def _set(latents: Iterator[int]) -> int:
    return sum(1 << latent for latent in latents)
