"""What a solvable model offers, and the exact computations that need no more than that.

A *law* is a tensor that holds a (possibly unnormalised) joint distribution of x_t, or of (x_t, z): a table of
probabilities, or raw moments. Laws of mixtures add, so the distribution over the reveal time tau propagates exactly.

    p^(tau): prior -> p_u ... p_u -> reveal z at x_tau -> p_c ... p_c                         (THEORY section 1)
    reveal-ancestral: at step t an unrevealed chain reveals with probability alpha_t / (1 - A_{t+1})          (D13)
    naive: z drawn from p(z|x_T) up front, then the p~ chain; biased unless A = 1                              (D13)
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from reed_core.bound.terms import BoundTerms, bound_terms
from reed_core.reveal import survival_on_grid


@runtime_checkable
class Head(Protocol):
    """A kernel for every step, as a function of its conditions."""

    def __call__(self, x: Shaped[Tensor, "m n ..."], z: Shaped[Tensor, "..."] | None = None, first: int = 1) -> Any:
        """The kernels of steps first, first + 1, ... at x (one step per second axis), batch [m, n]."""
        ...


@dataclass(frozen=True)
class Heads:
    """The three heads of THEORY section 1, and the prior.

    Attributes:
        prior: p(x_T), a kernel without batch.
        unconditional: p_u(x_{t-1} | x_t).
        conditional: p_c(x_{t-1} | x_t, z).
        alignment: p(z | x_t).
    """

    prior: Any
    unconditional: Any
    conditional: Any
    alignment: Any


@dataclass(frozen=True)
class Nodes:
    """Points whose weighted sum is an exact expectation, for each step t = 1..T.

    Attributes:
        x: Values of x_t, [m, T] or [m, T, d].
        weight: [m, T], summing to 1 over m.
        z: Values of z beside them, or None.
    """

    x: Shaped[Tensor, "m T ..."]
    weight: Float[Tensor, "m T"]
    z: Shaped[Tensor, "m T ..."] | None = None


@dataclass(frozen=True)
class Paths:
    """Draws of everything: x is [p, T + 1] or [p, T + 1, d] for t = 0..T, z is [p] or [p, k]."""

    x: Shaped[Tensor, "p T1 ..."]
    z: Shaped[Tensor, "p ..."]


@dataclass(frozen=True)
class Information:
    """What z still holds, in nats.

    Attributes:
        entropy_clean: H(z | x_0).
        entropy: H(z | x_t) for t = 1..T.
        gain: I(x_{t-1}; z | x_t) for t = 1..T.
    """

    entropy_clean: Float[Tensor, ""]
    entropy: Float[Tensor, "T"]
    gain: Float[Tensor, "T"]


@runtime_checkable
class SolvableModel(Protocol):
    """A forward process with a latent, all of whose distributions are known."""

    steps: int
    exact: Heads

    def perturbed(self, generator: torch.Generator) -> Heads:
        """Heads that agree neither with the process nor with each other."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Paths:
        """Draws from q(x_{0:T}, z)."""
        ...

    def log_forward(self, paths: Paths) -> Float[Tensor, "p"]:
        """Log-density q(x_{0:T}, z), by the forward factorisation."""
        ...

    def log_data(self, x_0: Shaped[Tensor, "p ..."], z: Shaped[Tensor, "p ..."]) -> Float[Tensor, "p"]:
        """Log-density q(x_0, z)."""
        ...

    def nodes(self, x_0: Shaped[Tensor, "..."]) -> Nodes:
        """Expectations over q(x_t | x_0), exact for what the bound is made of."""
        ...

    def joint_nodes(self) -> Nodes:
        """Expectations over q(x_t, z), exact for what the KL bound is made of."""
        ...

    def noised(self, x_0: Shaped[Tensor, "..."]) -> Any:
        """The kernel q(x_T | x_0), without batch."""
        ...

    def posterior(self, x: Shaped[Tensor, "m T2 ..."], x_0: Shaped[Tensor, "..."]) -> Any:
        """The kernels q(x_{t-1} | x_t, x_0) of steps t = 2..T."""
        ...

    def marginal(self) -> Any:
        """The kernel q(x_T), without batch."""
        ...

    def information(self) -> Information:
        """Entropies, each from the joint distribution that defines it."""
        ...

    def data_law(self) -> Tensor:
        """The law of q(x_0, z)."""
        ...

    def prior_law(self, heads: Heads) -> Tensor:
        """The law of p(x_T)."""
        ...

    def step_law(self, law: Tensor, head: Any, t: int) -> Tensor:
        """One reverse step of a law of x_t, or of (x_t, z) when the head is conditional."""
        ...

    def reveal_law(self, law: Tensor, head: Any, t: int) -> Tensor:
        """From a law of x_t to one of (x_t, z)."""
        ...

    def as_kernel(self, law: Tensor) -> Any:
        """The normalised distribution of a law, as a kernel over `outcome`s."""
        ...

    def outcome(self, x: Tensor, z: Tensor) -> Tensor:
        """A pair (x, z) as the kernel of a law expects it."""
        ...

    def hybrid_head(self, heads: Heads, A: Float[Tensor, "T"]) -> Any:
        """The head p~ of steps 1..T with survival A_t."""
        ...


def exact_bound(model: SolvableModel, heads: Heads, x_0: Tensor, z: Tensor, alpha: Float[Tensor, "T"]) -> BoundTerms:
    """The terms of L_VB^z for one (x_0, z), their expectations over x_t exact.

    Args:
        model: The forward process.
        heads: The heads to be scored.
        x_0: One clean sample.
        z: Its latent.
        alpha: Reveal density on the grid.
    """
    nodes = model.nodes(x_0)
    count = nodes.weight.shape[0]
    terms = bound_terms(
        prior=model.noised(x_0).kl(heads.prior).expand(count),
        reconstruction=-heads.conditional(nodes.x[:, :1], z).log_prob(x_0)[:, 0],
        posterior=model.posterior(nodes.x[:, 1:], x_0),
        unconditional=heads.unconditional(nodes.x[:, 1:], first=2),
        conditional=heads.conditional(nodes.x[:, 1:], z, first=2),
        alignment=-heads.alignment(nodes.x).log_prob(z),
        alpha=alpha,
    )
    return BoundTerms(
        prior=terms.prior.mean(0),
        reconstruction=(nodes.weight[:, 0] * terms.reconstruction).sum(0),
        denoising=(nodes.weight * terms.denoising).sum(0),
        alignment=(nodes.weight * terms.alignment).sum(0),
        log_normaliser=(nodes.weight * terms.log_normaliser).sum(0),
    )


def laws_by_reveal(model: SolvableModel, heads: Heads) -> list[Tensor]:
    """The law p^(tau)(x_0, z) for tau = 1..T, each run on its own."""
    laws = []
    unrevealed = model.prior_law(heads)
    for tau in range(model.steps, 0, -1):
        law = model.reveal_law(unrevealed, heads.alignment, tau)
        for t in range(tau, 0, -1):
            law = model.step_law(law, heads.conditional, t)
        laws.append(law)
        unrevealed = model.step_law(unrevealed, heads.unconditional, tau)
    return laws[::-1]


def reveal_ancestral_law(model: SolvableModel, heads: Heads, alpha: Float[Tensor, "T"]) -> Tensor:
    """The law of (x_0, z) drawn by the reveal-ancestral sampler: one pass, tau decided step by step (THEORY D13)."""
    after = torch.cat([survival_on_grid(alpha)[1:], alpha.new_zeros(1)])  # A_{t+1}, the chance to be revealed already
    unrevealed = model.prior_law(heads)
    revealed = torch.zeros_like(model.data_law())
    for t in range(model.steps, 0, -1):
        still_hidden = 1.0 - after[t - 1]
        hazard = alpha[t - 1] / still_hidden if still_hidden > 0 else alpha.new_zeros(())
        revealed = revealed + hazard * model.reveal_law(unrevealed, heads.alignment, t)
        unrevealed = (1.0 - hazard) * unrevealed
        revealed = model.step_law(revealed, heads.conditional, t)
        unrevealed = model.step_law(unrevealed, heads.unconditional, t)
    return revealed


def naive_law(model: SolvableModel, heads: Heads, A: Float[Tensor, "T"]) -> Tensor:
    """The law of (x_0, z) when z is drawn at x_T and the p~ chain is run down to 0 (THEORY D13)."""
    law = model.reveal_law(model.prior_law(heads), heads.alignment, model.steps)
    hybrid = model.hybrid_head(heads, A)
    for t in range(model.steps, 0, -1):
        law = model.step_law(law, hybrid, t)
    return law
