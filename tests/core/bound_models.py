"""Random kernels and small solvable models that the tests of the bound measure with."""

from typing import Any

import torch
from reed_core.bound.kernels import CategoricalKernel, GaussianKernel
from reed_core.bound.solvable.categorical import CategoricalModel
from reed_core.bound.solvable.gaussian import GaussianModel
from reed_core.bound.solvable.model import SolvableModel
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def gaussian(*batch: int, dim: int = 3, seed: int = 0) -> GaussianKernel:
    factor = randn(*batch, dim, dim, seed=seed + 1)
    return GaussianKernel(randn(*batch, dim, seed=seed), factor @ factor.mT + 0.3 * torch.eye(dim, dtype=torch.float64))


def categorical(*batch: int, states: int = 5, seed: int = 0) -> CategoricalKernel:
    return CategoricalKernel(torch.log_softmax(1.5 * randn(*batch, states, seed=seed), -1))


def part(kernel: Any, index: int) -> Any:
    """One batch element of a kernel."""
    return type(kernel)(*(value[index] for value in vars(kernel).values()))


def models() -> dict[str, SolvableModel]:
    return {
        "gaussian": GaussianModel.random(generator(1), steps=4, dim=2, schedule="anisotropic"),
        "categorical": CategoricalModel.random(generator(2), steps=4, states=3, latents=2),
    }
