"""Curricula over training: a(n) weighs alignment, b(n) weighs denoising (THEORY section 5).

n counts samples seen, so cadences survive a change of batch size. Never confuse a(n), b(n) with the reveal density
alpha(t), which lives in diffusion time.

Adam undoes the weight of a loss wherever no other loss reaches: gradients of b(n) l are normalised to those of l. A
representation that truly comes first needs the learning rate of those layers scaled as well: scope "learning_rate".
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from reed_core.errors import InputError

Reached = Literal["both", "denoising", "alignment"]
"""The losses whose gradient reaches a parameter."""


@dataclass(frozen=True)
class Schedule:
    """A weight in [0, 1] over training: 0 before `start`, linear to 1 over `warmup`, then held or decayed until `end`.

    Attributes:
        start: Samples seen before the weight leaves 0.
        warmup: Samples over which it rises linearly to 1.
        decay: "constant"; "linear" or "cosine" to 0 at `end`; "stop": 1 up to `end`, then 0.
        end: Samples seen at which the decay ends; needed unless decay is "constant".
    """

    start: float = 0.0
    warmup: float = 0.0
    decay: Literal["constant", "linear", "cosine", "stop"] = "constant"
    end: float | None = None

    def __post_init__(self) -> None:
        if self.decay not in ("constant", "linear", "cosine", "stop"):
            raise InputError(f"decay '{self.decay}' is unknown; expected constant, linear, cosine or stop")
        if self.start < 0 or self.warmup < 0:
            raise InputError(f"start and warmup count samples, got {self.start:g} and {self.warmup:g}")
        peak = self.start + self.warmup
        if self.decay == "constant" and self.end is not None:
            raise InputError(f"a constant weight has no end, got {self.end:g}; choose linear, cosine or stop")
        if self.decay != "constant" and (self.end is None or self.end <= peak):
            raise InputError(f"decay '{self.decay}' needs an end after start + warmup = {peak:g}, got {self.end}")

    def __call__(self, n: float) -> float:
        """The weight after n samples."""
        if n < self.start:
            return 0.0
        peak = self.start + self.warmup
        if n < peak:
            return (n - self.start) / self.warmup
        if self.decay == "constant" or self.end is None:
            return 1.0
        if n >= self.end:
            return 0.0
        progress = (n - peak) / (self.end - peak)
        return {"linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)), "stop": 1.0}[self.decay]


@dataclass(frozen=True)
class Curriculum:
    """The pair a(n), b(n).

    Attributes:
        alignment: a(n), the weight of all alignment terms. When it is 0 they cost nothing: no encoder, no projector.
        denoising: b(n), the weight of the denoising term.
        scope: What they scale: "loss"; or "learning_rate": the losses, and the learning rate of each parameter by what
            reaches it.
    """

    alignment: Schedule = field(default_factory=Schedule)
    denoising: Schedule = field(default_factory=Schedule)
    scope: Literal["loss", "learning_rate"] = "loss"

    def __post_init__(self) -> None:
        if self.scope not in ("loss", "learning_rate"):
            raise InputError(f"curriculum scope '{self.scope}' is unknown; expected loss or learning_rate")

    def a(self, n: float) -> float:
        """The alignment weight after n samples."""
        return self.alignment(n)

    def b(self, n: float) -> float:
        """The denoising weight after n samples."""
        return self.denoising(n)

    def rate(self, n: float, reached: Reached) -> float:
        """The factor of a parameter's learning rate after n samples, by the losses that reach it; 1 for scope "loss".

        A loss that is off at n moves nothing, so what both reach follows the larger weight.
        """
        if self.scope == "loss":
            return 1.0
        a, b = self.a(n), self.b(n)
        return {"both": max(a, b), "denoising": b, "alignment": a}[reached]
