"""The terms of the bound L_VB^z on a grid of steps, and its estimator that never needs Z, for one latent (THEORY 1).

    L_VB^z = KL(q(x_T|x_0) || p(x_T)) + sum_{t>=2} E KL(q(x_{t-1}|x_t,x_0) || p~_t) - E log p_c(x_0|x_1,z)
             - sum_t alpha_t E log p(z|x_t) - sum_{t>=2} E log Z_t                              (Prop. 1)
    p~_t = p_u^{1-A_t} p_c^{A_t} / Z_t,   A_t = sum_{i>=t} alpha_i,   A_1 = 1

    KL(q||p~) - log Z = (1-A) KL(q||p_u) + A KL(q||p_c)                                          (THEORY D14)

The right-hand side is the ordinary denoising loss with z kept with probability A_t and hidden otherwise: one draw of
`draw_kept` and `kept_denoising` is an unbiased estimate of it. In squared errors the same split reads

    (1-A)|e - e_u|^2 + A|e - e_c|^2 = |e - ((1-A) e_u + A e_c)|^2 + A(1-A)|e_u - e_c|^2

E is over x_t ~ q(x_t|x_0): functions here take one x_t per step, or many along the batch axes, to be averaged.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from reed_core.bound.hybrid import leading, mix_predictions, power
from reed_core.bound.kernels import K, Weight
from reed_core.reveal import survival_on_grid


@dataclass(frozen=True)
class BoundTerms:
    """The terms of Prop. 1, in nats, each added to the total but the last, which is subtracted.

    Attributes:
        prior: KL(q(x_T|x_0) || p(x_T)).
        reconstruction: -log p_c(x_0 | x_1, z), the denoising term of t = 1.
        denoising: KL(q(x_{t-1}|x_t,x_0) || p~_t); 0 at t = 1.
        alignment: -alpha_t log p(z|x_t).
        log_normaliser: log Z_t; 0 at t = 1.
    """

    prior: Float[Tensor, "*b"]
    reconstruction: Float[Tensor, "*b"]
    denoising: Float[Tensor, "*b T"]
    alignment: Float[Tensor, "*b T"]
    log_normaliser: Float[Tensor, "*b T"]

    @property
    def total(self) -> Float[Tensor, "*b"]:
        """L_VB^z, or a sample of it."""
        return self.prior + self.reconstruction + (self.denoising + self.alignment - self.log_normaliser).sum(-1)


@dataclass(frozen=True)
class SquaredErrorSplit:
    """The two sides of THEORY D14 in squared errors: `kept` = `mixed` + `disagreement`.

    Attributes:
        kept: (1-A)|e-e_u|^2 + A|e-e_c|^2: what training with z kept with probability A minimises.
        mixed: |e - ((1-A) e_u + A e_c)|^2: the error of the prediction that samplers use.
        disagreement: A(1-A)|e_u-e_c|^2, the -log Z of equal-variance Gaussians in units of 2 sigma^2.
    """

    kept: Float[Tensor, "*b"]
    mixed: Float[Tensor, "*b"]
    disagreement: Float[Tensor, "*b"]


def bound_terms(
    *,
    prior: Float[Tensor, "*b"],
    reconstruction: Float[Tensor, "*b"],
    posterior: K,
    unconditional: K,
    conditional: K,
    alignment: Float[Tensor, "*b T"],
    alpha: Float[Tensor, "T"],
) -> BoundTerms:
    """Every term of L_VB^z at given x_1..x_T (Prop. 1).

    Args:
        prior: KL(q(x_T|x_0) || p(x_T)).
        reconstruction: -log p_c(x_0 | x_1, z).
        posterior: q(x_{t-1} | x_t, x_0) for t = 2..T, batch [*b, T-1].
        unconditional: p_u(x_{t-1} | x_t) for t = 2..T, the same batch.
        conditional: p_c(x_{t-1} | x_t, z) for t = 2..T, the same batch.
        alignment: -log p(z | x_t) for t = 1..T.
        alpha: Reveal density on the grid, summing to 1.

    Raises:
        InputError: If alpha is no probability vector.
    """
    A = survival_on_grid(alpha)[1:].reshape((1,) * (alignment.ndim - 1) + (-1,))
    hybrid = unconditional.hybrid(conditional, A)
    return BoundTerms(
        prior=prior,
        reconstruction=reconstruction,
        denoising=F.pad(posterior.kl(hybrid.kernel), (1, 0)),
        alignment=power(alignment, alpha),
        log_normaliser=F.pad(hybrid.log_normaliser, (1, 0)),
    )


def expected_denoising(posterior: K, unconditional: K, conditional: K, A: Weight) -> Float[Tensor, "*b"]:
    """(1-A) KL(q||p_u) + A KL(q||p_c), equal to KL(q||p~) - log Z (THEORY D14).

    Args:
        posterior: q(x_{t-1} | x_t, x_0).
        unconditional: p_u(x_{t-1} | x_t).
        conditional: p_c(x_{t-1} | x_t, z).
        A: Survival A_t, a number or a tensor aligned with the first batch axes.
    """
    without, given = posterior.kl(unconditional), posterior.kl(conditional)
    weight = leading(A, without)
    return power(without, 1.0 - weight) + power(given, weight)


def draw_kept(A: Float[Tensor, "*b"], generator: torch.Generator | None = None) -> Bool[Tensor, "*b"]:
    """True where z is shown, with probability A.

    Args:
        A: Survival at each sample's time.
        generator: Source of randomness, on the device of A; None uses torch's global one.
    """
    return torch.rand(A.shape, generator=generator, dtype=A.dtype, device=A.device) < A


def kept_denoising(posterior: K, unconditional: K, conditional: K, kept: Bool[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """KL(q||p_c) where z is kept, KL(q||p_u) elsewhere: with `draw_kept`, unbiased for `expected_denoising`.

    Args:
        posterior: q(x_{t-1} | x_t, x_0).
        unconditional: p_u(x_{t-1} | x_t).
        conditional: p_c(x_{t-1} | x_t, z).
        kept: True where z is shown.
    """
    return torch.where(kept, posterior.kl(conditional), posterior.kl(unconditional))


def split_squared_error(
    target: Float[Tensor, "*b d"],
    unconditional: Float[Tensor, "*b d"],
    conditional: Float[Tensor, "*b d"],
    A: Weight,
) -> SquaredErrorSplit:
    """The squared errors of D14, for eps-, v- or x_0-prediction.

    Args:
        target: e.
        unconditional: e_u.
        conditional: e_c.
        A: Survival A_t, a number or a tensor aligned with the first axes.
    """
    weight = leading(A, target[..., 0])
    without = (target - unconditional).square().sum(-1)
    given = (target - conditional).square().sum(-1)
    mixed = (target - mix_predictions(unconditional, conditional, A)).square().sum(-1)
    disagreement = weight * (1.0 - weight) * (unconditional - conditional).square().sum(-1)
    return SquaredErrorSplit((1.0 - weight) * without + weight * given, mixed, disagreement)
