"""Several fields diffusing together: coordinates and types, or data and its representation, each on its own clock.

    x = {name: x^f},   q(x_t | x_0) = prod_f q^f(x^f at s_f(t) | x^f_0),   s_f a clock of the one master time t

Given x_t and x_0 the reverse kernels of the fields are independent, and so are those of a model that predicts each
field from the whole of x_t. So costs add up, each per unit of its own time and hence times ds_f/dt:
    nats(t) = sum_f s_f'(t) nats^f(s_f(t)),   log Z = sum_f s_f' log Z^f,   prior = sum_f prior^f
The integral over t of a field's part is its integral over its own time, whatever its clock (joint, z first, x first).

Edges. A field lives on [t_min, t_max] of its process. With s = s_f(t):
    s >= t_max       at t_max, standing still: noise, its distance from the prior is `prior_nats`; no loss
    s in between     at s
    0 < s <= t_min   at t_min, standing still, until the last step to s = 0; no loss
    s = 0            clean, exactly x_0; no loss
The bound counts the last step of all fields at the master t_min. A field that is clean by then (a window that starts
later) took its last step before, at a time of which a prediction at t_min knows nothing: give its window a floor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import BoundedProcess, Corrupted, HybridNats, Process, expand_mask
from reed_core.process.clock import Clock, Same
from reed_core.state import State


class FieldTime(NamedTuple):
    """Where a field stands, each [b].

    Attributes:
        time: Its own time, in [t_min, t_max] of its process.
        rate: d time / dt; 0 where it stands still.
        clean: True where its clock shows 0.
    """

    time: Tensor
    rate: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Product:
    """Independent forward processes of several fields; states, predictions and targets are mappings by field.

    Attributes:
        fields: The process of each field; the bound needs bounded ones. Noise is drawn in this order.
        clocks: The clock of each field; `Same` for those left out.
        weights: Weight of each field in the training loss; 1 for those left out. The bound has no weights.
    """

    fields: Mapping[str, Process]
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.fields:
            raise InputError("a product needs at least one field, got none")
        unknown = sorted((set(self.clocks) | set(self.weights)) - set(self.fields))
        if unknown:
            raise InputError(f"clock or weight of {', '.join(unknown)}; the fields are {', '.join(self.fields)}")
        nested = [name for name, process in self.fields.items() if isinstance(process, Product)]
        if nested:
            raise InputError(f"field {', '.join(nested)} is itself a product; name its fields in this one")

    @property
    def t_min(self) -> float:
        """The first master time at which some field moves."""
        return min(self.clock(name).when(process.t_min) for name, process in self.fields.items())

    @property
    def t_max(self) -> float:
        """The last master time at which some field moves."""
        return max(self.clock(name).when(process.t_max) for name, process in self.fields.items())

    def clock(self, name: str) -> Clock:
        """The clock of a field."""
        return self.clocks.get(name, Same())

    def field_time(self, name: str, t: Float[Tensor, "b"]) -> FieldTime:
        """Where a field stands at master time t."""
        process, clock = self.fields[name], self.clock(name)
        s = clock(t)
        moving = (s > process.t_min) & (s < process.t_max)
        rate = torch.where(moving, clock.rate(t), torch.zeros_like(s))
        return FieldTime(s.clamp(process.t_min, process.t_max), rate, s <= 0)

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform master times on [t_min, t_max)."""
        return self.t_min + (self.t_max - self.t_min) * noise.times()

    def corrupt(self, x_0: State, t: Float[Tensor, "b"], noise: NoiseSource, mask: State = None) -> Corrupted:
        """Corrupts each field at its own time.

        Args:
            x_0: Data by field.
            t: Master times, [b].
            noise: One stream per sample.
            mask: One mask for all fields, a mapping of a mask (or None) by field, or None.

        Returns:
            The corruption of the whole, of which `parts` holds that of each field, at its own time.
        """
        clean, masks = self._fields(x_0), self._masks(mask)
        parts = {}
        for name, process in self.fields.items():
            at = self.field_time(name, t)
            part = process.corrupt(clean[name], at.time, noise, masks[name])
            x_t = torch.where(expand_mask(at.clean, part.x_t), part.x_0, part.x_t)
            scored = part.scored
            if scored is not None:
                scored = scored & ~expand_mask(at.clean, scored)
            parts[name] = replace(part, x_t=x_t, scored=scored)
        return Corrupted(
            x_0={name: part.x_0 for name, part in parts.items()},
            x_t={name: part.x_t for name, part in parts.items()},
            t=t,
            target={name: part.target for name, part in parts.items()},
            mask=mask,
            parts=parts,
        )

    def loss(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """sum_f weight_f s_f'(t) loss_f: over uniform t, each field's loss is its own over uniform s_f."""
        said, terms = self._fields(prediction), []
        for name, process in self.fields.items():
            loss = self._paced(name, corrupted, process.loss(said[name], corrupted.parts[name]))
            terms.append(self.weights.get(name, 1.0) * loss)
        return _total(terms)

    def prior(self, like: State, noise: NoiseSource, mask: State = None) -> State:
        """Draws every field at its end of time; the mask as in `corrupt`."""
        like, masks = self._fields(like), self._masks(mask)
        return {name: process.prior(like[name], noise, masks[name]) for name, process in self.fields.items()}

    def step(
        self,
        prediction: State,
        x_t: State,
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: State = None,
    ) -> State:
        """Steps each field from its time at t to its time at s; where its clock stands still it is unchanged.

        Args:
            prediction: Predictions by field, at t.
            x_t: State at t.
            t: Master times, [b].
            s: Master times to go to, [b], 0 <= s < t; at 0 every field is data.
            noise: One stream per sample.
            mask: As in `corrupt`.
        """
        said, here, masks = self._fields(prediction), self._fields(x_t), self._masks(mask)
        out = {}
        for name, process in self.fields.items():
            now, after = self.field_time(name, t), self.field_time(name, s)
            goal = torch.where(after.clean | (s <= 0), torch.zeros_like(s), after.time)
            moves = ~now.clean & (goal < now.time)
            goal = torch.where(moves, goal, torch.zeros_like(goal))  # every process can step to 0
            x_s = process.step(said[name], here[name], now.time, goal, noise, masks[name])
            out[name] = torch.where(expand_mask(moves, x_s), x_s, here[name])
        return out

    def prior_nats(self, x_0: State, mask: State = None) -> Float[Tensor, "b"]:
        """The sum over fields of KL(q(x_{t_max} | x_0) || p(x_{t_max}))."""
        clean, masks = self._fields(x_0), self._masks(mask)
        return _total([process.prior_nats(clean[name], masks[name]) for name, process in self._bounded()])

    def nats(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """sum_f s_f'(t) nats_f, per unit of master time."""
        said, parts = self._fields(prediction), corrupted.parts
        return _total(
            [self._paced(name, corrupted, process.nats(said[name], parts[name])) for name, process in self._bounded()]
        )

    def hybrid_nats(
        self, unconditional: State, conditional: State, A: Float[Tensor, "b"], corrupted: Corrupted
    ) -> HybridNats:
        """The sums over fields of s_f'(t) KL(q || p~_f) and s_f'(t) log Z_f: p~ and Z factorise over fields."""
        without, given = self._fields(unconditional), self._fields(conditional)
        denoising, normaliser = [], []
        for name, process in self._bounded():
            nats = process.hybrid_nats(without[name], given[name], A, corrupted.parts[name])
            denoising.append(self._paced(name, corrupted, nats.denoising))
            normaliser.append(self._paced(name, corrupted, nats.log_normaliser))
        return HybridNats(_total(denoising), _total(normaliser))

    def reconstruction_nats(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The sum over fields of -log p(x_0 | x_t) at the master t_min.

        Raises:
            InputError: If a field is clean at t_min, so that its last step lies elsewhere.
        """
        start = torch.tensor([self.t_min], dtype=torch.float64)
        early = [name for name in self.fields if bool(self.field_time(name, start).clean)]
        if early:
            raise InputError(
                f"field {', '.join(early)} is clean at t = {self.t_min:g}, where the bound counts the last step; "
                "give its Window a floor, such as the t_min of its process"
            )
        said, parts = self._fields(prediction), corrupted.parts
        return _total([process.reconstruction_nats(said[name], parts[name]) for name, process in self._bounded()])

    def _bounded(self) -> list[tuple[str, BoundedProcess]]:
        bounded = [(name, process) for name, process in self.fields.items() if isinstance(process, BoundedProcess)]
        if len(bounded) < len(self.fields):
            others = ", ".join(set(self.fields) - {name for name, _ in bounded})
            raise InputError(f"field {others} has no bound; give it a process with nats, or leave the bound out")
        return bounded

    def _paced(self, name: str, corrupted: Corrupted, cost: Tensor) -> Tensor:
        """Cost times ds/dt; 0 where the clock stands still, even where the cost is infinite."""
        rate = self.field_time(name, corrupted.t).rate.to(cost)
        return torch.where(rate > 0, cost * rate, torch.zeros_like(cost))

    def _fields(self, state: State) -> Mapping[str, Tensor]:
        if not isinstance(state, Mapping) or set(state) != set(self.fields):
            found = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
            raise InputError(f"expected the fields {', '.join(self.fields)}, got {found}; give every field a value")
        return state

    def _masks(self, mask: State) -> Mapping[str, Tensor | None]:
        return self._fields(mask) if isinstance(mask, Mapping) else dict.fromkeys(self.fields, mask)


def _total(terms: list[Tensor]) -> Float[Tensor, "b"]:
    """The sum of the fields' terms, in the widest of their dtypes."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
