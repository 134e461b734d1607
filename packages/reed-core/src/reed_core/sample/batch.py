"""What every sampler does to a batch: give all samples one time, and hold padding at 0."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import expand_mask
from reed_core.state import State, any_tensor, batch_size, map_state


def at_time(x: State, time: float) -> Float[Tensor, "b"]:
    """The same time for every sample, on the device of x, in float32 or the wider dtype of x."""
    like = any_tensor(x)
    return torch.full((like.shape[0],), time, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))


def hold(x: State, mask: State) -> State:
    """X with padding at 0, as in training. Tokens and other integers are left alone: processes never touch padding.

    Args:
        x: A state.
        mask: True where an element exists; for fields, one for all or a mapping.
    """
    if isinstance(x, Mapping) and isinstance(mask, Tensor):
        mask = dict.fromkeys(x, mask)

    def held(value: Tensor, kept: Tensor | None) -> Tensor:
        if kept is None or not value.is_floating_point():
            return value
        return torch.where(expand_mask(kept, value), value, 0.0)

    return map_state(held, x, mask)


def check_noise(x: State, noise: NoiseSource) -> None:
    """Raises InputError unless there is one random stream per sample."""
    if len(noise) != batch_size(x):
        raise InputError(f"noise for {len(noise)} samples, but a batch of {batch_size(x)}; give one stream per sample")
