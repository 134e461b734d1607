"""Times shifted towards noise, as latents of many dimensions need (arXiv 2403.03206, eq. 23; RAE, arXiv 2510.11690).

    s = a t / (1 + (a - 1) t),   a = sqrt(m / 4096),   m = channels x height x width of x
At the same t the noise drowns less of an x of more dimensions. Training draws t uniformly and asks at s; sampling takes
its steps at s of a uniform grid. An implicit latent's effective reveal density is then its own times that of s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from torch import Tensor

BASE = 4096


@dataclass(frozen=True)
class Shifted(Interpolant):
    """An interpolant whose training times are shifted.

    Attributes:
        shift: a; 1 leaves times as they are.
    """

    shift: float = 1.0

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """S of uniform t, within [t_min, t_max)."""
        return self.t_min + (self.t_max - self.t_min) * shifted(noise.times(), self.shift)

    def grid(self, high: float, low: float, steps: int) -> list[float]:
        """S of times that fall uniformly from `high` to `low`."""
        r = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        times = (low + (high - low) * shifted(r, self.shift)).tolist()
        return [high, *times[1:-1], low]


def shifted(t: Float[Tensor, "..."], shift: float) -> Float[Tensor, "..."]:
    """S of times in [0, 1]."""
    return shift * t / (1 + (shift - 1) * t)


def shift_of(shape: Sequence[int]) -> float:
    """A for one x of this shape."""
    return math.sqrt(math.prod(shape) / BASE)
