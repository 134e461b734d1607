"""Sampling when a part of the molecule is given: its first k atoms, or the types of its atoms alone.

Replacement (RePaint, arXiv 2201.09865): after every step to time s the given part of the state is replaced by a draw of
q(x_s | x_0) of the process itself, at s = 0 by x_0. With `resample` r > 1 each step is taken r times: the state at s is
led back to t by the forward kernel q(x_t | x_s), so that the free part can adapt to the given one.

Coordinates live where the centre of mass of all atoms is 0, and where the given atoms lie in that frame depends on the
atoms that are not there yet. Split the subspace into the given atoms about their own centre, and the rest:
    x_K = (I - 11^T / k) x_K + (mean of x_K)
Noise of orthogonal parts is independent, so only the first part is replaced, and the mean of the given atoms is left to
the model: the centre of mass of all stays 0 by construction. Orientation is that of the given atoms.

Forward kernels. An interpolant leads s to t by x_t = a x_s + sqrt(noise_t^2 - a^2 noise_s^2) eps, a = signal_t /
signal_s. Tokens that survive to t with probability 1 - t do so from s with (1 - t) / (1 - s): it is the corruption of
x_s at time (t - s) / (1 - s), for uniform and for masked noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Product
from reed_core.sample.batch import at_time, check_noise, hold
from reed_core.sample.grid import chain_times, uniform_times
from torch import Tensor

from reed_molecule.condition import Condition
from reed_molecule.vocabulary import NO_BOND

State = Mapping[str, Tensor]
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

    def imposed(self, like: State, told: Condition) -> "Imposed":
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
        return Imposed(x_0, known)


@dataclass(frozen=True)
class Imposed:
    """The given part of a batch.

    Attributes:
        x_0: Clean values by field; they count where `known` is True.
        known: Where each field is given: [b, n], bonds [b, n, n].
    """

    x_0: State
    known: State

    def at(self, process: Product, x: State, time: float, noise: NoiseSource, mask: State) -> dict[str, Tensor]:
        """A state with its given part as it is at a time: a draw of the forward process, or x_0 at time 0."""
        if time > 0:
            drawn: State = process.corrupt(self.x_0, at_time(x, time), noise, mask).x_t
        else:
            drawn = self.x_0
        out = {name: torch.where(self.known[name], drawn[name], x[name]) for name in x if name != "coords"}
        return {"coords": placed(x["coords"], drawn["coords"], self.known["coords"]), **out}


def placed(
    free: Float[Tensor, "b n 3"], given: Float[Tensor, "b n 3"], known: Bool[Tensor, "b n"]
) -> Float[Tensor, "b n 3"]:
    """Replaces known points by given ones, moved so that the mean of the known points stays where it was."""
    part = known[..., None]
    count = part.sum(1, keepdim=True).clamp(min=1)
    shift = torch.where(part, free - given, 0.0).sum(1, keepdim=True) / count
    return torch.where(part, given + shift, free)


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


@torch.no_grad()
def chain(
    process: Product,
    denoiser: Any,
    x: State,
    steps: int,
    noise: NoiseSource,
    told: Condition,
    *,
    imposed: Imposed | None = None,
    given_noise: NoiseSource | None = None,
    resample: int = 1,
    watch: Watch | None = None,
) -> State:
    """The reverse chain from noise to data; without a given part it is `reed_core.sample.ancestral`.

    Args:
        process: The process, all fields on the master clock.
        denoiser: The denoiser.
        x: State at t = 1.
        steps: Number of steps.
        noise: Streams of the steps.
        told: Which atoms exist.
        imposed: The given part.
        given_noise: Streams of its corruption; needed with `imposed`.
        resample: How often each step is taken, at least 1.
        watch: Called with the time and the state before every step.

    Raises:
        InputError: If steps or resample < 1, or the noise does not fit.
    """
    if resample < 1:
        raise InputError(f"resample is {resample}; expected at least 1")
    if (imposed is None) != (given_noise is None):
        raise InputError("a given part and its noise go together; pass both or neither")
    check_noise(x, noise)
    mask = told.masks()

    def with_given(state: State, time: float) -> State:
        if imposed is None or given_noise is None:
            return state
        return imposed.at(process, state, time, given_noise, mask)

    times = chain_times(uniform_times, process, steps)
    x = with_given(hold(x, mask), times[0])
    for time, after in pairwise(times):
        t, s = at_time(x, time), at_time(x, after)
        for turn in range(resample if after > 0 else 1):
            if turn:
                x = renoised(process, x, after, time, noise, mask)
                x = with_given(x, time)
            if watch is not None:
                watch(time, x)
            x = with_given(hold(process.step(denoiser(x, t, told), x, t, s, noise, mask), mask), after)
    return x
