"""Reveal-time densities: when, in diffusion time, is a latent z revealed?

z is revealed at a random time tau ~ alpha on [0, 1] (t = 0 is data, t = 1 is noise). What the bound needs of alpha is

    alpha(t)                       its density: weighs the alignment term (THEORY section 1)
    A(t) = P(tau >= t)             its survival function: the probability that x_t -> x_{t-1} already sees z
                                   (int_t^1 alpha when alpha has no atom)
    tau ~ alpha                    draws, for densities with an atom and for reveal-ancestral sampling (THEORY D13)

On a grid of T steps, step t = 1..T stands for the times in ((t-1)/T, t/T]:

    alpha_t = P((t-1)/T < tau <= t/T),   A_t = sum_{i>=t} alpha_i,   A_1 = 1

Training times are uniform, so alpha(t) is already the weight alpha / pi of a time drawn by a process. A density with an
atom has no such weight: it draws its own tau (`is_atomic`). Times may have any shape; results keep shape and dtype.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError

_SUM_TOLERANCE = 1e-4


class RevealDensity(ABC):
    """A probability distribution of the reveal time tau on [0, 1]. Implementations are small, frozen and hashable."""

    is_atomic: bool = False
    """True when tau sits on a point with positive probability: `density` raises, use `sample`."""

    @abstractmethod
    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """alpha(t) relative to uniform times; 0 outside the support.

        Raises:
            InputError: If the distribution has an atom.
        """

    @abstractmethod
    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """A(t) = P(tau >= t), exactly, in [0, 1]; 1 for t <= 0 and non-increasing."""

    @abstractmethod
    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The inverse distribution function at u in [0, 1]: of a uniform u it is a draw of tau."""

    def sample(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Draws independent reveal times by inversion.

        Args:
            shape: Shape of the result.
            generator: Source of randomness, on the device of the result; None uses torch's global one.

        Returns:
            Times in [0, 1], float32, of the given shape.
        """
        device = generator.device if generator is not None else None
        return self.quantile(torch.rand(tuple(shape), generator=generator, device=device, dtype=torch.float32))

    def on_grid(self, steps: int) -> Float[Tensor, "T"]:
        """alpha_t for t = 1..T (index t - 1), float64, summing to 1.

        Args:
            steps: T, the number of steps, at least 1.

        Raises:
            InputError: If steps < 1.
        """
        edges = torch.arange(_checked_steps(steps) + 1, dtype=torch.float64) / steps
        survival = self.survival(edges)
        return survival[:-1] - survival[1:]


@dataclass(frozen=True)
class Uniform(RevealDensity):
    """tau uniform on [0, 1]: A(t) = 1 - t. This is REPA's and REED's choice (THEORY section 4)."""

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 on [0, 1]."""
        return ((t >= 0) & (t <= 1)).to(t.dtype)

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 - t."""
        return (1.0 - t).clamp(0.0, 1.0)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The number u itself."""
        return u


@dataclass(frozen=True)
class PointMass(RevealDensity):
    """tau = at, always: A(t) = 1 up to `at`, 0 after. `at = 1` is generation conditioned on z throughout (RCG).

    Attributes:
        at: The reveal time, in [0, 1].
    """

    at: float = 1.0
    is_atomic = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.at <= 1.0:
            raise InputError(
                f"a reveal time lies between 0 (data) and 1 (noise), got {self.at:g}; choose one in [0, 1]"
            )

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Raises: a point mass has no density."""
        raise InputError(
            f"a point mass at t = {self.at:g} has no density to weigh other times with; draw tau with `sample` instead"
        )

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 for t <= at, else 0."""
        return (t <= self.at).to(t.dtype)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`at`, whatever u."""
        return torch.full_like(u, self.at)

    def on_grid(self, steps: int) -> Float[Tensor, "T"]:
        """All mass on the step whose interval ((t-1)/T, t/T] holds `at`; at = 0 belongs to step 1."""
        alpha = torch.zeros(_checked_steps(steps), dtype=torch.float64)
        alpha[max(math.ceil(self.at * steps - 1e-9), 1) - 1] = 1.0
        return alpha


def survival_on_grid(alpha: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """A_t = sum_{i>=t} alpha_i for t = 1..T (index t - 1), with A_1 = 1 whatever the rounding (THEORY section 1).

    Args:
        alpha: A reveal density on a grid: non-negative, summing to 1.

    Raises:
        InputError: If alpha is no probability vector.
    """
    total = float(alpha.sum())
    if not (alpha.numel() > 0 and float(alpha.min()) >= 0.0 and abs(total - 1.0) <= _SUM_TOLERANCE):
        raise InputError(
            f"a reveal density on a grid is non-negative and sums to 1, got {alpha.numel()} steps with sum {total:g}; "
            "normalise it"
        )
    tail = alpha.flip(0).cumsum(0).flip(0)
    return tail / tail[:1]


def _checked_steps(steps: int) -> int:
    if steps < 1:
        raise InputError(f"a grid has at least one step, got {steps}; choose steps >= 1")
    return steps
