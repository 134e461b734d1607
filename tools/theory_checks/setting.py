"""Random models with one latent: three linear-Gaussian schedules and two categorical tables, and heads to score."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from reed_core.bound.solvable.categorical import CategoricalModel
from reed_core.bound.solvable.gaussian import GaussianModel
from reed_core.bound.solvable.model import Heads, laws_by_reveal
from reed_core.noise import mix_seed
from reed_core.reveal import PointMass, Uniform
from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """A model, heads that contradict it and each other, reveal densities on its grid, and a source of randomness."""

    kind: str
    model: Any
    wrong: Heads
    alphas: dict[str, Tensor]
    generator: torch.Generator

    @functools.cached_property
    def laws(self) -> Tensor:
        """The laws p^(tau)(x_0, z) under the wrong heads, tau = 1..T first."""
        return torch.stack(laws_by_reveal(self.model, self.wrong))

    def kernel_pair(self) -> tuple[Any, Any, Tensor]:
        """Wrong p_u and p_c of every step at a few (x_t, z), and a survival for each, some of them 0 and 1."""
        nodes = self.model.joint_nodes()
        x, z = nodes.x[:6], nodes.z[:6]
        A = self.rand(*x.shape[:2])
        A[0], A[1] = 0.0, 1.0
        return self.wrong.unconditional(x), self.wrong.conditional(x, z), A

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)


def settings(seed: int, dim: int, steps: int) -> Iterator[Setting]:
    """The models of a seed, each with its own stream of random numbers."""
    gaussians = ("preserving", "exploding", "anisotropic")
    makers: list[Any] = [
        ("gaussian", functools.partial(GaussianModel.random, dim=dim, schedule=name)) for name in gaussians
    ]
    for states in (3, 4):
        make = functools.partial(CategoricalModel.random, states=states, latents=states - 1)
        makers.append(("categorical", make))
    for number, (kind, make) in enumerate(makers):
        generator = torch.Generator().manual_seed(mix_seed(seed, number))
        model = make(generator, steps)
        alphas = {
            "uniform": Uniform().on_grid(steps),
            "noise": PointMass(1.0).on_grid(steps),
            "data": PointMass(0.0).on_grid(steps),
            "middle": PointMass(0.5).on_grid(steps),
            "random": random_density(steps, generator),
        }
        yield Setting(kind, model, model.perturbed(generator), alphas, generator)


def random_density(steps: int, generator: torch.Generator) -> Tensor:
    """A reveal density on the grid with one step left out."""
    random = torch.rand(steps, generator=generator, dtype=torch.float64) ** 3
    random[int(torch.randint(steps, (), generator=generator))] = 0.0
    return random / random.sum()
