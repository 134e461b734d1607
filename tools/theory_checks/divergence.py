"""D7, D8: how far p^alpha may be from q, and what revealing costs and saves."""

from collections.abc import Iterator

import torch
from reed_core.bound.divergence import kl_bound, reveal_cost, reveal_saving, tv_bound
from reed_core.bound.kernels import CategoricalKernel
from reed_core.bound.solvable import reference

from theory_checks.check import PRESENT, Check, deviation, excess
from theory_checks.setting import Setting


def check_divergence(s: Setting) -> Iterator[Check]:
    """D7: KL and total variation between q and p^alpha are bounded by the errors of the heads."""
    errors = reference.head_errors(s.model, s.wrong)
    alphas, laws = torch.eye(s.model.steps, dtype=torch.float64), s.laws
    if s.kind == "categorical":  # a mixture of tables is a table; a mixture of Gaussians is no Gaussian
        alphas = torch.cat([alphas, torch.stack(list(s.alphas.values()))])
        laws = torch.einsum("at,txz->axz", alphas, laws)
    bounds = torch.stack([kl_bound(**errors, alpha=alpha) for alpha in alphas])
    data = s.model.as_kernel(s.model.data_law())
    truths = torch.stack([reference.kl(data, s.model.as_kernel(law)) for law in laws])
    yield Check("D7", "KL(q || p^alpha) <= bound", excess(truths, bounds))
    yield Check("D7", "smallest slack, nats", float((bounds - truths).min()), PRESENT, at_least=True)
    if s.kind == "categorical":
        distance = 0.5 * (laws - s.model.data_law()).abs().sum((1, 2))
        yield Check("D7", "TV(q, p^alpha) <= bound", excess(distance, tv_bound(bounds)))
        coins = [CategoricalKernel(bounds.new_tensor([0.5 + e, 0.5 - e]).log()) for e in (1e-3, 0.0)]
        sharp = abs(float(tv_bound(coins[0].kl(coins[1]))) / 1e-3 - 1)
        yield Check("D7", "TV bound of two near coins / TV - 1", sharp, 1e-5)
    else:
        path_kl = reference.path_kl(s.model, s.wrong)
        sharp = max(deviation(kl_bound(**errors, alpha=alpha), alpha @ path_kl) for alpha in s.alphas.values())
        yield Check("D7", "an equality over whole paths", sharp)


def check_information(s: Setting) -> Iterator[Check]:
    """D8: revealing earlier costs in alignment what it saves in denoising."""
    known = s.model.information()
    costs = {name: reveal_cost(known.entropy, known.entropy_clean, alpha) for name, alpha in s.alphas.items()}
    worst = max(deviation(reveal_saving(known.gain, alpha), costs[name]) for name, alpha in s.alphas.items())
    yield Check("D8", "cost of alignment = saving of denoising", worst)
    yield Check("D8", "cost at noise less cost at data, nats", float(costs["noise"] - costs["data"]), PRESENT, True)
