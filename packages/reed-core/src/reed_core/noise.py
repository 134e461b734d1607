"""Randomness that belongs to samples: every draw is keyed by (seed, position of the sample), never by the batch.

A `NoiseSource` serves one stream per sample and per draw: the i-th draw for a sample is keyed by (seed, position, i).
The same sample draws the same numbers alone, in a batch, in a batch padded to another length, and on any device,
because streams are drawn on the CPU in float64 and a draw that is longer along its first axis extends a shorter one.

Training times come from an additive recurrence over positions, frac(u + i / golden ratio): over seeds each is uniform
on [0, 1), and neighbours spread over the interval (a low-discrepancy sequence: the loss of a batch varies less).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_MASK64 = (1 << 64) - 1
_INVERSE_GOLDEN_RATIO = 0.6180339887498949
_TIME_STREAM = 0x7469_6D65


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several integers (splitmix64 finaliser applied to each in turn)."""
    state = 0
    for part in parts:
        state = (state + (part & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state >> 1


class NoiseSource:
    """Independent random streams, one per sample of a batch.

    Args:
        seed: The seed of the run.
        positions: The position of each sample in the run (samples seen so far, or the number of the design).
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        self.seed = seed
        self.positions = tuple(int(position) for position in positions)
        self._draws = 0

    def __len__(self) -> int:
        return len(self.positions)

    def times(self) -> Float[Tensor, "b"]:
        """A time in [0, 1) for each sample: uniform over seeds, evenly spread over consecutive positions."""
        offset = torch.rand((), generator=torch.Generator().manual_seed(mix_seed(self.seed, _TIME_STREAM)))
        steps = [(position * _INVERSE_GOLDEN_RATIO) % 1.0 for position in self.positions]
        return ((torch.tensor(steps, dtype=torch.float64) + offset.double()) % 1.0).float().clamp(max=1.0 - 2.0**-24)

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Uniform draws on [0, 1), float64.

        Args:
            shape: The shape of one sample; the batch axis is added in front.
        """
        self._draws += 1
        seeds = [mix_seed(self.seed, position, self._draws) for position in self.positions]
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.rand(tuple(shape), generator=stream, dtype=torch.float64) for stream in streams])

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Standard normal draws, float32, by inversion of `uniform`.

        Args:
            shape: The shape of one sample; the batch axis is added in front.
        """
        return torch.special.ndtri(self.uniform(shape).clamp(1e-12, 1.0 - 1e-12)).float()

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Standard Gumbel draws, float32: argmax(logits + gumbel) is a sample of softmax(logits).

        Args:
            shape: The shape of one sample; the batch axis is added in front.
        """
        return -torch.log(-torch.log(self.uniform(shape).clamp(1e-12, 1.0 - 1e-12))).float()
