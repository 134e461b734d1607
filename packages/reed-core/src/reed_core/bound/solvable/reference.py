"""Slow, obvious truths about kernels, by routes that share no formula with `reed_core.bound.kernels`.

Densities and KLs come from `torch.distributions`; log Z from canonical parameters, or a sum over states; scores from
autograd; log p^(tau) from its product, factor by factor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, kl_divergence
from torch.nn import functional as F

from reed_core.bound.kernels import CategoricalKernel
from reed_core.bound.solvable.gaussian import GaussianModel
from reed_core.bound.solvable.model import Heads, Paths, SolvableModel


def log_prob(kernel: Any, x: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Log-density of a kernel at x."""
    if isinstance(kernel, CategoricalKernel):
        return Categorical(logits=kernel.log_probs).log_prob(x)
    centred = MultivariateNormal(kernel.mean.new_zeros(x.shape[-1]), kernel.covariance, validate_args=False)
    return centred.log_prob(x - kernel.mean)


def kl(left: Any, right: Any) -> Float[Tensor, "..."]:
    """KL(left || right) of two kernels of one family."""
    if isinstance(left, CategoricalKernel):
        return kl_divergence(Categorical(logits=left.log_probs), Categorical(logits=right.log_probs))
    pair = (MultivariateNormal(kernel.mean, kernel.covariance, validate_args=False) for kernel in (left, right))
    return kl_divergence(*pair)


def log_normaliser(left: Any, right: Any, A: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The logarithm of int left^{1-A} right^A."""
    return log_product_mass([left, right], torch.stack([1 - A, A], -1))


def log_product_mass(kernels: Sequence[Any], weights: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
    """The logarithm of int prod_S p_S^{w(S)}, for weights that sum to 1.

    With precisions P and fields P mu of each kernel, weighted and added: log int exp(-x'Px/2 + x'h) = (h'P^-1 h -
    log|P / 2 pi|) / 2, less the constants of the kernels.
    """
    parts = weights.unbind(-1)
    if isinstance(kernels[0], CategoricalKernel):
        powers = [kernel.log_probs.exp() ** w[..., None] for w, kernel in zip(parts, kernels, strict=True)]
        return torch.stack(torch.broadcast_tensors(*powers)).prod(0).sum(-1).log()
    zero = weights.new_zeros(())
    precision, field, constant = zero, zero, zero
    for weight, kernel in zip(parts, kernels, strict=True):
        inverse = torch.linalg.inv(kernel.covariance)
        pulled = (inverse @ kernel.mean[..., None])[..., 0]
        precision = precision + weight[..., None, None] * inverse
        field = field + weight[..., None] * pulled
        constant = constant + weight * ((kernel.mean * pulled).sum(-1) + torch.logdet(2 * math.pi * kernel.covariance))
    quadratic = (field * torch.linalg.solve(precision, field[..., None])[..., 0]).sum(-1)
    return 0.5 * (quadratic - torch.logdet(precision / (2 * math.pi)) - constant)


def gradient(function: Callable[[Tensor], Tensor], x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """The gradient of a function of each point alone."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def head_log_probs(
    heads: Heads, paths: Paths, log_prob: Callable[[Any, Tensor], Tensor] = log_prob
) -> dict[str, Tensor]:
    """What each head says of each step of each path: "prior" [p], "alignment", "unconditional", "conditional" [p, T].

    Args:
        heads: The heads.
        paths: The paths.
        log_prob: Log-density of a kernel at a point; the reference unless told otherwise.
    """
    past, now = paths.x[:, :-1], paths.x[:, 1:]
    z = paths.z[:, None].expand(-1, now.shape[1], *paths.z.shape[1:])
    return {
        "prior": log_prob(heads.prior, paths.x[:, -1]),
        "alignment": log_prob(heads.alignment(now), z),
        "unconditional": log_prob(heads.unconditional(now), past),
        "conditional": log_prob(heads.conditional(now, z), past),
    }


def log_joints(heads: Heads, paths: Paths) -> Float[Tensor, "p T"]:
    """Log-density p^(tau) of each path, for tau = 1..T."""
    said = head_log_probs(heads, paths)
    steps = range(paths.x.shape[1] - 1)
    joints = []
    for tau in steps:
        joint = said["prior"] + said["alignment"][:, tau]
        for t in steps:
            joint = joint + said["conditional" if t <= tau else "unconditional"][:, t]
        joints.append(joint)
    return torch.stack(joints, 1)


@dataclass(frozen=True)
class HeadCosts:
    """What each head would cost in the bound of one (x_0, z), averaged over x_t ~ q(x_t | x_0), in nats.

    Attributes:
        ends: KL(q(x_T|x_0) || p(x_T)) - E log p_c(x_0|x_1,z).
        unconditional: E KL(q(x_{t-1}|x_t,x_0) || p_u); 0 at t = 1.
        conditional: E KL(q(x_{t-1}|x_t,x_0) || p_c); 0 at t = 1.
        alignment: -E log p(z|x_t).
    """

    ends: Float[Tensor, ""]
    unconditional: Float[Tensor, "T"]
    conditional: Float[Tensor, "T"]
    alignment: Float[Tensor, "T"]


def head_costs(model: SolvableModel, heads: Heads, x_0: Shaped[Tensor, "..."], z: Shaped[Tensor, "..."]) -> HeadCosts:
    """The costs of every head, from which L_VB^z is a weighted sum for any alpha (THEORY D14)."""
    nodes = model.nodes(x_0)
    late, weight = nodes.x[:, 1:], nodes.weight[:, 1:]
    posterior = model.posterior(late, x_0)
    first = log_prob(heads.conditional(nodes.x[:, :1], z), x_0)
    return HeadCosts(
        ends=kl(model.noised(x_0), heads.prior) - (nodes.weight[:, :1] * first).sum(),
        unconditional=F.pad((weight * kl(posterior, heads.unconditional(late, first=2))).sum(0), (1, 0)),
        conditional=F.pad((weight * kl(posterior, heads.conditional(late, z, first=2))).sum(0), (1, 0)),
        alignment=-(nodes.weight * log_prob(heads.alignment(nodes.x), z)).sum(0),
    )


def head_errors(model: SolvableModel, heads: Heads) -> dict[str, Tensor]:
    """The expected KL from each exact head to the given one: "prior" [] and the three heads [T] (THEORY D7)."""
    nodes, exact = model.joint_nodes(), model.exact
    pairs = {
        "alignment": (exact.alignment(nodes.x), heads.alignment(nodes.x)),
        "unconditional": (exact.unconditional(nodes.x), heads.unconditional(nodes.x)),
        "conditional": (exact.conditional(nodes.x, nodes.z), heads.conditional(nodes.x, nodes.z)),
    }
    errors = {name: (nodes.weight * kl(true, given)).sum(0) for name, (true, given) in pairs.items()}
    return {"prior": kl(model.marginal(), heads.prior), **errors}


def path_kl(model: GaussianModel, heads: Heads) -> Float[Tensor, "T"]:
    """KL(q(x_{0:T}, z) || p^(tau)(x_{0:T}, z)) for tau = 1..T, path by path: what THEORY D7 bounds its left side by."""
    return torch.cat(
        [model.log_forward(paths)[:, None] - log_joints(heads, paths) for paths in model.path_nodes()]
    ).mean(0)
