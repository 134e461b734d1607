"""A measured figure and the limit it is held to; deviations relative to 1 + |truth|."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

TOLERANCE = 1e-9
# What has to be there, in nats: far above rounding (1e-14), below the least bias of 2-step models (1e-8).
PRESENT = 1e-10
STANDARD_ERRORS = 6.0


@dataclass(frozen=True)
class Check:
    """One measured figure and the limit it is held to."""

    label: str
    what: str
    value: float
    limit: float = TOLERANCE
    at_least: bool = False

    @property
    def margin(self) -> float:
        """How far the figure is on the right side of its limit."""
        return self.value - self.limit if self.at_least else self.limit - self.value

    @property
    def passed(self) -> bool:
        """Whether the figure is finite and on the right side of its limit."""
        return math.isfinite(self.value) and self.margin >= 0


def deviation(measured: Tensor, truth: Tensor) -> float:
    """The largest |measured - truth| / (1 + |truth|); infinite when something is not a number."""
    worst = float(((measured - truth).abs() / (1.0 + truth.abs())).max())
    return math.inf if math.isnan(worst) else worst


def excess(small: Tensor, large: Tensor) -> float:
    """By how much `small <= large` is violated at worst, relative to 1 + |large|."""
    worst = float(((small - large) / (1.0 + large.abs())).max())
    return math.inf if math.isnan(worst) else max(worst, 0.0)


def tails(alpha: Tensor) -> Tensor:
    """A_t from its definition, one sum for each step."""
    return alpha.new_tensor([math.fsum(alpha[t:].tolist()) for t in range(len(alpha))])


def ours(kernel: Any, x: Tensor) -> Tensor:
    """The log-density that reed_core's kernel gives."""
    log_prob: Tensor = kernel.log_prob(x)
    return log_prob
