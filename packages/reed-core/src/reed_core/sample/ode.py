"""Probability-flow sampling of an interpolant: dx/dt = v(x, t), from t_max down to t_min, then one step to data.

Euler: x_s = x_t + (s - t) v(x_t, t), order 1. Heun: the trapezoid over an Euler predictor, order 2. The last step
returns the denoiser's x_0 at t_min, as the velocity of some parametrisations is not finite at 0.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.denoiser import Denoiser
from reed_core.errors import InputError
from reed_core.process.interpolant import Interpolant


@torch.no_grad()
def integrate(
    process: Interpolant,
    denoiser: Denoiser,
    x: Float[Tensor, "b ..."],
    steps: int,
    c: Any = None,
    method: Literal["euler", "heun"] = "heun",
    mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b ..."]:
    """Integrates from noise to data.

    Args:
        process: The process the denoiser was trained on.
        denoiser: The denoiser, or a guidance around one.
        x: Noise at t = 1, as `process.prior` draws it.
        steps: Steps of the time grid, at least 1; Heun evaluates twice a step.
        c: The condition.
        method: "euler" or "heun".
        mask: True where an element exists; padding is held at 0, as in training.

    Returns:
        Samples at t = 0.

    Raises:
        InputError: If steps < 1 or the method is unknown.
    """
    if steps < 1 or method not in ("euler", "heun"):
        raise InputError(f"expected at least 1 step of euler or heun, got {steps} of {method}")
    kept = None if mask is None else mask.reshape(*mask.shape, *([1] * (x.ndim - mask.ndim)))
    grid = torch.linspace(process.t_max, process.t_min, steps + 1, dtype=torch.float64).tolist()

    def at(time: float) -> Tensor:
        return torch.full((x.shape[0],), time, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))

    def hold(value: Tensor) -> Tensor:
        return value if kept is None else torch.where(kept, value, 0.0)

    def velocity(x_t: Tensor, time: float) -> Tensor:
        return hold(process.predict_v(denoiser(x_t, at(time), c), x_t, at(time)))

    x = hold(x)
    for time, after in pairwise(grid):
        slope = velocity(x, time)
        ahead = x + (after - time) * slope
        x = ahead if method == "euler" else x + 0.5 * (after - time) * (slope + velocity(ahead, after))
    return hold(process.predict_x0(denoiser(x, at(process.t_min), c), x, at(process.t_min)))
