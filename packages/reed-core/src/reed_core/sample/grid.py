"""Time grids: where between noise and data a sampler puts its steps.

A grid is a function of the times to start and end at, t_high > t_low, and the number of steps; it returns steps + 1
decreasing times with these ends. With r = 0, 1/T, ..., 1:
    uniform     t = t_high + r (t_low - t_high)
    cosine      t = t_low + (t_high - t_low) cos(pi r / 2): short steps near noise, where masked diffusion with a
                uniform grid reveals tokens that know least of each other (MD4, arXiv 2406.04329, section 4)
    power       t = t_low + (t_high - t_low) (1 - r)^p: for p > 1 short steps near data
    log-SNR     lambda(t) = log(signal(t) / noise(t)) uniform in r: short steps at both ends, what DPM-Solver asks
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch

from reed_core.errors import InputError
from reed_core.process.base import Process
from reed_core.process.interpolant import Interpolant

_BISECTIONS = 60
_MARGIN = 1e-3


@runtime_checkable
class Grid(Protocol):
    """A rule that places times."""

    def __call__(self, high: float, low: float, steps: int) -> list[float]:
        """Steps + 1 decreasing times from `high` to `low`."""
        ...


def uniform_times(high: float, low: float, steps: int) -> list[float]:
    """Steps of equal length."""
    return [high + step * (low - high) / steps for step in range(steps)] + [low]


def cosine_times(high: float, low: float, steps: int) -> list[float]:
    """Short steps near `high`, long ones near `low`."""
    return [low + (high - low) * math.cos(0.5 * math.pi * step / steps) for step in range(steps)] + [low]


@dataclass(frozen=True)
class PowerTimes:
    """Steps that shorten towards `low`.

    Attributes:
        power: p, above 0; 1 is uniform.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise InputError(f"a grid of power {self.power:g}: expected a positive number, 1 for equal steps")

    def __call__(self, high: float, low: float, steps: int) -> list[float]:
        """Steps + 1 decreasing times from `high` to `low`."""
        return [high, *(low + (high - low) * (1.0 - step / steps) ** self.power for step in range(1, steps)), low]


@dataclass(frozen=True)
class LogSNRTimes:
    """Steps of equal log-SNR.

    The log-SNR is not finite at t = 0 and may not be at t = 1. A grid that ends below `process.t_min` takes its last
    step from there, and one that starts above 1 - 1e-3 takes its first step to there.

    Attributes:
        process: The process whose signal and noise are meant.
    """

    process: Interpolant

    def __call__(self, high: float, low: float, steps: int) -> list[float]:
        """Steps + 1 decreasing times from `high` to `low`."""
        top, bottom = min(high, 1.0 - _MARGIN), max(low, self.process.t_min, torch.finfo(torch.float32).tiny)
        head, tail = [high] if high > top else [], [low] if low < bottom else []
        inner = steps - len(head) - len(tail)
        if steps == 1 or not bottom < top:
            return uniform_times(high, low, steps)
        ends = self._log_snr(torch.tensor([top, bottom], dtype=torch.float64))
        wanted = ends[0] + (ends[1] - ends[0]) * torch.arange(inner + 1, dtype=torch.float64) / max(inner, 1)
        times = self._inverse(wanted).tolist()
        times[0] = top
        if inner > 0:
            times[-1] = bottom
        return [*head, *times, *tail]

    def _log_snr(self, t: torch.Tensor) -> torch.Tensor:
        signal, noise, *_ = self.process.coefficients(t)
        return (signal / noise).log()

    def _inverse(self, wanted: torch.Tensor) -> torch.Tensor:
        """Times of given log-SNR, by bisection: it falls with t on every path."""
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            later = self._log_snr(middle) > wanted
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return 0.5 * (low + high)


def place(grid: Grid, high: float, low: float, steps: int) -> list[float]:
    """The times of a grid, checked.

    Args:
        grid: A grid, one of this module or the user's.
        high: The time to start at.
        low: The time to end at.
        steps: Number of steps, at least 1.

    Raises:
        InputError: If steps < 1, or the grid gives another number of times, other ends, or times that do not decrease.
    """
    if steps < 1:
        raise InputError(f"expected at least 1 step, got {steps}")
    times = [float(time) for time in grid(high, low, steps)]
    falls = all(after < before for before, after in pairwise(times))
    if len(times) != steps + 1 or not falls or abs(times[0] - high) > 1e-9 or abs(times[-1] - low) > 1e-9:
        raise InputError(
            f"the grid gave {len(times)} times for {steps} steps from {high:g} to {low:g}; expected {steps + 1} "
            "decreasing times with these ends (or take more steps)"
        )
    return times


def chain_times(grid: Grid, process: Process, steps: int) -> list[float]:
    """The times of a chain of `steps` steps from t_max to 0 that never asks a denoiser about times below t_min.

    Where the grid would put times below t_min, its last step is the one from t_min to 0.

    Args:
        grid: A grid.
        process: The process.
        steps: Number of steps, at least 1.

    Raises:
        InputError: As `place` does.
    """
    times = place(grid, process.t_max, 0.0, steps)
    if steps > 1 and times[-2] < process.t_min:
        return [*place(grid, process.t_max, process.t_min, steps - 1), 0.0]
    return times
