"""Ancestral sampling of any process: x_T ~ prior, then x_s ~ p(x_s | x_t) along a grid, down to data.

The process says what one step is (`Process.step`), so this works alike for interpolants, masked and uniform discrete
diffusion, products of them, and a process of the user's own; x is a tensor or a mapping of fields.

Step i = T..1 goes from t_i to t_{i-1}, with t_T = process.t_max and t_0 = 0: T steps are T evaluations, and the last
step draws data. On the uniform grid t_i = i/T t_max, as long as t_1 >= t_min. (For masked diffusion `unmask` is
faster: it skips steps that reveal nothing.)
"""

from itertools import pairwise
from typing import Any

import torch

from reed_core.denoiser import Denoiser
from reed_core.noise import NoiseSource
from reed_core.process.base import Process
from reed_core.sample.batch import at_time, check_noise, hold
from reed_core.sample.grid import Grid, chain_times, uniform_times
from reed_core.state import State


@torch.no_grad()
def ancestral(
    process: Process,
    denoiser: Denoiser,
    x: State,
    steps: int,
    noise: NoiseSource,
    c: Any = None,
    mask: State = None,
    grid: Grid = uniform_times,
) -> State:
    """Runs the reverse chain from noise to data; one evaluation a step.

    Args:
        process: The process the denoiser was trained on.
        denoiser: The denoiser, or a guidance around one.
        x: State at t = 1, as `process.prior` draws it.
        steps: Number of steps, at least 1.
        noise: One stream per sample.
        c: The condition.
        mask: True where an element exists; for fields, one for all or a mapping. Padding is held at 0 (tokens: left).
        grid: Where the steps lie between t_max and 0.

    Returns:
        Samples at t = 0, of the form of x.

    Raises:
        InputError: If steps < 1 or the noise is for another number of samples.
    """
    check_noise(x, noise)
    x = hold(x, mask)
    for time, after in pairwise(chain_times(grid, process, steps)):
        t, s = at_time(x, time), at_time(x, after)
        x = hold(process.step(denoiser(x, t, c), x, t, s, noise, mask), mask)
    return x
