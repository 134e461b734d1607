"""Who could x_t have been? The likelihood q(x_t | x_0) of every member of a data set, for processes that have one.

    interpolant      log q = -|x_t - signal(t) x_0|^2 / (2 noise(t)^2) + const
    masked           log q = 0 if every token that is not masked agrees with x_0, else -inf  (+ const)
    uniform          log q = (number of tokens that differ) log((t / K) / (1 - t + t / K)) + const
    product          the sum over fields, each at the time its clock shows

Constants that do not depend on x_0 are left out: they cancel in the posterior
    w_i(x_t) = q(x_t | x_0^i) / sum_j q(x_t | x_0^j),
the exact posterior when x_0 is drawn from the data set itself. Another process joins with
`log_likelihood.register(ItsClass)`.
"""

import math
from functools import singledispatch

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.process.discrete import UniformDiscrete
from reed_core.process.interpolant import Interpolant
from reed_core.process.masked import Masked
from reed_core.process.product import Product
from reed_core.state import State, any_tensor, batch_size


@singledispatch
def log_likelihood(process: object, x_t: State, x_0: State, t: float) -> Float[Tensor, "q m"]:
    """The log of q(x_t | x_0) for every pair, up to a constant of x_t.

    Args:
        process: The forward process.
        x_t: Corrupted data, [q, ...]; elements that do not exist hold 0, as in x_0.
        x_0: Clean data, [m, ...].
        t: Time, in [0, 1].

    Raises:
        InputError: If the process has no likelihood here.
    """
    raise InputError(
        f"no likelihood q(x_t | x_0) for a {type(process).__name__}; register one with log_likelihood.register"
    )


@log_likelihood.register
def _(process: Interpolant, x_t: Tensor, x_0: Tensor, t: float) -> Float[Tensor, "q m"]:
    at = process.coefficients(torch.tensor(t, dtype=torch.float64))
    signal, spread = float(at.signal), float(at.noise)
    away = torch.cdist(
        x_t.double().flatten(1), signal * x_0.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    if spread == 0.0:
        return torch.where(away == 0.0, 0.0, -torch.inf).to(away)
    return -0.5 * (away / spread).square()


@log_likelihood.register
def _(process: Masked, x_t: Tensor, x_0: Tensor, t: float) -> Float[Tensor, "q m"]:
    differs = torch.zeros(len(x_t), len(x_0), dtype=torch.bool, device=x_t.device)
    for now, clean in zip(x_t.flatten(1).T, x_0.flatten(1).T, strict=True):
        differs |= (now[:, None] != clean) & (now != process.mask_token)[:, None]
    return torch.zeros_like(differs, dtype=torch.float64).masked_fill(differs, -torch.inf)


@log_likelihood.register
def _(process: UniformDiscrete, x_t: Tensor, x_0: Tensor, t: float) -> Float[Tensor, "q m"]:
    differs = torch.zeros(len(x_t), len(x_0), dtype=torch.float64, device=x_t.device)
    for now, clean in zip(x_t.flatten(1).T, x_0.flatten(1).T, strict=True):
        differs += now[:, None] != clean
    other = t / process.num_tokens
    log_odds = math.log(other / (1.0 - t + other)) if t > 0.0 else -math.inf
    return torch.where(differs > 0, differs * log_odds, differs)


@log_likelihood.register
def _(process: Product, x_t: dict, x_0: dict, t: float) -> Float[Tensor, "q m"]:
    total = torch.zeros(batch_size(x_t), batch_size(x_0), dtype=torch.float64, device=any_tensor(x_t).device)
    for name, part in process.fields.items():
        at = process.field_time(name, torch.tensor([t], dtype=torch.float64))
        time = 0.0 if bool(at.clean) else float(at.time)
        total = total + log_likelihood(part, x_t[name], x_0[name], time)
    return total


def posterior(log_likelihood: Float[Tensor, "q m"], possible: Bool[Tensor, "q m"]) -> Float[Tensor, "q m"]:
    """The weights of the members that are possible: a softmax of their likelihoods.

    Args:
        log_likelihood: log q(x_t | x_0).
        possible: True where a member may be behind x_t at all (same mask, same condition, or not x_t's own source).

    Returns:
        Rows that sum to 1. Where no possible member explains x_t, all possible ones weigh alike; a row
        without any is 0.
    """
    scores = log_likelihood.masked_fill(~possible, -torch.inf)
    unexplained = (scores.amax(1, keepdim=True) == -torch.inf) & possible
    return torch.softmax(torch.where(unexplained, 0.0, scores), 1).nan_to_num(0.0)
