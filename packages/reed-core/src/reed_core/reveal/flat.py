"""Reveal densities that are constant on intervals: A is piecewise linear, and so is the quantile function.

Uniform              alpha = 1                          A = 1 - t
Cutoff(a, b)         alpha = 1 / (b - a) on [a, b]      A = (b - t) / (b - a), cut to [0, 1]
Table(v_1 .. v_n)    alpha = n v_i / sum v on the i-th of n equal bins of [0, 1]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.reveal.density import RevealDensity


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
class Cutoff(RevealDensity):
    """tau uniform on [low, high]: certainly hidden before (t > high), certainly revealed after (t < low).

    Attributes:
        low: The end nearer to data, >= 0.
        high: The end nearer to noise, <= 1 and above `low`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise InputError(
                f"a cutoff needs 0 <= low < high <= 1, got low {self.low:g} and high {self.high:g}; "
                "a single time is a PointMass"
            )

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 / (high - low) on [low, high]."""
        return ((t >= self.low) & (t <= self.high)).to(t.dtype) / (self.high - self.low)

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """(high - t) / (high - low), cut to [0, 1]."""
        return ((self.high - t) / (self.high - self.low)).clamp(0.0, 1.0)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The time low + u (high - low)."""
        return (self.low + u * (self.high - self.low)).clamp(self.low, self.high)


@dataclass(frozen=True)
class Table(RevealDensity):
    """Any histogram on equal bins of [0, 1], the first at data. Multiples are one table.

    Attributes:
        values: Relative heights, finite and non-negative, not all zero; kept as the probabilities of the bins.
    """

    values: Sequence[float]

    def __post_init__(self) -> None:
        values = tuple(float(value) for value in self.values)
        if not values or not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values) > 0:
            raise InputError(
                f"a reveal table holds finite, non-negative heights, not all zero, got {values}; give one height for "
                "each equal bin of [0, 1], data first"
            )
        largest = max(values)  # first, so that the sum of huge heights does not overflow
        total = math.fsum(value / largest for value in values)
        object.__setattr__(self, "values", tuple(value / largest / total for value in values))

    def density(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The height of the bin ((i-1)/n, i/n] that holds t, the first bin including 0."""
        count = len(self.values)
        edges = torch.arange(1, count, dtype=torch.float64) / count
        heights = torch.tensor(self.values, dtype=torch.float64) * count
        found = heights[torch.bucketize(t.detach().cpu().double(), edges)].to(t)
        return torch.where((t >= 0) & (t <= 1), found, torch.zeros_like(found))

    def survival(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What the bins after t hold, and the share of t's own bin that lies after it."""
        count, tails = len(self.values), self._tails()
        place = t.detach().cpu().double().clamp(0.0, 1.0) * count
        bin_of = place.floor().long().clamp(max=count - 1)
        share = place - bin_of
        return (tails[bin_of] + share * (tails[bin_of + 1] - tails[bin_of])).clamp(0.0, 1.0).to(t)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Exact: linear within a bin. Empty bins are never entered."""
        count, masses = len(self.values), torch.tensor(self.values, dtype=torch.float64)
        below = 1.0 - self._tails()
        filled = masses.nonzero()[:, 0]
        v = u.detach().cpu().double().clamp(0.0, 1.0)
        bin_of = filled[torch.bucketize(v, below[filled + 1][:-1])]
        share = ((v - below[bin_of]) / masses[bin_of]).clamp(0.0, 1.0)
        return ((bin_of + share) / count).to(u)

    def _tails(self) -> Float[Tensor, "n1"]:
        """A at the edges of the bins, 1 first and 0 last."""
        tails = torch.tensor(
            [math.fsum(self.values[start:]) for start in range(len(self.values) + 1)], dtype=torch.float64
        )
        tails[0] = 1.0
        return tails
