"""From noise to data, for what images diffuse: x alone, at even or shifted steps, or two fields, each on its own clock.

    two fields   dx_f / dt = s_f'(t) v_f(x, s_f(t)):  steps of master time, each field moved by that of its own time
A field whose clock reaches 0 before the end takes the predicted x_0 there, as the last step of every field does.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Process, Product
from reed_core.sample import ancestral, euler_maruyama, integrate, uniform_times
from reed_core.sample.batch import at_time
from reed_core.state import State
from torch import Tensor

from reed_image.shift import Shifted


def solve(process: Process, denoiser: Any, x: State, c: Any, noise: NoiseSource, steps: int, sampler: str) -> State:
    """Draws.

    Args:
        process: That of an `ImageModel`.
        denoiser: The model, or a guidance around it.
        x: Noise.
        c: The condition.
        noise: One stream per sample.
        steps: Steps, at least 1.
        sampler: "euler", "heun" or "sde"; of two fields, the last is the ancestral chain.
    """
    method: Any = sampler
    if isinstance(process, Product):
        if sampler == "sde":
            return ancestral(process, denoiser, x, steps, noise, c)
        return integrate_fields(process, denoiser, x, steps, c, method)
    assert isinstance(process, Interpolant)
    grid = process.grid if isinstance(process, Shifted) else uniform_times
    if sampler == "sde":
        return euler_maruyama(process, denoiser, x, steps, noise, c, grid=grid)
    return integrate(process, denoiser, x, steps, c, method, grid=grid)


@torch.no_grad()
def integrate_fields(
    process: Product, denoiser: Any, x: Mapping[str, Tensor], steps: int, c: Any = None, method: str = "heun"
) -> dict[str, Tensor]:
    """The probability flow of several fields.

    Args:
        process: The product; all its fields are interpolants.
        denoiser: Called with all fields, at master time.
        x: Noise, by field.
        steps: Steps of master time, at least 1.
        c: The condition.
        method: "euler" or "heun".

    Returns:
        Samples, by field.
    """
    state = dict(x)
    for time, after in pairwise(uniform_times(process.t_max, process.t_min, steps)):
        t, s = at_time(state, time), at_time(state, after)
        said = denoiser(state, t, c)
        ahead = {name: _moved(process, name, state, said[name], t, s) for name in state}
        if method == "heun":
            again = denoiser(ahead, s, c)
            ahead = {name: _corrected(process, name, state, ahead, said[name], again[name], t, s) for name in state}
        state = ahead
    t = at_time(state, process.t_min)
    said = denoiser(state, t, c)
    return {name: _clean(process, name, state[name], said[name], t) for name in state}


def _moved(
    process: Product, name: str, state: Mapping[str, Tensor], said: Tensor, t: Float[Tensor, "b"], s: Float[Tensor, "b"]
) -> Tensor:
    """An Euler step of one field."""
    now, after = process.field_time(name, t), process.field_time(name, s)
    if bool(after.clean.all()):
        return _clean(process, name, state[name], said, t)
    return state[name] + _broad(after.time - now.time, said) * _velocity(process, name, state[name], said, now.time)


def _corrected(
    process: Product,
    name: str,
    state: Mapping[str, Tensor],
    ahead: Mapping[str, Tensor],
    said: Tensor,
    again: Tensor,
    t: Float[Tensor, "b"],
    s: Float[Tensor, "b"],
) -> Tensor:
    """Heun's step of one field, over its Euler step."""
    now, after = process.field_time(name, t), process.field_time(name, s)
    if bool(after.clean.all()):
        return ahead[name]
    slope = _velocity(process, name, state[name], said, now.time)
    slope = 0.5 * (slope + _velocity(process, name, ahead[name], again, after.time))
    return state[name] + _broad(after.time - now.time, said) * slope


def _clean(process: Product, name: str, x: Tensor, said: Tensor, t: Float[Tensor, "b"]) -> Tensor:
    """The predicted x_0 of a field; itself if it is data already."""
    now = process.field_time(name, t)
    return x if bool(now.clean.all()) else _interpolant(process, name).predict_x0(said, x, now.time)


def _velocity(process: Product, name: str, x: Tensor, said: Tensor, time: Float[Tensor, "b"]) -> Tensor:
    return _interpolant(process, name).predict_v(said, x, time)


def _interpolant(process: Product, name: str) -> Interpolant:
    found = process.fields[name]
    assert isinstance(found, Interpolant)
    return found


def _broad(value: Float[Tensor, "b"], like: Tensor) -> Tensor:
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))
