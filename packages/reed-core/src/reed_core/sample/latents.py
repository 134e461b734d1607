"""Where a sampler gets z: draws of p(z_l | x_t, z_given), from a trained model's readouts or anything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process.base import Process
from reed_core.readout import Readout
from reed_core.sample.batch import at_time, check_noise
from reed_core.state import State, any_tensor, batch_size


@runtime_checkable
class LatentSource(Protocol):
    """Draws a latent for a batch. Any function of these arguments is one."""

    def __call__(
        self,
        name: str,
        x_t: State,
        t: Float[Tensor, "b"],
        c: Any,
        revealed: Mapping[str, Revealed],
        noise: NoiseSource,
        mask: State,
    ) -> Representation:
        """A draw of p(z | x_t, revealed) for each sample.

        Args:
            name: The latent.
            x_t: Corrupted data.
            t: Times, [b].
            c: The condition.
            revealed: Latents revealed earlier, with `shown` saying for which samples.
            noise: One stream per sample, used for nothing else.
            mask: True where an element of x exists; for fields, one for all or a mapping.
        """
        ...


@dataclass(frozen=True)
class ReadoutSource:
    """The heads of a trained objective; one evaluation of the denoiser a call, none for a latent without a tap.

    Attributes:
        objective: The objective the denoiser was trained with; it holds the readouts.
        denoiser: The trained module, not a guidance around it, as its taps are read.
        draw: True draws z; False takes the most likely z.
    """

    objective: Objective
    denoiser: nn.Module
    draw: bool = True

    def __call__(
        self,
        name: str,
        x_t: State,
        t: Float[Tensor, "b"],
        c: Any,
        revealed: Mapping[str, Revealed],
        noise: NoiseSource,
        mask: State,
    ) -> Representation:
        """A draw of the readout's p(z | x_t, given), under the null token as the objective's `head_pass` asks.

        Raises:
            InputError: If there is no such latent, or its z has axes that nothing tells (pairs without a tap).
        """
        latent = self.objective.latent(name)
        others = [other.name for other in self.objective.explicit if other.name != name]
        told = {other: revealed[other] for other in others if other in revealed}
        seen = told if told and self.objective.head_pass == "shared" else None
        with torch.no_grad():
            hidden = self.objective.hidden(self.denoiser, [name], x_t, t, c, seen)[name]
        own = None if mask is None else any_tensor(mask)
        given = {other: revealed[other] for other in latent.given if other in revealed}
        elements = () if hidden is not None else _elements(latent, x_t, own)
        readout = cast(Readout, self.objective.readouts[name])
        if self.draw:
            z = readout.sample(hidden, noise, own, given, elements)
        else:
            z = readout.predict(hidden, own, given, elements)
            z = z.expand(batch_size(x_t), *z.shape[1:])
        return Representation(z, None if latent.level == "global" else own)


@torch.no_grad()
def draw_latents(
    process: Process,
    source: LatentSource,
    latents: Sequence[Latent],
    x: State,
    noise: NoiseSource,
    c: Any = None,
    mask: State = None,
) -> dict[str, Representation]:
    """The first of two stages: z_1 ~ p(z_1), z_2 ~ p(z_2 | z_1), ... before anything of x is known (RCG).

    `WithLatents(denoiser, z)` makes the second stage of any sampler.

    Args:
        process: The process; heads with a tap are asked at its t_max.
        source: Where z comes from.
        latents: Latents in the order in which they see each other, coarse first.
        x: State at t = 1, as `process.prior` draws it.
        noise: One stream per sample.
        c: The condition.
        mask: True where an element exists.

    Raises:
        InputError: If the noise is for another number of samples.
    """
    check_noise(x, noise)
    t = at_time(x, process.t_max)
    told: dict[str, Revealed] = {}
    for latent in latents:
        value = source(latent.name, x, t, c, told, noise, mask)
        told = {**told, latent.name: Revealed(value.z, value.mask)}
    return {name: Representation(value.z, value.mask) for name, value in told.items()}


def _elements(latent: Latent, x_t: State, mask: Tensor | None) -> tuple[int, ...]:
    """The axes of z between batch and features."""
    if latent.level == "global":
        return ()
    if latent.level == "pair":
        raise InputError(f"latent '{latent.name}' of pairs has no tap, so its neighbours are unknown; give it a tap")
    return tuple((any_tensor(x_t) if mask is None else mask).shape[1:2])
