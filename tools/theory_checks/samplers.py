"""D13: which samplers draw from the model."""

from collections.abc import Iterator

import torch
from reed_core.bound.solvable import reference
from reed_core.bound.solvable.model import naive_law, reveal_ancestral_law
from reed_core.reveal import survival_on_grid

from theory_checks.check import PRESENT, Check, deviation
from theory_checks.setting import Setting


def check_samplers(s: Setting) -> Iterator[Check]:
    """D13: the reveal-ancestral sampler is exact; the p~ chain with z drawn up front is not, unless A = 1."""
    model, data = s.model, s.model.data_law()
    exact = max(deviation(reveal_ancestral_law(model, model.exact, alpha), data) for alpha in s.alphas.values())
    mixed = max(
        deviation(reveal_ancestral_law(model, s.wrong, alpha), torch.einsum("t,txz->xz", alpha, s.laws))
        for alpha in s.alphas.values()
    )
    bias = {}
    for name in ("noise", "uniform"):
        drawn = naive_law(model, model.exact, survival_on_grid(s.alphas[name]))
        bias[name] = float(reference.kl(model.as_kernel(data), model.as_kernel(drawn)))
    yield Check("D13", "reveal-ancestral draws q(x_0, z), exact heads", exact)
    yield Check("D13", "reveal-ancestral draws p^alpha, wrong heads", mixed)
    yield Check("D13", "z up front, A = 1: bias, nats", abs(bias["noise"]))
    yield Check("D13", "z up front, linear A: bias, nats", bias["uniform"], PRESENT, at_least=True)
