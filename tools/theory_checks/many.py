"""D9, and D3 to D6, D13, D14 for several latents, under independent, nested and a user's reveal times."""

from collections.abc import Iterator

import torch
from reed_core.bound.hybrid import mix_many
from reed_core.bound.many import expected_denoising_of_sets, geometric_mean
from reed_core.bound.solvable import reference
from reed_core.bound.solvable.several import exact_many_bound, many_naive_law, many_reveal_ancestral_law
from reed_core.bound.solvable.several_reference import by_tuple, path_values, set_costs
from reed_core.bound.tuples import (
    draw_weights,
    expected_log_joint_of_tuples,
    log_joint_by_tuple,
    marginals,
    set_weights,
)
from reed_core.coupling import Independent, Nested, subsets
from torch import Tensor

from theory_checks.check import PRESENT, Check, deviation, excess, ours, tails
from theory_checks.setting_many import ManySetting


def check_tuples(s: ManySetting) -> Iterator[Check]:
    """D9: every tuple is a valid factorisation; the mean over tuples needs w and v alone."""
    model, paths = s.model, s.model.base.sample(5, s.generator)
    exact, wrong = (path_values(model, heads, paths, ours) for heads in (model.exact, s.wrong))
    truth, data = by_tuple(path_values(model, s.wrong, paths)), model.base.log_forward(paths)
    found = log_joint_by_tuple(exact.ends, *exact.stacked())
    yield Check("D9", "log p^(tau) = log q on paths, every tuple", deviation(found, data[:, None]))
    found = log_joint_by_tuple(wrong.ends, *wrong.stacked())
    yield Check("D9", "log p^(tau) on paths, inconsistent heads", deviation(found, truth.mT))
    means = [
        deviation(expected_log_joint_of_tuples(wrong.ends, *wrong.stacked(), table), table.flatten() @ truth)
        for table in s.tables.values()
    ]
    yield Check("D9", "E log p^(tau) on paths, every coupling", max(means))


def check_weights(s: ManySetting) -> Iterator[Check]:
    """w_t(S) of both couplings from survivals and from the table; what any weights must sum to."""
    A = torch.stack([tails(alpha) for alpha in s.alphas], -1)
    for coupling in (Independent(), Nested()):
        name = type(coupling).__name__.lower()
        found = set_weights(coupling.on_grid(s.alphas))
        yield Check("D9", f"w_t(S), {name}", deviation(found, coupling.subset_weights(A)))
    member, sums = subsets(s.model.latents).double(), []
    for table in s.tables.values():
        alphas, w, v = marginals(table), set_weights(table), draw_weights(table)
        A = torch.stack([tails(alpha) for alpha in alphas], -1)
        sums += [deviation(w.sum(-1), torch.ones_like(w[:, 0])), deviation(w @ member, A)]
        sums += [deviation(v.sum(-1), alphas), float((v.permute(0, 2, 1) * member.mT[..., None]).abs().max())]
    yield Check("D9", "sums of w_t(S) and of p(tau_l = t, S)", max(sums))


def check_bound(s: ManySetting) -> Iterator[Check]:
    """D3, D4, D14 for several latents."""
    model, paths = s.model, s.model.base.sample(2, s.generator)
    kernels = [model.base.as_kernel(law) for law in s.laws]
    loose, tight, evidence, data, costs = [], [], [], [], []
    for x_0, z in zip(paths.x[:, 0], paths.z, strict=True):
        by_reveal = torch.stack([reference.log_prob(kernel, model.base.outcome(x_0, z)) for kernel in kernels])
        by_cost = by_tuple(set_costs(model, s.wrong, x_0, z))
        for table in s.tables.values():
            chance = table.flatten()
            loose.append(exact_many_bound(model, s.wrong, x_0, z, table).total)
            tight.append(exact_many_bound(model, model.exact, x_0, z, table).total)
            evidence.append(-torch.logsumexp(chance.log() + by_reveal, 0))
            data.append(-model.base.log_data(x_0[None], z[None])[0])
            costs.append(chance @ by_cost)
    above, below = torch.stack(loose), torch.stack(evidence)
    yield Check("D3", "L >= -log p^alpha(x_0, z), inconsistent heads", excess(below, above))
    yield Check("D3", "smallest slack, nats", float((above - below).min()), PRESENT, at_least=True)
    yield Check(
        "D4", "L = -log q(x_0, z), exact heads, every coupling", deviation(torch.stack(tight), torch.stack(data))
    )
    yield Check("D14", "L = L without Z, tuple by tuple", deviation(above, torch.stack(costs)))


def check_geometric_mean(s: ManySetting) -> Iterator[Check]:
    """D5, D14: the hybrid of all sets, its normaliser, and the loss that does not need it."""
    kernels, past, weights = s.kernels()
    mean = geometric_mean(kernels, weights)
    log_z = reference.log_product_mass(kernels, weights)
    said = torch.stack([reference.log_prob(kernel, past) for kernel in kernels], -1)
    density = (weights * said).sum(-1) - log_z
    yield Check("D5", "log Z of all sets", deviation(mean.log_normaliser, log_z))
    yield Check("D5", "p~ = prod_S p_S^w(S) / Z at points", deviation(mean.kernel.log_prob(past), density))
    yield Check("D5", "-log Z >= 0", excess(mean.log_normaliser, torch.zeros_like(log_z)))
    posterior = kernels[1]
    truth = (weights * torch.stack([reference.kl(posterior, kernel) for kernel in kernels], -1)).sum(-1)
    found = posterior.kl(mean.kernel) - mean.log_normaliser
    yield Check("D14", "KL(q||p~) - log Z = sum_S w(S) KL(q||p_S)", deviation(found, truth))
    found = expected_denoising_of_sets(posterior, kernels, weights)
    yield Check("D14", "a drawn set in the mean", deviation(found, truth))


def check_samplers(s: ManySetting) -> Iterator[Check]:
    """D13: reveal-ancestral is exact for every coupling; everything up front and the p~ chain is not."""
    model, data = s.model, s.model.base.data_law()
    exact, mixed, bias = [], [], []
    for table in s.tables.values():
        exact.append(deviation(many_reveal_ancestral_law(model, model.exact, table), data))
        truth = torch.tensordot(table.flatten(), s.laws, 1)
        mixed.append(deviation(many_reveal_ancestral_law(model, s.wrong, table), truth))
        drawn = many_naive_law(model, model.exact, table)
        bias.append(float(reference.kl(model.base.as_kernel(data), model.base.as_kernel(drawn))))
    always = torch.zeros_like(table)
    always.view(-1)[-1] = 1.0
    drawn = many_naive_law(model, model.exact, always)
    none = float(reference.kl(model.base.as_kernel(data), model.base.as_kernel(drawn)))
    yield Check("D13", "reveal-ancestral draws q(x_0, z), exact heads", max(exact))
    yield Check("D13", "reveal-ancestral draws p^alpha, wrong heads", max(mixed))
    yield Check("D13", "z up front, all A = 1: bias, nats", abs(none))
    yield Check("D13", "z up front, else: least bias, nats", min(bias), PRESENT, at_least=True)


def check_scores(s: ManySetting) -> Iterator[Check]:
    """D6: scores mix by w(S); of conditionally independent latents only the A^l matter, whatever the coupling."""
    kernels, past, weights = s.kernels()
    if "gaussian" not in s.kind and not s.separate:
        return
    each = torch.stack([kernel.score(past) for kernel in kernels], -1)
    truth = reference.gradient(
        lambda y: (weights * torch.stack([reference.log_prob(kernel, y) for kernel in kernels], -1)).sum(-1), past
    )
    yield Check("D6", "sum_S w(S) score_S = score of p~", deviation(mix_many(each, weights), truth))
    found = deviation(geometric_mean(kernels, weights).kernel.score(past), truth)
    yield Check("D6", "score of the geometric mean", found)

    paths = s.model.base.sample(6, s.generator)
    x, z = paths.x[:, 1:], paths.z[:, None].expand(-1, s.model.base.steps, -1)
    marginal = torch.stack([s.model.noisy(z, revealed).score(x) for revealed in range(2**s.model.latents)], -1)
    apart, gaps = [], []
    for name in ("independent", "nested"):
        mixed = mix_many(marginal, set_weights(s.tables[name])[None])
        apart.append(mixed)
        gaps.append(deviation(mixed, summed_score(s, x, z)))
    if s.separate:
        yield Check("D6", "score = grad log p(x_t) + sum_l A^l grad log p(z_l|x_t)", max(gaps))
        yield Check("D6", "the coupling does not matter", deviation(*apart))
    else:
        yield Check("D6", "dependent latents: the sum over l is not the score", min(gaps), PRESENT, at_least=True)


def summed_score(s: ManySetting, x: Tensor, z: Tensor) -> Tensor:
    """Grad log p(x_t) + sum_l A^l_t grad log p(z_l | x_t), by automatic differentiation."""
    A = torch.stack([tails(alpha) for alpha in s.alphas], -1)

    def log_density(y: Tensor) -> Tensor:
        heads = [row[0] for row in s.model.exact.alignment]
        given = [reference.log_prob(head(y, z), s.model.part(z, latent)) for latent, head in enumerate(heads)]
        return reference.log_prob(s.model.noisy(z, 0), y) + (A * torch.stack(given, -1)).sum(-1)

    return reference.gradient(log_density, x)
