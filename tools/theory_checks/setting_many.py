"""Random models with several latents, and joint distributions of their reveal times: independent, nested, a user's."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from reed_core.bound.solvable.several import SetHeads, laws_by_tuple
from reed_core.bound.solvable.several_categorical import SeveralCategorical
from reed_core.bound.solvable.several_gaussian import SeveralGaussian
from reed_core.bound.tuples import count_tuples
from reed_core.coupling import Independent, Nested, Sampled
from reed_core.noise import NoiseSource, mix_seed
from reed_core.reveal import Uniform, survival_on_grid
from torch import Tensor

from theory_checks.setting import random_density

# There are T^L tuples: with more steps than this, models with 2 (3) latents keep this many.
MOST_STEPS = {2: 10, 3: 4}
_DRAWS = 400


@dataclass(frozen=True)
class ManySetting:
    """A model, heads that contradict it and each other, couplings of its reveal times, and a source of randomness.

    Attributes:
        kind: What the rows of its checks are called.
        model: The model.
        wrong: Heads that agree with nothing.
        alphas: The reveal densities of `independent` and `nested`, coarse to fine, [L, T].
        tables: P(tau_1..tau_L): "independent", "nested", "user" (drawn by a sampler) and "random" (any numbers).
        generator: The source.
        separate: Whether the latents are conditionally independent given x_t.
    """

    kind: str
    model: Any
    wrong: SetHeads
    alphas: Tensor
    tables: dict[str, Tensor]
    generator: torch.Generator
    separate: bool

    @functools.cached_property
    def laws(self) -> Tensor:
        """The laws p^(tau_1..tau_L)(x_0, z) under the wrong heads, in the order of a flattened table."""
        return laws_by_tuple(self.model, self.wrong)

    def kernels(self) -> tuple[list[Any], Tensor, Tensor]:
        """Wrong kernels of every set and step at a few (x_t, z), x_{t-1} beside them, and random weights of sets."""
        paths = self.model.base.sample(6, self.generator)
        past, x = paths.x[:, :-1], paths.x[:, 1:]
        z = paths.z[:, None].expand(-1, x.shape[1], *paths.z.shape[1:])
        weights = self.rand(*x.shape[:2], 2**self.model.latents)
        weights[0, :, :-1], weights[1, :, 1:] = 0.0, 0.0
        weights[2, :, 1] = 0.0
        return [head(x, z) for head in self.wrong.denoising], past, weights / weights.sum(-1, keepdim=True)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)


def settings_many(seed: int, dim: int, steps: int) -> Iterator[ManySetting]:
    """The models of a seed, each with its own stream of random numbers."""
    two, three = min(steps, MOST_STEPS[2]), min(steps, MOST_STEPS[3])
    sizes, wide = (1, max(1, dim // 2)), max(dim, 2)
    makers: list[Any] = [
        ("2 gaussian latents", False, lambda g: SeveralGaussian.random(g, two, dim, "anisotropic", sizes)),
        ("2 gaussian latents", False, lambda g: SeveralGaussian.random(g, two, dim, "preserving", sizes[::-1])),
        ("2 separate latents", True, lambda g: SeveralGaussian.separate(g, two, wide, 2)),
        ("2 categorical latents", False, lambda g: SeveralCategorical.random(g, two, 3, (2, 3))),
        ("3 categorical latents", False, lambda g: SeveralCategorical.random(g, three, 4, (2, 2, 2))),
    ]
    for number, (kind, separate, make) in enumerate(makers):
        generator = torch.Generator().manual_seed(mix_seed(seed, 100 + number))
        model = make(generator)
        alphas = coarse_to_fine(model.latents, model.base.steps, generator)
        tables = {
            "independent": Independent().on_grid(alphas),
            "nested": Nested().on_grid(alphas),
            "user": drawn_table(model.latents, model.base.steps, mix_seed(seed, 200 + number)),
        }
        random = 0.05 + torch.rand(tables["user"].shape, generator=generator, dtype=torch.float64)
        tables["random"] = random / random.sum()
        yield ManySetting(kind, model, model.perturbed(generator), alphas, tables, generator, separate)


def coarse_to_fine(latents: int, steps: int, generator: torch.Generator) -> Tensor:
    """Random reveal densities with A^1 >= A^2 >= ..., [L, T]: order statistics of survivals, step by step."""
    even = Uniform().on_grid(steps)
    survivals = torch.stack([survival_on_grid((random_density(steps, generator) + even) / 2) for _ in range(latents)])
    survivals = survivals.sort(0, descending=True).values
    return survivals - torch.cat([survivals[:, 1:], survivals.new_zeros(latents, 1)], 1)


def drawn_table(latents: int, steps: int, seed: int) -> Tensor:
    """The table of a user's sampler: tau_1 and tau_2 shun each other, the others follow tau_1 half of the time."""

    def draw(noise: NoiseSource) -> Tensor:
        u, v = noise.uniform(()), noise.uniform((latents,))
        v[:, 0], v[:, 1] = u, (0.5 + u + 0.4 * v[:, 1]) % 1.0
        v[:, 2:] = torch.where(v[:, 2:] < 0.5, u[:, None], v[:, 2:])
        return v.float()

    times = Sampled(draw).times([Uniform()] * latents, NoiseSource(seed, range(_DRAWS)))
    return count_tuples(times, steps)
