"""D3, D4, D14: the bound, when it is tight, and its estimator without Z."""

from collections.abc import Iterator

import torch
from reed_core.bound.solvable import reference
from reed_core.bound.solvable.model import exact_bound
from reed_core.bound.terms import draw_kept, expected_denoising, kept_denoising, split_squared_error

from theory_checks.check import PRESENT, STANDARD_ERRORS, Check, deviation, excess, tails
from theory_checks.setting import Setting


def check_bound(s: Setting) -> Iterator[Check]:
    """D3, D4: the bound holds for inconsistent heads, and is an equality for exact ones."""
    paths = s.model.sample(3, s.generator)
    kernels = [s.model.as_kernel(law) for law in s.laws]
    loose, tight, evidence, data = [], [], [], []
    for x_0, z in zip(paths.x[:, 0], paths.z, strict=True):
        by_reveal = torch.stack([reference.log_prob(kernel, s.model.outcome(x_0, z)) for kernel in kernels])
        for alpha in s.alphas.values():
            loose.append(exact_bound(s.model, s.wrong, x_0, z, alpha).total)
            tight.append(exact_bound(s.model, s.model.exact, x_0, z, alpha).total)
            evidence.append(-torch.logsumexp(alpha.log() + by_reveal, 0))
            data.append(-s.model.log_data(x_0[None], z[None])[0])
    above, below = torch.stack(loose), torch.stack(evidence)
    yield Check("D3", "L >= -log p^alpha(x_0, z), inconsistent heads", excess(below, above))
    yield Check("D3", "smallest slack, nats", float((above - below).min()), PRESENT, at_least=True)
    yield Check("D4", "L = -log q(x_0, z), exact heads, every alpha", deviation(torch.stack(tight), torch.stack(data)))


def check_estimator(s: Setting) -> Iterator[Check]:
    """D14: keeping z with probability A_t estimates the bound without Z."""
    paths = s.model.sample(2, s.generator)
    x_0, z, late = paths.x[0, 0], paths.z[0], paths.x[:, 2:]
    costs, worst = reference.head_costs(s.model, s.wrong, x_0, z), 0.0
    for alpha in s.alphas.values():
        A = tails(alpha)
        parts = (1 - A) * costs.unconditional + A * costs.conditional + alpha * costs.alignment
        worst = max(worst, deviation(exact_bound(s.model, s.wrong, x_0, z, alpha).total, costs.ends + parts.sum()))
    yield Check("D14", "L = L without Z", worst)
    posterior, alone = s.model.posterior(late, x_0), s.wrong.unconditional(late, first=2)
    given = s.wrong.conditional(late, z, first=2)
    A = s.rand(*late.shape[:2])
    truth = (1 - A) * reference.kl(posterior, alone) + A * reference.kl(posterior, given)
    hybrid, expected = alone.hybrid(given, A), expected_denoising(posterior, alone, given, A)
    shown, hidden = (kept_denoising(posterior, alone, given, kept) for kept in (A >= 0, A < 0))
    yield Check("D14", "KL(q||p~) - log Z", deviation(posterior.kl(hybrid.kernel) - hybrid.log_normaliser, truth))
    yield Check("D14", "(1-A) KL(q||p_u) + A KL(q||p_c)", deviation(expected, truth))
    yield Check("D14", "mean of one draw of kept", deviation((1 - A) * hidden + A * shown, truth))
    chance, draws = 0.1 + 0.8 * s.rand(), 4000
    share = draw_kept(chance.expand(draws), s.generator).double().mean()
    errors = float((share - chance).abs() / (chance * (1 - chance) / draws).sqrt())
    yield Check("D14", "share of z kept, standard errors from A", errors, STANDARD_ERRORS)


def check_squared_errors(s: Setting) -> Iterator[Check]:
    """D14 in squared errors: the kept error is the mixed one plus a disagreement."""
    e, e_u, e_c = s.randn(3, 50, s.model.dim)
    A = s.rand(50)
    split = split_squared_error(e, e_u, e_c, A)
    kept = (1 - A) * (e - e_u).square().sum(-1) + A * (e - e_c).square().sum(-1)
    yield Check("D14", "squared errors: kept", deviation(split.kept, kept))
    yield Check("D14", "squared errors: mixed + disagreement = kept", deviation(split.mixed + split.disagreement, kept))
