"""A reveal time that is certain: alpha is an atom, so it has draws and a survival function, but no density."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.reveal.density import RevealDensity, checked_steps


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
        """1 for t <= at, else 0; `at` is rounded to the precision of t."""
        return (t <= self.at).to(t.dtype)

    def quantile(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`at`, whatever u."""
        return torch.full_like(u, self.at)

    def on_grid(self, steps: int) -> Float[Tensor, "T"]:
        """All mass on the step whose interval ((t-1)/T, t/T] holds `at`; at = 0 belongs to step 1."""
        alpha = torch.zeros(checked_steps(steps), dtype=torch.float64)
        alpha[max(math.ceil(self.at * steps - 1e-9), 1) - 1] = 1.0
        return alpha
