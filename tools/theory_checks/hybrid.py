"""D5, D6, D16: the hybrid, its normaliser and bounds, scores and predictions."""

from collections.abc import Iterator

import torch
from reed_core.bound.divergence import normaliser_bounds
from reed_core.bound.hybrid import mix_logits, mix_predictions
from reed_core.bound.kernels import GaussianKernel
from reed_core.bound.solvable import reference
from torch import Tensor

from theory_checks.check import Check, deviation, excess
from theory_checks.setting import Setting


def check_normaliser(s: Setting) -> Iterator[Check]:
    """D5: log Z, the density it normalises, and its bounds."""
    alone, given, A = s.kernel_pair()
    hybrid, bounds = alone.hybrid(given, A), normaliser_bounds(alone, given, A)
    cost = -reference.log_normaliser(alone, given, A)
    half = -reference.log_normaliser(alone, given, torch.full_like(A, 0.5))
    past = s.model.sample(len(A), s.generator).x[:, :-1]
    density = (1 - A) * reference.log_prob(alone, past) + A * reference.log_prob(given, past) + cost
    yield Check("D5", "log Z", deviation(-hybrid.log_normaliser, cost))
    yield Check("D5", "p~ = p_u^(1-A) p_c^A / Z at points", deviation(hybrid.kernel.log_prob(past), density))
    yield Check("D5", "B = -log int sqrt(p_u p_c)", deviation(alone.bhattacharyya(given), half))
    yield Check("D5", "0 <= 2 min(A, 1-A) B", excess(torch.zeros_like(cost), bounds.lower))
    yield Check("D5", "2 min(A, 1-A) B <= -log Z", excess(bounds.lower, cost))
    yield Check("D5", "-log Z <= min KL", excess(cost, bounds.upper))
    inside = (A > 0) & (A < 1)
    yield Check("D5", "smallest lower / upper", float((bounds.lower / bounds.upper)[inside].min()), 1e-3, at_least=True)


def check_normaliser_gaussian(s: Setting) -> Iterator[Check]:
    """D5 for Gaussians of equal variance, where everything has a closed form."""
    mean_u, mean_c = s.randn(2, 9, s.model.dim)
    variance, A = 0.2 + s.rand(9), s.rand(9)
    A[:3] = A.new_tensor([0.0, 0.5, 1.0])
    alone, given = GaussianKernel.isotropic(mean_u, variance), GaussianKernel.isotropic(mean_c, variance)
    hybrid, bounds = alone.hybrid(given, A), normaliser_bounds(alone, given, A)
    unit = (mean_c - mean_u).square().sum(-1) / (2 * variance)
    least = torch.minimum(A, 1 - A) * unit
    mixed = (1 - A[:, None]) * mean_u + A[:, None] * mean_c
    yield Check("D5", "equal variances: -log Z", deviation(-hybrid.log_normaliser, A * (1 - A) * unit))
    yield Check("D5", "equal variances: lower bound, sharp at 1/2", deviation(bounds.lower, 0.5 * least))
    yield Check("D5", "equal variances: upper bound", deviation(bounds.upper, least))
    yield Check("D5", "equal variances: mean of p~", deviation(hybrid.kernel.mean, mixed))
    yield Check("D5", "equal variances: covariance of p~", deviation(hybrid.kernel.covariance, alone.covariance))


def check_logits(s: Setting) -> Iterator[Check]:
    """D6 for tokens: mixed logits are those of p~."""
    alone, given, A = s.kernel_pair()
    truth = (1 - A[..., None]) * alone.log_probs + A[..., None] * given.log_probs
    truth = truth - reference.log_normaliser(alone, given, A)[..., None]
    yield Check("D6", "mixed token logits = log p~", deviation(mix_logits(alone.log_probs, given.log_probs, A), truth))


def check_scores(s: Setting) -> Iterator[Check]:
    """D6, D16: scores, and x_0-, eps- and v-predictions, mix convexly."""
    alone, given, A = s.kernel_pair()
    model, paths = s.model, s.model.sample(len(A), s.generator)
    past, x, z = paths.x[:, :-1], paths.x[:, 1:], paths.z[:, None].expand(-1, model.steps, -1)
    truth = reference.gradient(
        lambda y: (1 - A) * reference.log_prob(alone, y) + A * reference.log_prob(given, y), past
    )
    yield Check("D6", "score of p~", deviation(alone.hybrid(given, A).kernel.score(past), truth))
    mixed = mix_predictions(alone.score(past), given.score(past), A)
    yield Check("D6", "(1-A) score_u + A score_c = score of p~", deviation(mixed, truth))
    score = reference.gradient(
        lambda y: reference.log_prob(model.noisy(), y) + A * reference.log_prob(model.exact.alignment(y), z), x
    )
    mixed = mix_predictions(model.noisy().score(x), model.noisy(z).score(x), A)
    yield Check("D6", "mixed score = grad log p(x_t) + A grad log p(z|x_t)", deviation(mixed, score))

    # x_t = signal x_0 + root eps moves with v = d_signal x_0 + d_root root eps, whatever the derivatives are
    signal, root = model.signal[1:, None], torch.linalg.cholesky(model.spread[1:])
    d_signal, d_root = s.randn(2)
    found: dict[str, list[Tensor]] = {"x_0": [], "eps": [], "v": []}
    for x_0 in (model.denoised(x), model.denoised(x, z)):
        eps = torch.linalg.solve(root, (x - signal * x_0)[..., None])
        found["x_0"].append(x_0)
        found["eps"].append(eps[..., 0])
        found["v"].append(d_signal * x_0 + d_root * (root @ eps)[..., 0])
    eps = -(root.mT @ score[..., None])
    x_0 = (x - (root @ eps)[..., 0]) / signal
    truths = {"x_0": x_0, "eps": eps[..., 0], "v": d_signal * x_0 + d_root * (root @ eps)[..., 0]}
    for name, truth in truths.items():
        value = deviation(mix_predictions(*found[name], A), truth)
        yield Check("D16", f"mixed {name}-predictions = those of the mixed score", value)
