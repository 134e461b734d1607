"""The model with z revealed at step tau: log p^(tau)(x_{0:T}, z) from what its three heads say of a path.

    p^(tau)(x_{0:T}, z) = p(x_T) prod_{i>tau} p_u(x_{i-1}|x_i) . p(z|x_tau) . prod_{i<=tau} p_c(x_{i-1}|x_i, z)

With exact heads every tau gives q(x_{0:T}, z) (THEORY D1). For arbitrary heads the average over tau is, pointwise,

    sum_tau alpha_tau log p^(tau)
        = log p(x_T) + sum_t alpha_t log p(z|x_t) + sum_t [(1-A_t) log p_u + A_t log p_c]      (THEORY D2)
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reed_core.bound.hybrid import power
from reed_core.reveal import survival_on_grid


def log_joint_by_reveal(
    prior: Float[Tensor, "*b"],
    alignment: Float[Tensor, "*b T"],
    unconditional: Float[Tensor, "*b T"],
    conditional: Float[Tensor, "*b T"],
) -> Float[Tensor, "*b T"]:
    """Log-probability p^(tau) of a path, for tau = 1..T (index tau - 1).

    Args:
        prior: log p(x_T).
        alignment: log p(z | x_t) for t = 1..T.
        unconditional: log p_u(x_{t-1} | x_t).
        conditional: log p_c(x_{t-1} | x_t, z).
    """
    from_here = unconditional.flip(-1).cumsum(-1).flip(-1)
    return prior[..., None] + F.pad(from_here[..., 1:], (0, 1)) + alignment + conditional.cumsum(-1)


def expected_log_joint(
    prior: Float[Tensor, "*b"],
    alignment: Float[Tensor, "*b T"],
    unconditional: Float[Tensor, "*b T"],
    conditional: Float[Tensor, "*b T"],
    alpha: Float[Tensor, "T"],
) -> Float[Tensor, "*b"]:
    """sum_tau alpha_tau log p^(tau) of a path, without a sum over tau of sums over t (THEORY D2).

    Args:
        prior: log p(x_T).
        alignment: log p(z | x_t) for t = 1..T.
        unconditional: log p_u(x_{t-1} | x_t).
        conditional: log p_c(x_{t-1} | x_t, z).
        alpha: Reveal density on the grid.
    """
    A = survival_on_grid(alpha)
    steps = power(unconditional, 1.0 - A) + power(conditional, A) + power(alignment, alpha)
    return prior + steps.sum(-1)
