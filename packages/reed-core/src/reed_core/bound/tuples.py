"""Tuples of reveal steps (tau_1..tau_L): what their joint distribution says of each step, and log p^(tau) of a path.

A table holds P(tau_1 .. tau_L) on L axes of T steps each (index tau - 1): `Independent.on_grid` and `Nested.on_grid` of
`reed_core.coupling` or `count_tuples` make one, and any table is a valid model. What the bound needs of it is

    w_t(S) = P({l : tau_l >= t} = S)                    the chance that x_t -> x_{t-1} sees the latents S
    v^l_t(R) = P(tau_l = t, latents R come before l)    the chance that z_l is drawn from p(z_l | x_t, z_R)

Of latents revealed at one step the first listed comes first. With a head for every set, a tuple's model of a path is

    p^(tau)(x_{0:T}, z) = p(x_T) prod_l p(z_l | x_{tau_l}, z_{R_l}) prod_t p(x_{t-1} | x_t, z_{S_t})             (D9)

which is q(x_{0:T}, z) for exact heads, whatever the tuple. For arbitrary heads the average over tuples is, pointwise,

    E log p^(tau) = log p(x_T) + sum_t sum_S w_t(S) log p(x_{t-1}|x_t, z_S)
                    + sum_l sum_t sum_R v^l_t(R) log p(z_l|x_t, z_R)

A set is the integer whose bit l is set when latent l is a member: 0 .. 2^L - 1, always on the last axis.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reed_core.bound.hybrid import power
from reed_core.errors import InputError

_SUM_TOLERANCE = 1e-4


def all_tuples(count: int, steps: int) -> Int[Tensor, "N L"]:
    """Every tuple of `count` reveal steps 1..`steps`, in the order of a flattened table."""
    axes = [torch.arange(1, steps + 1)] * count
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, count)


def revealed_sets(tuples: Int[Tensor, "N L"], steps: int) -> Int[Tensor, "N T"]:
    """The set {l : tau_l >= t} of each tuple for t = 1..`steps`."""
    shown = tuples[:, None, :] >= torch.arange(1, steps + 1)[:, None]
    return (shown.long() << torch.arange(tuples.shape[1])).sum(-1)


def earlier_sets(tuples: Int[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """For each latent of each tuple the set of those drawn before it: at larger t, or at the same and listed first."""
    count = tuples.shape[1]
    order = torch.arange(count)
    here, other = tuples[:, :, None], tuples[:, None, :]
    before = (other > here) | ((other == here) & (order[None, :] < order[:, None]))
    return (before.long() << order).sum(-1)


def count_tuples(times: Float[Tensor, "n L"], steps: int) -> Float[Tensor, "..."]:
    """The table of drawn reveal times, each counted in its step ((t-1)/T, t/T] (0 in the first).

    Args:
        times: Draws of (tau_1..tau_L) in [0, 1], as `Coupling.times` gives them.
        steps: T.
    """
    step = (times.double() * steps - 1e-5).ceil().long().clamp(1, steps) - 1
    count = times.shape[1]
    flat = (step * steps ** torch.arange(count - 1, -1, -1)).sum(-1)
    return torch.bincount(flat, minlength=steps**count).double().reshape((steps,) * count) / len(times)


def marginals(table: Float[Tensor, "..."]) -> Float[Tensor, "L T"]:
    """The reveal density alpha^l_t of each latent.

    Args:
        table: P(tau_1 .. tau_L).
    """
    table = _checked(table)
    axes = range(table.ndim)
    return torch.stack([table.sum([other for other in axes if other != axis]) if axes[1:] else table for axis in axes])


def set_weights(table: Float[Tensor, "..."]) -> Float[Tensor, "T S"]:
    """w_t(S) for t = 1..T (index t - 1); w_1 is 1 on the full set.

    Args:
        table: P(tau_1 .. tau_L).
    """
    table = _checked(table)
    count, steps = table.ndim, table.shape[0]
    sets = revealed_sets(all_tuples(count, steps), steps)
    weights = table.new_zeros(steps, 2**count)
    chance = table.reshape(-1, 1).expand(-1, steps)
    return weights.index_put((torch.arange(steps).expand_as(sets), sets), chance, accumulate=True)


def draw_weights(table: Float[Tensor, "..."]) -> Float[Tensor, "L T S"]:
    """v^l_t(R) for every latent and t = 1..T (index t - 1); 0 where l is in R; sums over R to alpha^l_t.

    Args:
        table: P(tau_1 .. tau_L).
    """
    table = _checked(table)
    count, steps = table.ndim, table.shape[0]
    tuples = all_tuples(count, steps)
    weights = table.new_zeros(count, steps, 2**count)
    chance = table.reshape(-1, 1).expand(-1, count)
    index = (torch.arange(count).expand_as(tuples), tuples - 1, earlier_sets(tuples))
    return weights.index_put(index, chance, accumulate=True)


def log_joint_by_tuple(
    prior: Float[Tensor, "*b"], denoising: Float[Tensor, "*b T S"], alignment: Float[Tensor, "*b L T S"]
) -> Float[Tensor, "*b N"]:
    """Log-probability p^(tau_1..tau_L) of a path, for every tuple in the order of a flattened table (THEORY D9).

    Args:
        prior: log p(x_T).
        denoising: log p(x_{t-1} | x_t, z_S) for t = 1..T.
        alignment: log p(z_l | x_t, z_R) for t = 1..T; anything where l is in R.
    """
    steps, count = denoising.shape[-2], alignment.shape[-3]
    tuples = all_tuples(count, steps)
    moves = denoising[..., torch.arange(steps), revealed_sets(tuples, steps)].sum(-1)
    draws = alignment[..., torch.arange(count), tuples - 1, earlier_sets(tuples)].sum(-1)
    return prior[..., None] + moves + draws


def expected_log_joint_of_tuples(
    prior: Float[Tensor, "*b"],
    denoising: Float[Tensor, "*b T S"],
    alignment: Float[Tensor, "*b L T S"],
    table: Float[Tensor, "..."],
) -> Float[Tensor, "*b"]:
    """The average of log p^(tau) over the table, from w and v alone: no sum over T^L tuples of sums over t (THEORY D9).

    Args:
        prior: log p(x_T).
        denoising: log p(x_{t-1} | x_t, z_S) for t = 1..T.
        alignment: log p(z_l | x_t, z_R) for t = 1..T; anything where l is in R.
        table: P(tau_1 .. tau_L).
    """
    moves = power(denoising, set_weights(table)).sum((-2, -1))
    return prior + moves + power(alignment, draw_weights(table)).sum((-3, -2, -1))


def _checked(table: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    total = float(table.sum())
    square = table.ndim > 0 and len(set(table.shape)) == 1 and table.numel() > 0
    if not (square and float(table.min()) >= 0.0 and abs(total - 1.0) <= _SUM_TOLERANCE):
        raise InputError(
            "a table of reveal steps has one axis of T steps for each latent, is non-negative and sums to 1, got "
            f"shape {tuple(table.shape)} with sum {total:g}; normalise it"
        )
    return table / total
