"""D10, D15: the reveal densities of named methods, and those of loss weights."""

import math
from collections.abc import Callable, Iterator

import torch
from numpy.polynomial import legendre
from reed_core.bound.solvable.model import exact_bound
from reed_core.bound.solvable.reference import head_costs
from reed_core.reveal import Beta, Cosine, Cutoff, PointMass, Table, Uniform, survival_on_grid
from torch import Tensor

from theory_checks.check import Check, deviation
from theory_checks.setting import Setting


def check_presets(s: Setting) -> Iterator[Check]:
    """D10: a point mass at noise is RCG, uniform is REPA's linear A, a point mass at data is a read-out of x_1."""
    steps, times = s.model.steps, torch.linspace(0, 1, 101, dtype=torch.float64)
    linear = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    mass = torch.stack([torch.trapezoid(Uniform().density(times[i:]), times[i:]) for i in range(len(times))])
    yield Check("D10", "uniform: A linear on the grid", deviation(survival_on_grid(s.alphas["uniform"]), linear))
    yield Check("D10", "uniform: A(t) = int_t^1 alpha", deviation(Uniform().survival(times), mass))
    yield Check("D10", "point mass at noise: A(t) = 1", deviation(PointMass().survival(times), torch.ones_like(times)))
    paths = s.model.sample(1, s.generator)
    x_0, z = paths.x[0, 0], paths.z[0]
    costs = head_costs(s.model, s.wrong, x_0, z)
    found = {name: exact_bound(s.model, s.wrong, x_0, z, alpha).total for name, alpha in s.alphas.items()}
    always = costs.ends + costs.conditional.sum() + costs.alignment[-1]
    never = costs.ends + costs.unconditional.sum() + costs.alignment[0]
    yield Check("D10", "point mass at noise: L of RCG", deviation(found["noise"], always))
    yield Check("D10", "point mass at data: L of a read-out of x_1", deviation(found["data"], never))


def check_weights(s: Setting) -> Iterator[Check]:
    """D15: a loss weight w(t) at uniform times is the reveal density w / int w; a sampling density multiplies it."""
    t = s.rand(60)
    p, q = (int(1 + 4 * s.rand()) for _ in range(2))
    first, last = (0.4 * s.rand(2)).tolist()
    rows = {
        "constant: 1 - t": (torch.ones_like, Uniform(), lambda u: 1 - u),
        "1 - t: (1 - t)^2": (lambda u: 1 - u, Beta(1, 2), lambda u: (1 - u) ** 2),
        "t: 1 - t^2": (lambda u: u, Beta(2, 1), lambda u: 1 - u**2),
        "cosine: 1 - t - sin(pi t) / pi": (
            lambda u: (1 + torch.cos(math.pi * u)) / 2,
            Cosine(),
            lambda u: 1 - u - torch.sin(math.pi * u) / math.pi,
        ),
    }
    for name, (weight, density, truth) in rows.items():
        found = torch.stack([survival_of(weight, t), density.survival(t)])
        yield Check("D15", f"A of the weight {name}", deviation(found, truth(t).expand_as(found)))
    # times of density Beta(p, 1), weighed by (1 - t)^(q - 1): the effective density is Beta(p, q)
    product = survival_of(lambda u: Beta(p, 1).density(u) * (1 - u) ** (q - 1), t)
    yield Check("D15", "sampling density times weight", deviation(product, Beta(p, q).survival(t)))
    densities = (
        Cosine(),
        Beta(p, q),
        Beta(0.3 + first, 0.4 + last),
        Cutoff(first, 1 - last),
        Table(s.rand(5).tolist()),
    )
    back = torch.stack([density.survival(density.quantile(t)) for density in densities])
    yield Check("D15", "quantile functions invert 1 - A", deviation(back, (1 - t).expand_as(back)))


def survival_of(weight: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """int_t^1 w / int_0^1 w, by Gauss-Legendre quadrature."""
    nodes, shares = (torch.from_numpy(x) for x in legendre.leggauss(64))
    starts = torch.cat([t, t.new_zeros(1)])[:, None]
    places = starts + (1 - starts) * (1 + nodes) / 2
    tails = ((1 - starts) / 2 * shares * weight(places)).sum(-1)
    return tails[:-1] / tails[-1]
