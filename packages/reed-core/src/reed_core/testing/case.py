"""A process with data to be checked on, and what the checks of processes and bounds ask of the two."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.noise import NoiseSource
from reed_core.process.base import Corrupted, Process
from reed_core.state import State, any_tensor, batch_size, map_state
from reed_core.testing import measure


@dataclass(frozen=True)
class Case:
    """A batch under a process.

    Attributes:
        process: The process.
        x_0: Data, [b, ...].
        mask: Its mask, or None.
        exact: The best prediction for a corruption.
        seed: Of the noise.
        positions: Of the samples.
    """

    process: Process
    x_0: State
    mask: State
    exact: Callable[[Corrupted], State]
    seed: int = 0
    positions: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of samples."""
        return batch_size(self.x_0)

    def noise(self, shift: int = 0) -> NoiseSource:
        """A fresh source; the same one each time for the same shift."""
        positions = self.positions or [measure.position(sample) for sample in range(self.size)]
        return NoiseSource(self.seed + 1000 * shift, positions)

    def corrupt(self, t: Float[Tensor, "b"]) -> Corrupted:
        """x_t at t, with the noise of this case."""
        return self.process.corrupt(self.x_0, t, self.noise(), self.mask)

    def at(self, t: float) -> Float[Tensor, "b"]:
        """One time for all samples."""
        return torch.full((self.size,), t, device=any_tensor(self.x_0).device)

    def spread(self) -> Float[Tensor, "b"]:
        """Times in the upper two thirds of the range, another for each sample."""
        part = torch.linspace(0.35, 0.9, self.size, device=any_tensor(self.x_0).device)
        return self.process.t_min + (self.process.t_max - self.process.t_min) * part

    def wrong(self, corrupted: Corrupted, shift: int = 0) -> State:
        """A random prediction."""
        generator = torch.Generator().manual_seed(self.seed + shift)
        return map_state(lambda value: torch.randn(value.shape, generator=generator).to(value), self.exact(corrupted))

    def single(self, sample: int) -> "Case":
        """One sample without its padding, with its own noise."""
        x_0, mask = measure.alone(self.x_0, self.mask, sample), measure.cut_mask(self.mask, sample)
        return replace(self, x_0=x_0, mask=mask, positions=self.place(sample))

    def place(self, sample: int) -> tuple[int, ...]:
        """The position of one sample."""
        return (self.noise().positions[sample],)

    def many(self, sample: int, count: int) -> "Case":
        """One sample many times, each time with other noise."""
        mask = None if self.mask is None else measure.repeat(self.mask, sample, count)
        return replace(self, x_0=measure.repeat(self.x_0, sample, count), mask=mask, positions=tuple(range(count)))

    def row(self, sample: int) -> tuple[State, State]:
        """The mask (or None) and the data of one sample, as batches of one, padding and all."""
        one = slice(sample, sample + 1)
        return None if self.mask is None else measure.rows(self.mask, one), measure.rows(self.x_0, one)

    def mask_of(self, name: str) -> Any:
        """The mask of one field ('' for a state that is one tensor)."""
        return self.mask.get(name) if isinstance(self.mask, Mapping) else self.mask
