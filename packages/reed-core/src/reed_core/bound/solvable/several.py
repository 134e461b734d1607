"""Solvable models of several latents, and the exact computations that need no more than their heads and laws.

z of a `SolvableModel` is cut into parts z_1..z_L; every head comes once for every set of latents that it may see. Sets
are the integers 0 .. 2^L - 1, bit l for latent l. A law holds x_t and the revealed latents; laws of mixtures add.

    p^(tau_1..tau_L): prior -> at step t = T..1 reveal every l with tau_l = t, the first listed first -> p(.|x_t, z_S)
    reveal-ancestral: the same, deciding at each step who is revealed, given when the earlier ones were        (D13)
    naive: all of z drawn at x_T up front, then the p~ chain; biased unless everything is revealed throughout  (D13)
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from reed_core.bound.many import many_bound_terms
from reed_core.bound.solvable.model import SolvableModel
from reed_core.bound.terms import BoundTerms
from reed_core.bound.tuples import all_tuples, set_weights


@dataclass(frozen=True)
class SetHeads:
    """Heads for every set of latents. Each takes all of z and looks at its own set only: head(x, z, first).

    Attributes:
        prior: p(x_T), a kernel without batch.
        denoising: p(x_{t-1} | x_t, z_S), at index S.
        alignment: p(z_l | x_t, z_R), at index [l][R]; None where l is in R.
    """

    prior: Any
    denoising: tuple[Any, ...]
    alignment: tuple[tuple[Any, ...], ...]


@runtime_checkable
class SeveralModel(Protocol):
    """A solvable model whose z has parts.

    Attributes:
        base: The same model with z in one piece.
        exact: The exact heads.
        latents: L.
    """

    base: SolvableModel
    exact: SetHeads
    latents: int

    def perturbed(self, generator: torch.Generator) -> SetHeads:
        """Heads that agree neither with the process nor with each other."""
        ...

    def part(self, z: Tensor, latent: int) -> Tensor:
        """The part z_l of z, as the alignment head of l scores it."""
        ...

    def prior_law(self, heads: SetHeads) -> Tensor:
        """The law of p(x_T), nothing revealed."""
        ...

    def step_law(self, law: Tensor, head: Any, t: int) -> Tensor:
        """One reverse step of a law, by the head that sees what the law holds."""
        ...

    def reveal_law(self, law: Tensor, head: Any, latent: int, t: int) -> Tensor:
        """The law with z_l drawn beside x_t."""
        ...

    def whole_law(self, law: Tensor) -> Tensor:
        """A law that holds every latent, as `base` writes it."""
        ...

    def hybrid_head(self, heads: SetHeads, weights: Float[Tensor, "T S"]) -> Any:
        """The head p~ of steps 1..T, which sees all of z."""
        ...


def members(revealed: int) -> list[int]:
    """The latents of a set, in order."""
    return [latent for latent in range(revealed.bit_length()) if revealed >> latent & 1]


def exact_many_bound(
    model: SeveralModel, heads: SetHeads, x_0: Shaped[Tensor, "..."], z: Shaped[Tensor, "..."], table: Tensor
) -> BoundTerms:
    """The terms of L_VB^z of several latents for one (x_0, z), their expectations over x_t exact.

    Args:
        model: The forward process.
        heads: The heads to be scored.
        x_0: One clean sample.
        z: Its latents, in one piece.
        table: P(tau_1 .. tau_L) on the grid.
    """
    nodes = model.base.nodes(x_0)
    late, count = nodes.x[:, 1:], nodes.weight.shape[0]
    zero = torch.zeros_like(nodes.weight)
    alignment = [
        torch.stack([zero if head is None else -head(nodes.x, z).log_prob(model.part(z, latent)) for head in row], -1)
        for latent, row in enumerate(heads.alignment)
    ]
    terms = many_bound_terms(
        prior=model.base.noised(x_0).kl(heads.prior).expand(count),
        reconstruction=-heads.denoising[-1](nodes.x[:, :1], z).log_prob(x_0)[:, 0],
        posterior=model.base.posterior(late, x_0),
        kernels=[head(late, z, first=2) for head in heads.denoising],
        alignment=torch.stack(alignment, 1),
        table=table,
    )
    return BoundTerms(
        prior=terms.prior.mean(0),
        reconstruction=(nodes.weight[:, 0] * terms.reconstruction).sum(0),
        denoising=(nodes.weight * terms.denoising).sum(0),
        alignment=(nodes.weight * terms.alignment).sum(0),
        log_normaliser=(nodes.weight * terms.log_normaliser).sum(0),
    )


def laws_by_tuple(model: SeveralModel, heads: SetHeads) -> Float[Tensor, "N ..."]:
    """The law p^(tau_1..tau_L)(x_0, z) of every tuple in the order of a flattened table, each run on its own."""
    laws = []
    for times in all_tuples(model.latents, model.base.steps).tolist():
        law, revealed = model.prior_law(heads), 0
        for t in range(model.base.steps, 0, -1):
            for latent in range(model.latents):
                if times[latent] == t:
                    law = model.reveal_law(law, heads.alignment[latent][revealed], latent, t)
                    revealed |= 1 << latent
            law = model.step_law(law, heads.denoising[revealed], t)
        laws.append(model.whole_law(law))
    return torch.stack(laws)


def many_reveal_ancestral_law(model: SeveralModel, heads: SetHeads, table: Float[Tensor, "..."]) -> Tensor:
    """The law of (x_0, z) drawn by the reveal-ancestral sampler, decided step by step (THEORY D13).

    A branch is what a run knows of itself: when its revealed latents were revealed, 0 for those still hidden.
    """

    def chance(branch: tuple[int, ...], latest: int) -> Tensor:
        """Of the latents revealed when the branch says, and the hidden ones at `latest` or below."""
        return table[tuple(slice(time - 1, time) if time else slice(0, latest) for time in branch)].sum()

    branches = {(0,) * model.latents: model.prior_law(heads)}
    for t in range(model.base.steps, 0, -1):
        after = {}
        for branch, law in branches.items():
            hidden = [latent for latent, time in enumerate(branch) if not time]
            for size in range(len(hidden) + 1):
                for new in combinations(hidden, size):
                    longer = tuple(t if latent in new else time for latent, time in enumerate(branch))
                    share = chance(longer, t - 1)
                    if share > 0:
                        grown = share / chance(branch, t) * law
                        after[longer] = _revealed(model, heads, grown, branch, new, t)
        branches = after
    return model.whole_law(torch.stack(list(branches.values())).sum(0))


def many_naive_law(model: SeveralModel, heads: SetHeads, table: Float[Tensor, "..."]) -> Tensor:
    """The law of (x_0, z) when all of z is drawn at x_T and the p~ chain is run down to 0 (THEORY D13)."""
    law, steps = model.prior_law(heads), model.base.steps
    for latent in range(model.latents):
        law = model.reveal_law(law, heads.alignment[latent][(1 << latent) - 1], latent, steps)
    hybrid = model.hybrid_head(heads, set_weights(table))
    for t in range(steps, 0, -1):
        law = model.step_law(law, hybrid, t)
    return model.whole_law(law)


def _revealed(
    model: SeveralModel, heads: SetHeads, law: Tensor, branch: tuple[int, ...], new: tuple[int, ...], t: int
) -> Tensor:
    """Reveals the new latents at t, in order, and takes the step to t - 1."""
    revealed = sum(1 << latent for latent, time in enumerate(branch) if time)
    for latent in new:
        law = model.reveal_law(law, heads.alignment[latent][revealed], latent, t)
        revealed |= 1 << latent
    return model.step_law(law, heads.denoising[revealed], t)
