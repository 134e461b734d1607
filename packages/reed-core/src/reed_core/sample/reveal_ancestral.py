"""Reveal-ancestral sampling: the exact sampler of a model whose latents are revealed on the way (THEORY D13).

    (tau_1..tau_L) ~ coupling                                        each sample its own
    x_1 ~ prior;  run p(x_s | x_t, z_S), S = {l : tau_l >= t}        p_u as long as nothing is revealed
    at t = tau_l draw z_l ~ p(z_l | x_t, z_S), and go on with it

Given exact heads every tau gives q(x_0, z) (THEORY D1), so the mixture does. Drawing z up front and running the hybrid
p~ does not, unless A = 1 (D13). tau = 1 is generation in two stages (RCG); tau = 0 reads z out of x_{t_1}.

On a grid, the step from t_i to t_{i-1} stands for the times (t_{i-1}, t_i]: a z with tau in it is drawn at x_{t_i},
before the step; tau = 0 belongs to the last step. Latents drawn at the same step are drawn in their order, coarse
first, each seeing the ones before it. A batch takes one evaluation a step, and one more for each latent with a tap that
some sample reveals at that step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from reed_core.coupling import Coupling, Independent
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation, Representations, Revealed
from reed_core.noise import NoiseSource
from reed_core.process.base import Process
from reed_core.sample.batch import at_time, check_noise, hold
from reed_core.sample.combine import Conditional, ask
from reed_core.sample.grid import Grid, chain_times, uniform_times
from reed_core.sample.latents import LatentSource
from reed_core.state import State

_ROUNDING = 1e-6  # reveal times are float32: 0.3 must belong to the step that starts at 0.3
_KEY_BITS = 53


@dataclass(frozen=True)
class RevealSample:
    """What reveal-ancestral sampling returns.

    Attributes:
        x: Samples at t = 0.
        z: The latents drawn on the way, by name; (x, z) are a draw of the joint distribution.
        tau: When each was revealed, [b, L], in the order of the latents; 1 for one that was given.
        evaluations: How often the denoiser was run; a draw of a latent with a tap counts as one.
    """

    x: State
    z: dict[str, Representation]
    tau: Float[Tensor, "b L"]
    evaluations: int


@torch.no_grad()
def reveal_ancestral(
    process: Process,
    denoiser: Conditional,
    source: LatentSource,
    latents: Sequence[Latent],
    x: State,
    steps: int,
    noise: NoiseSource,
    *,
    coupling: Coupling | None = None,
    c: Any = None,
    mask: State = None,
    known: Representations | None = None,
    grid: Grid = uniform_times,
) -> RevealSample:
    """Draws (x, z).

    With `known` this is another, conditional, sampler: those latents are shown from the start, so x is a draw of
    p(x | known) of a model in which they are revealed at t = 1, which a model trained with A < 1 only approximates as
    well as it learned to be told z at large t.

    Args:
        process: The process the denoiser was trained on.
        denoiser: Called as `denoiser(x_t, t, c, z=...)` with what is revealed of the explicit latents, and as
            `denoiser(x_t, t, c)` before any is; or a guidance around one.
        source: Where z comes from, such as `ReadoutSource(objective, network)`.
        latents: The latents (`objective.latents`), coarse first when nested.
        x: State at t = 1, as `process.prior` draws it.
        steps: Number of steps, at least 1.
        noise: One stream per sample.
        coupling: How the reveal times hang together (`objective.coupling`); None: independent.
        c: The condition.
        mask: True where an element exists; for fields, one for all or a mapping.
        known: Values of latents that the user has.
        grid: Where the steps lie between t_max and 0.

    Raises:
        InputError: If there is no latent, a known one is not among them, steps < 1, or the noise is for another number
            of samples.
    """
    check_noise(x, noise)
    known, names = known or {}, [latent.name for latent in latents]
    if not names or not set(known) <= set(names):
        raise InputError(
            f"latents {', '.join(names) or 'none'}, known {', '.join(known) or 'none'}; expected at least one latent, "
            "and known ones among them (without latents, use `ancestral`)"
        )
    tau = (coupling or Independent()).times([latent.reveal for latent in latents], noise).double().cpu()
    # A latent's draws are keyed by the sample alone: neither batch mates nor the step at which it is revealed matter.
    keys = (noise.uniform((len(names),)) * 2**_KEY_BITS).long()
    given = torch.tensor([name in known for name in names])
    tau = torch.where(given, 1.0, tau)
    shown = given.expand_as(tau)
    told = {name: Revealed(value.z, value.mask) for name, value in known.items()}
    evaluations = 0
    x = hold(x, mask)
    for time, after in pairwise(chain_times(grid, process, steps)):
        t, s = at_time(x, time), at_time(x, after)
        due = ~shown & ((tau > after + _ROUNDING) | (after == 0.0))
        for index, latent in enumerate(latents):
            if not bool(due[:, index].any()):
                continue
            own = NoiseSource(noise.seed, keys[:, index].tolist())
            drawn = source(latent.name, x, t, c, told, own, mask)
            evaluations += latent.tap is not None
            shown = shown.clone()  # what was told before stays as it was
            shown[:, index] |= due[:, index]
            told = {**told, latent.name: _merge(told.get(latent.name), drawn, due[:, index], shown[:, index])}
        seen = {latent.name: told[latent.name] for latent in latents if _is_told(latent, told)}
        x = hold(process.step(ask(denoiser, x, t, c, seen), x, t, s, noise, mask), mask)
        evaluations += 1
    z = {name: Representation(told[name].z, told[name].mask) for name in names}
    return RevealSample(x, z, tau.float(), evaluations)


def _is_told(latent: Latent, told: Mapping[str, Revealed]) -> bool:
    return latent.injection == "explicit" and latent.name in told


def _merge(old: Revealed | None, drawn: Representation, due: Bool[Tensor, "b"], shown: Bool[Tensor, "b"]) -> Revealed:
    """Takes the draws of the samples that are due; what is not shown yet holds zeros."""
    z = _rows(due, drawn.z, torch.zeros_like(drawn.z) if old is None else old.z)
    mask = drawn.mask
    if mask is not None and old is not None and old.mask is not None:
        mask = _rows(due, mask, old.mask)
    return Revealed(z, mask, shown.to(z.device))


def _rows(which: Bool[Tensor, "b"], new: Shaped[Tensor, "b ..."], old: Shaped[Tensor, "b ..."]) -> Tensor:
    return torch.where(which.to(new.device).reshape(-1, *([1] * (new.ndim - 1))), new, old)
