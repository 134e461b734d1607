"""D11: heads are normalised likelihoods; cosine is von Mises-Fisher, mean square is Gaussian, cross-entropy a table.

Integrals over a sphere go by the cosine c to the mean direction: dz = area(S^{d-2}) (1 - c^2)^{(d-3)/2} dc, by
Gauss-Jacobi quadrature, which the density exp(kappa c) converges on faster than any power. Those over R^d are trapezoid
sums on a wide grid, as exact for a Gaussian.
"""

import math
from collections.abc import Iterator

import torch
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from scipy import special
from torch import Tensor

from theory_checks.check import Check, deviation
from theory_checks.setting import Setting

_NODES = 160


def check_sphere(s: Setting) -> Iterator[Check]:
    """The von Mises-Fisher head, on spheres of several dimensions."""
    masses, normalisers, energies = [], [], []
    for dim in (1, 2, 3, 4 + s.model.dim):
        kappa = float(0.2 + 20.0 * s.rand())
        head, predicted = VonMisesFisher(kappa), s.randn(dim)
        mean = predicted / predicted.norm()
        z, area = directions(mean, s.randn(dim))
        cosine = z @ mean
        density = (-head.energy(predicted.expand_as(z), 3.0 * z) - head.log_normaliser(dim)).exp()
        masses.append((area * density).sum())
        energies.append(deviation(head.energy(predicted.expand_as(z), z), -kappa * cosine))
        log_bessel = math.log(special.ive(dim / 2 - 1, kappa)) + kappa
        log_c = (dim / 2 - 1) * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - log_bessel
        normalisers.append(abs(head.log_normaliser(dim) + log_c))
    mass = torch.stack(masses)
    yield Check("D11", "vMF head: integral over the sphere", deviation(mass, torch.ones_like(mass)))
    yield Check("D11", "vMF head: energy = kappa (-cos)", max(energies))
    yield Check("D11", "vMF head: -log vMF = energy - log C_d, a Bessel function", max(normalisers))


def check_space(s: Setting) -> Iterator[Check]:
    """The Gaussian head, in one and two dimensions."""
    masses, surprises = [], []
    for dim in (1, 2):
        sigma = float(0.2 + s.rand())
        head, predicted = Gaussian(sigma), s.randn(dim)
        axis = sigma * torch.linspace(-9, 9, 181, dtype=torch.float64)
        z = predicted + torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
        nll = head.energy(predicted.expand_as(z), z) + head.log_normaliser(dim)
        masses.append((-nll).exp().sum() * (0.1 * sigma) ** dim)
        truth = -torch.distributions.Normal(predicted, sigma).log_prob(z).sum(-1)
        surprises.append(deviation(nll, truth))
    mass = torch.stack(masses)
    yield Check("D11", "Gaussian head: integral over space", deviation(mass, torch.ones_like(mass)))
    yield Check("D11", "Gaussian head: mean-square error + constant = -log N", max(surprises))


def check_classes(s: Setting) -> Iterator[Check]:
    """The categorical head."""
    head, logits = Categorical(), 2.0 * s.randn(5, 7)
    z = torch.arange(7).expand(5, 7)
    nll = head.energy(logits[:, None].expand(5, 7, 7), z) + head.log_normaliser(7)
    mass, probs = (-nll).exp().sum(-1), logits.exp() / logits.exp().sum(-1, keepdim=True)
    yield Check("D11", "categorical head: sum over classes", deviation(mass, torch.ones_like(mass)))
    yield Check("D11", "categorical head: cross-entropy = -log p", deviation(nll, -probs.log()))


def directions(mean: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Directions whose weighted sum integrates functions of the cosine to `mean` over the sphere.

    Returns:
        Unit vectors [n, d], and their shares of the sphere's area [n].
    """
    dim = len(mean)
    if dim == 1:
        return torch.stack([mean, -mean]), torch.ones(2, dtype=torch.float64)
    cosine, weight = (torch.from_numpy(x) for x in special.roots_jacobi(_NODES, (dim - 3) / 2, (dim - 3) / 2))
    tangent = other - (other @ mean) * mean
    tangent = tangent / tangent.norm()
    area = 2 * math.pi ** ((dim - 1) / 2) / math.gamma((dim - 1) / 2)
    return cosine[:, None] * mean + (1 - cosine.square()).sqrt()[:, None] * tangent, area * weight
