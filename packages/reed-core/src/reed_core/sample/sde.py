"""Sampling an interpolant by its reverse-time SDE (SiT, arXiv 2401.08740, eq. 6), from t_max to t_min, then to data.

    dx = [v(x, t) - w(t)/2 score(x, t)] dt + sqrt(w(t)) dW,   backwards in time,   score = -eps / noise(t)

has the marginals of the process for every diffusion w(t) >= 0; w = 0 is the probability flow. Euler-Maruyama:
    x_s = x_t + (s - t) [v - w(t)/2 score] + sqrt(w(t) (t - s)) n,   n ~ N(0, I)
Diffusions: `of_noise` w = scale noise(t), which with scale 2 on the linear path is w = 2t; `of_forward` is the g^2 of
the forward SDE dx = (signal'/signal) x dt + g dW, w = 2 noise (noise' - noise signal'/signal), which has no bound near
t = 1, where signal = 0, and so wants many steps there. The last step is the mean: the denoiser's x_0 at t_min.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.denoiser import Denoiser
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import expand_time
from reed_core.process.interpolant import Interpolant
from reed_core.sample.batch import at_time, check_noise, hold
from reed_core.sample.grid import Grid, place, uniform_times

Diffusion = Callable[[float], float]
"""w(t) >= 0 at a time."""


def of_noise(process: Interpolant, scale: float = 1.0) -> Diffusion:
    """w(t) = scale noise(t), SiT's choice: it vanishes at data and is finite everywhere."""

    def w(time: float) -> float:
        return scale * float(process.coefficients(torch.tensor(time, dtype=torch.float64)).noise)

    return w


def of_forward(process: Interpolant) -> Diffusion:
    """w(t) = g(t)^2: the reversal of the forward SDE, as in score-based models (arXiv 2011.13456)."""

    def w(time: float) -> float:
        at = process.coefficients(torch.tensor(time, dtype=torch.float64))
        return float(2.0 * at.noise * (at.d_noise - at.noise * at.d_signal / at.signal))

    return w


@torch.no_grad()
def euler_maruyama(
    process: Interpolant,
    denoiser: Denoiser,
    x: Float[Tensor, "b ..."],
    steps: int,
    noise: NoiseSource,
    c: Any = None,
    mask: Bool[Tensor, "b n"] | None = None,
    diffusion: Diffusion | None = None,
    grid: Grid = uniform_times,
) -> Float[Tensor, "b ..."]:
    """Runs the reverse SDE from noise to data; steps + 1 evaluations.

    Args:
        process: The process the denoiser was trained on.
        denoiser: The denoiser, or a guidance around one.
        x: Noise at t = 1, as `process.prior` draws it.
        steps: Steps of the time grid, at least 1.
        noise: One stream per sample.
        c: The condition.
        mask: True where an element exists; padding is held at 0.
        diffusion: w(t); None takes `of_noise(process)`.
        grid: Where the steps lie between t_max and t_min.

    Returns:
        Samples at t = 0.

    Raises:
        InputError: If steps < 1, w is negative or not finite, or the noise is for another number of samples.
    """
    check_noise(x, noise)
    diffusion = diffusion or of_noise(process)
    x = hold(x, mask)
    for time, after in pairwise(place(grid, process.t_max, process.t_min, steps)):
        w, t = diffusion(time), at_time(x, time)
        if not 0.0 <= w < math.inf:
            raise InputError(
                f"a diffusion is finite and not negative, got w({time:g}) = {w:g}; choose another, or t_max < 1"
            )
        prediction = denoiser(x, t, c)
        slope = hold(process.predict_v(prediction, x, t), mask)
        drawn = noise.normal(x.shape[1:])
        if w > 0.0:
            score = -process.predict_eps(prediction, x, t) / expand_time(_noise(process, t), x)
            slope = slope - 0.5 * w * hold(score, mask)
        x = x + (after - time) * slope
        if w > 0.0:
            x = x + math.sqrt(w * (time - after)) * hold(drawn.to(x), mask)
    t = at_time(x, process.t_min)
    return hold(process.predict_x0(denoiser(x, t, c), x, t), mask)


def _noise(process: Interpolant, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    return process.coefficients(t).noise
