"""The terms of L_VB^z of a batch, each a Monte-Carlo estimate (THEORY Prop. 1, in continuous t).

    L = prior + int_{t_min}^{t_max} E[KL(q || p~_t) - log Z_t] dt + reconstruction - sum_l E_tau log p(z_l | x_tau, z_S)

* denoising, log_normaliser: t is drawn from pi(t) = 1/2 uniform + 1/2 log-uniform on [t_min, t_max], since costs grow
  like 1/t near data, and the process's nats are divided by pi. One explicit latent: p_u and p_c are both run and give
  p~ and log Z. Several: one revealed set S is drawn from the coupling, which gives the sum of both terms (THEORY D14).
  None (implicit): p_u = p_c and log Z = 0. Even exact heads then leave a gap, sum_t A_t I(x_{t-1}; z|x_t) (THEORY D8):
  denoising saves nothing by a z it is not told.
* reconstruction: at t_min, every z shown (A_1 = 1).
* alignment: tau_l ~ alpha_l, clamped into [t_min, t_max] (step 1 stands for all times below it, THEORY section 1). The
  head sees the given latents that are revealed before it: of two revealed at once, the first listed comes first.

Times are stratified: a repeat puts u = frac(v + s / times), s = 0..times-1, through a quantile function, with v drawn
for each sample and repeat. All randomness is keyed by (seed, repeat, s, place of the sample in the data): nothing is
shared between samples, which makes the errors of `reed_core.bound.estimate` honest, and batches may have any size.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.bound.estimate import ALIGNMENT
from reed_core.coupling import Sampled, revealed
from reed_core.latent import Latent, Representations, Revealed
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Objective
from reed_core.process.base import BoundedProcess
from reed_core.readout import Readout
from reed_core.state import State, any_tensor

_DENOISING, _ALIGNMENT, _RECONSTRUCTION = 1, 2, 3
_BISECTIONS = 60


@dataclass(frozen=True)
class TimeDensity:
    """pi(t) = 1/2 uniform + 1/2 log-uniform on [low, high]; uniform when low is 0.

    Attributes:
        low: Smallest time.
        high: Largest time.
    """

    low: float
    high: float

    def density(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """pi(t), for t in [low, high]."""
        flat = torch.full_like(t, 1.0 / (self.high - self.low))
        return flat if self.low == 0 else 0.5 * flat + 0.5 / (t * self._span(t))

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse distribution function, by bisection."""
        if self.low == 0:
            return self.high * u
        below, above = torch.full_like(u, self.low), torch.full_like(u, self.high)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (below + above)
            reached = 0.5 * (middle - self.low) / (self.high - self.low) + 0.5 * (middle / self.low).log() / self._span(
                u
            )
            below, above = torch.where(reached < u, middle, below), torch.where(reached < u, above, middle)
        return 0.5 * (below + above)

    def _span(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.high / self.low, dtype=like.dtype).log()


@dataclass(frozen=True)
class Terms:
    """Draws the terms of batches.

    Attributes:
        denoiser: The network.
        objective: Its objective.
        process: The objective's process.
        seed: Seed of all draws.
        repeats: Independent repeats.
        times: Stratified times within a repeat.
    """

    denoiser: Callable[..., State]
    objective: Objective
    process: BoundedProcess
    seed: int
    repeats: int
    times: int

    @property
    def explicit(self) -> tuple[Latent, ...]:
        """Latents that the denoiser is told."""
        return tuple(latent for latent in self.objective.latents if latent.injection == "explicit")

    @property
    def scored(self) -> tuple[Latent, ...]:
        """Latents whose alignment is part of the bound."""
        return tuple(latent for latent in self.objective.latents if latent.weight != 0.0)

    @property
    def used(self) -> tuple[Latent, ...]:
        """Latents that enter the bound at all, scored or told to the denoiser or to a head."""
        told = {name for latent in self.scored for name in latent.given} | {latent.name for latent in self.explicit}
        return tuple(latent for latent in self.objective.latents if latent.weight != 0.0 or latent.name in told)

    def of(
        self, x_0: State, c: Any, mask: State, z: Representations, positions: Sequence[int]
    ) -> dict[str, Float[Tensor, "b k"]]:
        """Every term of a batch, samples by repeats, in nats, on the CPU in float64.

        Args:
            x_0: Clean data.
            c: The condition.
            mask: True where an element exists.
            z: The value of every latent in `used`.
            positions: The place of each sample in the data.
        """
        prior = _nats(self.process.prior_nats(x_0, mask))
        columns: list[dict[str, Tensor]] = []
        for repeat in range(self.repeats):
            sums: dict[str, Tensor] = {"prior": prior}
            kinds = [(_DENOISING, self._denoising)] + ([(_ALIGNMENT, self._alignment)] if self.scored else [])
            for kind, term in kinds:
                offset = NoiseSource(mix_seed(self.seed, kind, repeat), positions).uniform(())
                for step in range(self.times):
                    u = (offset + step / self.times) % 1.0
                    drawn = term(x_0, c, mask, z, u, mix_seed(self.seed, kind, repeat, step), positions)
                    for name, value in drawn.items():
                        sums[name] = sums.get(name, 0.0) + _nats(value) / self.times
            noise = NoiseSource(mix_seed(self.seed, _RECONSTRUCTION, repeat), positions)
            sums["reconstruction"] = _nats(self._reconstruction(x_0, c, mask, z, noise))
            columns.append(sums)
        order = ["prior", "denoising", "log_normaliser", "reconstruction", *columns[0]]
        names = [name for name in dict.fromkeys(order) if name in columns[0]]
        return {name: torch.stack([column[name] for column in columns], 1) for name in names}

    def _denoising(
        self, x_0: State, c: Any, mask: State, z: Representations, u: Tensor, seed: int, positions: Sequence[int]
    ) -> dict[str, Tensor]:
        """KL(q || p~) and log Z at the times of u, over pi."""
        noise, like = NoiseSource(seed, positions), any_tensor(x_0)
        density = TimeDensity(self.process.t_min, self.process.t_max)
        t = density.quantile(u).float()
        weight = _nats(1.0 / density.density(t.double()))
        at = self.process.corrupt(x_0, t.to(like.device), noise, mask)
        if len(self.explicit) > 1:
            times = self.objective.coupling.times([latent.reveal for latent in self.objective.latents], noise)
            told = self._told(self.explicit, z, revealed(times, t))
            return {"denoising": weight * _nats(self.process.nats(self.denoiser(at.x_t, at.t, c, z=told), at))}
        alone = self.denoiser(at.x_t, at.t, c)
        if not self.explicit:
            cost = _nats(self.process.nats(alone, at))
            return {"denoising": weight * cost, "log_normaliser": torch.zeros_like(cost)}
        A = self.explicit[0].reveal.survival(t).to(like.device)
        given = self.denoiser(at.x_t, at.t, c, z=self._told(self.explicit, z, None))
        split = self.process.hybrid_nats(alone, given, A, at)
        return {
            "denoising": weight * _nats(split.denoising),
            "log_normaliser": weight * _nats(split.log_normaliser),
        }

    def _reconstruction(self, x_0: State, c: Any, mask: State, z: Representations, noise: NoiseSource) -> Tensor:
        """-log p_c(x_0 | x_{t_min}, z)."""
        like = any_tensor(x_0)
        t = torch.full((like.shape[0],), self.process.t_min, device=like.device)
        at = self.process.corrupt(x_0, t, noise, mask)
        arguments = {"z": self._told(self.explicit, z, None)} if self.explicit else {}
        return self.process.reconstruction_nats(self.denoiser(at.x_t, at.t, c, **arguments), at)

    def _alignment(
        self, x_0: State, c: Any, mask: State, z: Representations, u: Tensor, seed: int, positions: Sequence[int]
    ) -> dict[str, Tensor]:
        """-log p(z_l | x_tau, z_S) of every latent; latents of one reveal density share x_tau and a pass of the net."""
        costs: dict[str, Tensor] = {}
        seen: Mapping[str, Revealed]
        for group in self._groups():
            tau, seen = group[0].reveal.quantile(u).float(), {}
            if self._others(group[0]):
                tau, seen = self._before(group[0], tau, z, NoiseSource(mix_seed(seed, 1), positions))
            hidden = self._hidden(group, x_0, c, mask, tau, seen, NoiseSource(seed, positions))
            for latent in group:
                given = {name: seen[name] for name in latent.given}
                own = NoiseSource(mix_seed(seed, 2, self.objective.latents.index(latent)), positions)
                value = z[latent.name]
                first = None if mask is None else any_tensor(mask)
                readout = self.objective.readouts[latent.name]
                assert isinstance(readout, Readout)
                cost = readout.nats(hidden[latent.name], value, first, given, own)
                costs[f"{ALIGNMENT}{latent.name}"] = cost
        return costs

    def _hidden(
        self,
        group: Sequence[Latent],
        x_0: State,
        c: Any,
        mask: State,
        tau: Tensor,
        seen: Mapping[str, Revealed],
        noise: NoiseSource,
    ) -> dict[str, Tensor | None]:
        names = [latent.name for latent in group]
        if all(latent.tap is None for latent in group):
            return dict.fromkeys(names)
        t = tau.clamp(self.process.t_min, self.process.t_max).to(any_tensor(x_0).device)
        at = self.process.corrupt(x_0, t, noise, mask)
        told = {other.name: seen[other.name] for other in self._shared(group[0])} or None
        return self.objective.hidden(self.denoiser, names, at.x_t, t, c, told)

    def _shared(self, latent: Latent) -> list[Latent]:
        """Other explicit latents that the pass read by this head was shown in training, where they are revealed."""
        if self.objective.head_pass != "shared" or latent.tap is None or latent.reveal.is_atomic:
            return []
        return [other for other in self.explicit if other is not latent]

    def _others(self, latent: Latent) -> list[Latent]:
        """Latents that this one's likelihood may depend on."""
        return [*(self.objective.latent(name) for name in latent.given), *self._shared(latent)]

    def _groups(self) -> list[list[Latent]]:
        groups: list[list[Latent]] = []
        for latent in self.scored:
            for group in groups:
                alone = not self._others(latent) and not self._others(group[0])
                if alone and latent.reveal == group[0].reveal:
                    group.append(latent)
                    break
            else:
                groups.append([latent])
        return groups

    def _before(
        self, latent: Latent, tau: Tensor, z: Representations, noise: NoiseSource
    ) -> tuple[Tensor, dict[str, Revealed]]:
        """The reveal time, and the others with `shown` where they come before it."""
        reveals, place = [other.reveal for other in self.objective.latents], self.objective.latents.index(latent)
        if isinstance(self.objective.coupling, Sampled):  # it has no conditional: tau is its own draw
            times = self.objective.coupling.times(reveals, noise)
            tau = times[:, place]
        else:
            times = self.objective.coupling.times_given(reveals, place, tau, noise)
        now = times[:, place : place + 1]
        shown = torch.where(torch.arange(len(reveals)) < place, times >= now, times > now)
        return tau, self._told(self._others(latent), z, shown)

    def _told(self, latents: Iterable[Latent], z: Representations, shown: Tensor | None) -> dict[str, Revealed]:
        told = {}
        for latent in latents:
            value, column = z[latent.name], self.objective.latents.index(latent)
            rows = torch.ones(value.z.shape[0], dtype=torch.bool) if shown is None else shown[:, column]
            told[latent.name] = Revealed(value.z, value.mask, rows.to(value.z.device))
        return told


def _nats(value: Tensor) -> Tensor:
    return value.detach().cpu().double()
