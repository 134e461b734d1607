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
from reed_core.sample.batch import at_time, hold
from reed_core.sample.grid import Grid, place, uniform_times


@torch.no_grad()
def integrate(
    process: Interpolant,
    denoiser: Denoiser,
    x: Float[Tensor, "b ..."],
    steps: int,
    c: Any = None,
    method: Literal["euler", "heun"] = "heun",
    mask: Bool[Tensor, "b n"] | None = None,
    grid: Grid = uniform_times,
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
        grid: Where the steps lie between t_max and t_min.

    Returns:
        Samples at t = 0.

    Raises:
        InputError: If steps < 1 or the method is unknown.
    """
    if steps < 1 or method not in ("euler", "heun"):
        raise InputError(f"expected at least 1 step of euler or heun, got {steps} of {method}")

    def velocity(x_t: Tensor, time: float) -> Tensor:
        t = at_time(x_t, time)
        return hold(process.predict_v(denoiser(x_t, t, c), x_t, t), mask)

    x = hold(x, mask)
    for time, after in pairwise(place(grid, process.t_max, process.t_min, steps)):
        slope = velocity(x, time)
        ahead = x + (after - time) * slope
        x = ahead if method == "euler" else x + 0.5 * (after - time) * (slope + velocity(ahead, after))
    t = at_time(x, process.t_min)
    return hold(process.predict_x0(denoiser(x, t, c), x, t), mask)
