"""What a reveal density is, and the same on a grid of steps: the contract that every distribution of tau meets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

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
        edges = torch.arange(checked_steps(steps) + 1, dtype=torch.float64) / steps
        survival = self.survival(edges)
        return (survival[:-1] - survival[1:]).clamp(min=0.0)  # rounding must not make a probability negative


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


def checked_steps(steps: int) -> int:
    """The number of steps of a grid.

    Raises:
        InputError: If it is below 1.
    """
    if steps < 1:
        raise InputError(f"a grid has at least one step, got {steps}; choose steps >= 1")
    return steps
