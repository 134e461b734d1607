"""Sampling when a part of the molecule is given: its first k atoms, or the types of its atoms alone.

What a network says of the given part is what is given (`part`), and the step goes on as always: the given part walks
back along q(x_s | x_t, x_0) with its own x_0. Its states are then one path of the forward process, not a fresh draw at
every time (RePaint, arXiv 2201.09865). A network trained with parts reads the given part clean from the first step on;
one trained on whole molecules alone sees it through the noise, too late to make room for it, unless each step is taken
r > 1 times (`resample`): the state at s is led back to t by the forward kernel q(x_t | x_s), so that the free part can
adapt to the given one.

Forward kernels. An interpolant leads s to t by x_t = a x_s + sqrt(noise_t^2 - a^2 noise_s^2) eps, a = signal_t /
signal_s. Tokens that survive to t with probability 1 - t do so from s with (1 - t) / (1 - s): it is the corruption of
x_s at time (t - s) / (1 - s), for uniform and for masked noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Product
from reed_core.sample.batch import at_time, check_noise, hold
from reed_core.sample.grid import Grid, chain_times, uniform_times
from torch import Tensor

from reed_molecule.condition import Condition
from reed_molecule.part import Part, State
from reed_molecule.vocabulary import NO_BOND

Watch = Callable[[float, State], None]


@dataclass(frozen=True)
class Given:
    """What is known of the first k atoms of every sample.

    Attributes:
        types: Their types, [k].
        coords: Their coordinates in model units, [k, 3], up to a translation; None leaves all coordinates free.
        charges: Their charge classes, [k], or None.
        bonds: The bonds among them, [k, k], symmetric, or None.
        closed: Which of them get no bond to an atom that is not given, [k], or None.
    """

    types: Int[Tensor, "k"]
    coords: Float[Tensor, "k 3"] | None = None
    charges: Int[Tensor, "k"] | None = None
    bonds: Int[Tensor, "k k"] | None = None
    closed: Bool[Tensor, "k"] | None = None

    def __len__(self) -> int:
        return len(self.types)

    def part(self, like: State, told: Condition) -> Part:
        """The same for a batch.

        Args:
            like: A state of the batch, for shapes, dtypes and device; its values do not matter.
            told: Which atoms exist.

        Raises:
            InputError: If a sample has fewer atoms than are given.
        """
        k, (b, n) = len(self), told.mask.shape
        if int(told.mask.sum(1).min()) < k:
            raise InputError(f"{k} atoms are given to a sample of {int(told.mask.sum(1).min())}; ask for more atoms")
        x_0 = {name: torch.zeros_like(value) for name, value in like.items()}
        known = {name: torch.zeros(value.shape[:2], dtype=torch.bool, device=value.device)
                 for name, value in like.items() if name != "bonds"}  # fmt: skip
        known["bonds"] = torch.zeros(b, n, n, dtype=torch.bool, device=told.mask.device)
        for name, value in (("types", self.types), ("coords", self.coords), ("charges", self.charges)):
            if value is not None:
                x_0[name][:, :k] = value.to(x_0[name])
                known[name][:, :k] = True
        if self.bonds is not None:
            x_0["bonds"][:, :k, :k] = self.bonds.to(x_0["bonds"])
            known["bonds"][:, :k, :k] = True
        if self.closed is not None:
            x_0["bonds"][:, :k, k:] = x_0["bonds"][:, k:, :k] = NO_BOND
            shut = self.closed.to(told.mask.device)
            known["bonds"][:, :k, k:] |= shut[None, :, None]
            known["bonds"][:, k:, :k] |= shut[None, None, :]
        known["bonds"] &= told.pairs
        return Part(x_0, known)


def renoised(
    process: Product, x_s: State, s: float, t: float, noise: NoiseSource, mask: State
) -> dict[str, Shaped[Tensor, "b ..."]]:
    """One draw of the forward kernel from s to t > s, all fields on the master clock."""
    out = {}
    for name, field in process.fields.items():
        value = x_s[name]
        early, late = (process.field_time(name, at_time(x_s, time)).time for time in (s, t))
        if isinstance(field, Interpolant):
            at_s, at_t = (field.coefficients(time.to(value)[:, None, None]) for time in (early, late))
            ratio = at_t.signal / at_s.signal
            spread = (at_t.noise.square() - (ratio * at_s.noise).square()).clamp(min=0).sqrt()
            out[name] = ratio * value + spread * field.prior(value, noise, mask[name])
        else:
            out[name] = field.corrupt(value, (late - early) / (1 - early), noise, mask[name]).x_t
    return out


def check_temperature(temperature: float) -> None:
    """Checks a temperature.

    Raises:
        InputError: If it is not a number above 0.
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature {temperature:g}: expected a number above 0, 1 for draws from the model itself")


def tempered(process: Product, said: State, temperature: float) -> State:
    """A prediction whose logits are divided by a temperature; coordinates stay."""
    if temperature == 1.0:
        return said
    continuous = {name for name, field in process.fields.items() if isinstance(field, Interpolant)}
    return {name: value if name in continuous else value / temperature for name, value in said.items()}


@torch.no_grad()
def chain(
    process: Product,
    denoiser: Any,
    x: State,
    steps: int,
    noise: NoiseSource,
    told: Condition,
    *,
    resample: int = 1,
    watch: Watch | None = None,
    grid: Grid = uniform_times,
    temperature: float = 1.0,
) -> State:
    """The reverse chain from noise to data: `reed_core.sample.ancestral`, with repeated steps and a temperature.

    Args:
        process: The process, all fields on the master clock.
        denoiser: The denoiser.
        x: State at t = 1.
        steps: Number of steps.
        noise: Streams of the steps.
        told: Which atoms exist, and what is given of them.
        resample: How often each step is taken, at least 1.
        watch: Called with the time and the state before every step.
        grid: Where the steps lie.
        temperature: Divides the logits of every discrete field, above 0; 1 draws from the model.

    Raises:
        InputError: If steps or resample < 1, temperature is not above 0, or the noise does not fit.
    """
    if resample < 1:
        raise InputError(f"resample is {resample}; expected at least 1")
    check_temperature(temperature)
    check_noise(x, noise)
    mask = told.masks()
    times = chain_times(grid, process, steps)
    x = hold(x, mask)
    for time, after in pairwise(times):
        t, s = at_time(x, time), at_time(x, after)
        for turn in range(resample if after > 0 else 1):
            if turn:
                x = hold(renoised(process, x, after, time, noise, mask), mask)
            if watch is not None:
                watch(time, x)
            said = tempered(process, denoiser(x, t, told), temperature)
            x = hold(process.step(said, x, t, s, noise, mask), mask)
    return x
