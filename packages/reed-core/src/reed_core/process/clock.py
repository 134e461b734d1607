"""Clocks: the time s that one field of a product shows when the master time is t. Each runs from s(0) = 0 to s(1) = 1.

    Same                s = t
    Power(p)            s = t^p
    Window(low, high)   s = clamp((t - low) / (high - low), 0, 1): clean before low, pure noise after high

Sampling runs from t = 1 down, so the field with the later window is generated first: z on Window(0.5, 1) and x on
Window(0, 0.5) is z first, then x given z (the order of RCG); both on Same is joint diffusion (ReDi, arXiv 2504.16064).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError


@runtime_checkable
class Clock(Protocol):
    """A non-decreasing map of [0, 1] into [0, 1]."""

    def __call__(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The field's time s at master time t."""
        ...

    def rate(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """ds/dt >= 0; 0 where the clock stands still."""
        ...

    def when(self, s: float) -> float:
        """The master time at which a moving clock shows s, 0 < s <= 1."""
        ...


@dataclass(frozen=True)
class Same:
    """The master clock itself."""

    def __call__(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The master time."""
        return t

    def rate(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """One."""
        return torch.ones_like(t)

    def when(self, s: float) -> float:
        """The time itself."""
        return s


@dataclass(frozen=True)
class Power:
    """s = t^exponent: above 1 the field is cleaner than the master time says, below 1 noisier.

    Attributes:
        exponent: p > 0. Below 1 the rate is infinite at t = 0.
    """

    exponent: float

    def __post_init__(self) -> None:
        if not 0.0 < self.exponent < float("inf"):
            raise InputError(f"the exponent of a clock is positive and finite, got {self.exponent:g}")

    def __call__(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The power t^p."""
        return t**self.exponent

    def rate(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The derivative, p t^(p-1)."""
        return self.exponent * t ** (self.exponent - 1.0)

    def when(self, s: float) -> float:
        """The root s^(1/p)."""
        return s ** (1.0 / self.exponent)


@dataclass(frozen=True)
class Window:
    """A clock that runs only while low < t < high: 0 before, 1 after.

    Attributes:
        low: Master time up to which the field is clean.
        high: Master time from which the field is pure noise.
        floor: The smallest s shown for t > 0. At 0 a finished field is clean, as a condition should be. A small
            positive floor holds it just short of clean until the last step, so that this step, at t_min, accounts for
            it: the bound of a product needs it (`Product.reconstruction_nats`).
    """

    low: float
    high: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise InputError(f"a window lies in 0 <= low < high <= 1, got {self.low:g} and {self.high:g}")
        if not 0.0 <= self.floor < 1.0:
            raise InputError(f"the floor of a window lies in [0, 1), got {self.floor:g}")

    def __call__(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The share of the window behind t, clamped to [floor, 1]; 0 at t = 0."""
        s = ((t - self.low) / (self.high - self.low)).clamp(self.floor, 1.0)
        return torch.where(t > 0, s, torch.zeros_like(s))

    def rate(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """1 / (high - low) where the clock runs, 0 where it stands still."""
        s = (t - self.low) / (self.high - self.low)
        return torch.where((s > self.floor) & (s < 1.0), 1.0 / (self.high - self.low), 0.0).to(t)

    def when(self, s: float) -> float:
        """The time low + s (high - low), for s above the floor."""
        return self.low + max(s, self.floor) * (self.high - self.low)
