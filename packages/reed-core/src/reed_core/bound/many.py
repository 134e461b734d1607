"""The bound of several latents on a grid of steps (THEORY section 2): a kernel for every revealed set, their hybrid.

    p~(x_{t-1} | x_t, z) = prod_S p(x_{t-1} | x_t, z_S)^{w_t(S)} / Z_t,     w_t(S) = P(revealed set at t is S)
    L_VB^z = KL(q(x_T|x_0) || p(x_T)) + sum_{t>=2} E KL(q(x_{t-1}|x_t,x_0) || p~_t) - E log p(x_0|x_1,z)
             - sum_l sum_t sum_R v^l_t(R) E log p(z_l|x_t,z_R) - sum_{t>=2} E log Z_t

with v^l_t(R) the chance that z_l is drawn at t knowing z_R (`reed_core.bound.tuples`). Z is not needed here either:

    KL(q||p~) - log Z = sum_S w_t(S) KL(q || p_S)                               (THEORY D14, for any weights)

so that showing each latent where its drawn tau_l >= t, and averaging, is unbiased for the bound. p~ is the geometric
mean of the kernels; it follows from hybrids of two, folded in one kernel at a time: with W_k = w_1 + .. + w_k,

    prod_{i<=k} p_i^{w_i/W_k} = G_k Z_k,     G_{k+1} = hybrid(G_k, p_{k+1}; w_{k+1}/W_{k+1}) with normaliser z,
    log Z_{k+1} = W_k/W_{k+1} log Z_k + log z

Sets are the integers 0 .. 2^L - 1, on the last axis of weights, bit l for latent l.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reed_core.bound.hybrid import leading, power
from reed_core.bound.kernels import HybridKernel, K
from reed_core.bound.terms import BoundTerms
from reed_core.bound.tuples import draw_weights, set_weights
from reed_core.errors import InputError


def geometric_mean(kernels: Sequence[K], weights: Float[Tensor, "*w S"]) -> "HybridKernel[K]":
    """prod_S p_S^{w(S)} / Z, the hybrid of any number of kernels of one family; p^0 = 1.

    Args:
        kernels: p_S, one or more, of one batch shape.
        weights: w(S), non-negative, summing to 1 over the last axis; the others align with the first batch axes.

    Raises:
        InputError: If the number of kernels is not that of the weights.
    """
    if len(kernels) != weights.shape[-1] or not kernels:
        raise InputError(f"got {len(kernels)} kernels and {weights.shape[-1]} weights; give one weight for each kernel")
    total = weights.cumsum(-1)

    def fold(so_far: "HybridKernel[K]", index: int) -> "HybridKernel[K]":
        below, here = total[..., index - 1], total[..., index]
        kept = torch.where(below > 0, below / here.clamp(min=torch.finfo(here.dtype).tiny), torch.zeros_like(here))
        step = so_far.kernel.hybrid(kernels[index], 1.0 - kept)
        log_z = power(so_far.log_normaliser, leading(kept, so_far.log_normaliser)) + step.log_normaliser
        return HybridKernel(step.kernel, log_z)

    first = HybridKernel(kernels[0], torch.zeros_like(kernels[0].kl(kernels[0])))
    return reduce(fold, range(1, len(kernels)), first)


def denoising_by_set(posterior: K, kernels: Sequence[K]) -> Float[Tensor, "*b S"]:
    """KL(q || p_S) for every set: what training with the set S shown would cost.

    Args:
        posterior: q(x_{t-1} | x_t, x_0).
        kernels: p(x_{t-1} | x_t, z_S) for every set S.
    """
    return torch.stack([posterior.kl(kernel) for kernel in kernels], -1)


def expected_denoising_of_sets(
    posterior: K, kernels: Sequence[K], weights: Float[Tensor, "*w S"]
) -> Float[Tensor, "*b"]:
    """sum_S w(S) KL(q||p_S), equal to KL(q||p~) - log Z (THEORY D14).

    Args:
        posterior: q(x_{t-1} | x_t, x_0).
        kernels: p(x_{t-1} | x_t, z_S) for every set S.
        weights: w(S); its axes but the last align with the first batch axes.
    """
    costs = denoising_by_set(posterior, kernels)
    aligned = weights.reshape(weights.shape[:-1] + (1,) * (costs.ndim - weights.ndim) + weights.shape[-1:])
    return power(costs, aligned).sum(-1)


def many_bound_terms(
    *,
    prior: Float[Tensor, "*b"],
    reconstruction: Float[Tensor, "*b"],
    posterior: K,
    kernels: Sequence[K],
    alignment: Float[Tensor, "*b L T S"],
    table: Float[Tensor, "..."],
) -> BoundTerms:
    """Every term of L_VB^z of L latents at given x_1..x_T; the alignment term of a step is summed over latents.

    Args:
        prior: KL(q(x_T|x_0) || p(x_T)).
        reconstruction: -log p(x_0 | x_1, z), all latents shown.
        posterior: q(x_{t-1} | x_t, x_0) for t = 2..T, batch [*b, T-1].
        kernels: p(x_{t-1} | x_t, z_S) of every set S for t = 2..T, the same batch.
        alignment: -log p(z_l | x_t, z_R) for t = 1..T and every set R; anything where l is in R.
        table: P(tau_1 .. tau_L), L axes of T steps, summing to 1.

    Raises:
        InputError: If the table is no distribution.
    """
    weights = set_weights(table)[1:]
    batch = alignment.ndim - 3
    hybrid = geometric_mean(kernels, weights.reshape((1,) * batch + weights.shape))
    return BoundTerms(
        prior=prior,
        reconstruction=reconstruction,
        denoising=F.pad(posterior.kl(hybrid.kernel), (1, 0)),
        alignment=power(alignment, draw_weights(table)).sum((-3, -1)),
        log_normaliser=F.pad(hybrid.log_normaliser, (1, 0)),
    )
