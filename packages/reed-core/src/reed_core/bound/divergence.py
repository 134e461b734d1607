"""Inequalities around the bound, and what the choice of a reveal density costs and saves.

    0 <= 2 min(A,1-A) B <= -log Z <= min{A KL(p_u||p_c), (1-A) KL(p_c||p_u)},  B = -log int sqrt(p_u p_c)  (Prop. 2, D5)

    KL(q||p^alpha) <= KL_T + sum_t alpha_t e_z(t) + sum_t [(1-A_t) e_u(t) + A_t e_c(t)]                          (D7)
    TV(q, p^alpha) <= sqrt(KL / 2)

with e_z, e_u, e_c the expected KLs of the three heads and KL_T that of the prior. The bound is linear in alpha: known
errors are best met by a point mass, unknown ones hedged by spreading alpha.

    sum_t alpha_t H(z|x_t) - H(z|x_0) = sum_t A_t I(x_{t-1}; z|x_t)                                              (D8)

the left being what alignment pays and the right what denoising saves: alpha moves bits, and makes none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.bound.hybrid import leading, power
from reed_core.bound.kernels import K, Weight
from reed_core.reveal import survival_on_grid


@dataclass(frozen=True)
class NormaliserBounds:
    """Bounds on -log Z, in nats.

    Attributes:
        lower: 2 min(A, 1-A) B >= 0.
        upper: min{A KL(p_u||p_c), (1-A) KL(p_c||p_u)}.
    """

    lower: Float[Tensor, "*b"]
    upper: Float[Tensor, "*b"]


def normaliser_bounds(unconditional: K, conditional: K, A: Weight) -> NormaliserBounds:
    """Bounds on the -log Z of a hybrid without computing it (Prop. 2, THEORY D5).

    Args:
        unconditional: p_u.
        conditional: p_c.
        A: Survival A_t in [0, 1], a number or a tensor aligned with the first batch axes.
    """
    forward, backward = unconditional.kl(conditional), conditional.kl(unconditional)
    weight = leading(A, forward)
    return NormaliserBounds(
        lower=power(unconditional.bhattacharyya(conditional), 2.0 * torch.minimum(weight, 1.0 - weight)),
        upper=torch.minimum(power(forward, weight), power(backward, 1.0 - weight)),
    )


def kl_bound(
    prior: Float[Tensor, "*b"],
    alignment: Float[Tensor, "*b T"],
    unconditional: Float[Tensor, "*b T"],
    conditional: Float[Tensor, "*b T"],
    alpha: Float[Tensor, "T"],
) -> Float[Tensor, "*b"]:
    """An upper bound on KL(q(x_0, z) || p^alpha(x_0, z)), from the errors of the heads (THEORY D7).

    Args:
        prior: KL(q(x_T) || p(x_T)).
        alignment: e_z(t) = E KL(q(z|x_t) || p(z|x_t)) for t = 1..T.
        unconditional: e_u(t) = E KL(q(x_{t-1}|x_t) || p_u).
        conditional: e_c(t) = E KL(q(x_{t-1}|x_t, z) || p_c).
        alpha: Reveal density on the grid.
    """
    A = survival_on_grid(alpha)
    return prior + (power(alignment, alpha) + power(unconditional, 1.0 - A) + power(conditional, A)).sum(-1)


def tv_bound(kl: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """An upper bound on the total variation, sqrt(KL / 2) (Pinsker), from the KL or a bound on it (THEORY D7)."""
    return (0.5 * kl).sqrt()


def reveal_cost(
    entropy: Float[Tensor, "*b T"], entropy_clean: Float[Tensor, "*b"], alpha: Float[Tensor, "T"]
) -> Float[Tensor, "*b"]:
    """What alignment pays for revealing z before it can be read off x_0: sum_t alpha_t H(z|x_t) - H(z|x_0) (THEORY D8).

    Args:
        entropy: H(z|x_t) for t = 1..T.
        entropy_clean: H(z|x_0).
        alpha: Reveal density on the grid.
    """
    return (alpha * entropy).sum(-1) - entropy_clean


def reveal_saving(information: Float[Tensor, "*b T"], alpha: Float[Tensor, "T"]) -> Float[Tensor, "*b"]:
    """What denoising saves by seeing z: sum_t A_t I(x_{t-1}; z|x_t), equal to `reveal_cost` (THEORY D8).

    Args:
        information: I(x_{t-1}; z | x_t) for t = 1..T.
        alpha: Reveal density on the grid.
    """
    return (survival_on_grid(alpha) * information).sum(-1)
