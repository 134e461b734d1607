"""How samples are drawn: by the reverse kernel of every field, or with the coordinates on their flow.

    ancestral   every field draws from its kernel q(x_s | x_t, predicted x_0)
    flow        x_s = x_t + (s - t) v(x_t, t) of the coordinates (an Euler step; the predicted x_0 at s = 0), and types,
                charges and bonds by their kernels as before
The flow asks only that v is the mean velocity at x_t, so it also holds where noise and data were coupled in training
(`alignment`); the kernel needs them independent.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Product
from reed_core.process.base import expand_time
from torch import Tensor

from reed_molecule.alignment import Alignment
from reed_molecule.process import Centred, centre, recast

Sampler = Literal["ancestral", "flow"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)


@dataclass(frozen=True)
class Flowing(Centred):
    """`Centred`, whose step back follows the velocity and draws nothing."""

    def step(
        self,
        prediction: Float[Tensor, "b n d"],
        x_t: Float[Tensor, "b n d"],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One Euler step, at s = 0 to the predicted x_0; arguments as in `Interpolant.step`."""
        dtype = torch.promote_types(torch.promote_types(prediction.dtype, x_t.dtype), torch.float32)
        said, here = centre(prediction.to(dtype), mask), x_t.to(dtype)
        ahead = here + expand_time((s - t).to(here), here) * self.predict_v(said, here, t)
        x_s = torch.where(expand_time(s.to(here), here) <= 0, self.predict_x0(said, here, t), ahead)
        return centre(x_s, mask).to(x_t.dtype)


def sampled_by(process: Product, sampler: Sampler) -> Product:
    """A process of molecules that steps back as a sampler says."""
    return process if sampler == "ancestral" else recast(process, Flowing)


def sampler_for(alignment: Alignment) -> Sampler:
    """What weights are sampled by that were trained with an alignment."""
    return "ancestral" if alignment == "none" else "flow"


def checked_sampler(text: str | None) -> Sampler | None:
    """One of `SAMPLERS`, or None.

    Raises:
        InputError: If it is another word.
    """
    found = next((sampler for sampler in SAMPLERS if sampler == text), None)
    if text is not None and found is None:
        raise InputError(f"--sampler {text}: expected {' or '.join(SAMPLERS)}")
    return found
