"""The affine combination of predictions that every guidance is: out = sum_i w_i e_i, with sum_i w_i = 1.

It is the same line for v, eps, x_0 and token logits, as all are affine in the score or in log p up to normalisation
(THEORY D6, D16 and section 6). A prediction is evaluated only when some sample has a weight for it, and where one
weight is 1 and the others are 0 the result is that prediction to the bit. A token that is forbidden (a logit of -inf)
by a prediction of non-zero weight stays forbidden, also where weights are negative.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.latent import Revealed
from reed_core.process.base import expand_time
from reed_core.state import State, map_state

Conditional = Callable[..., State]
"""A denoiser that can be told latents: `denoiser(x_t, t, c)` or `denoiser(x_t, t, c, z=revealed)`."""


class Term(NamedTuple):
    """One prediction and the weight of it for each sample, [b]."""

    weight: Tensor
    predict: Callable[[], State]


def ask(
    denoiser: Conditional, x_t: State, t: Float[Tensor, "b"], c: Any, z: Mapping[str, Revealed] | None = None
) -> State:
    """Runs a denoiser, naming z only when there is some, so that a plain denoiser serves where no latent is shown."""
    return denoiser(x_t, t, c, z=z) if z else denoiser(x_t, t, c)


def combine(terms: Sequence[Term]) -> State:
    """sum_i w_i e_i, evaluating the predictions that some sample needs, in order.

    Args:
        terms: Predictions whose weights sum to 1 for each sample; tensors, or mappings with the same fields.
    """
    needed = [term for term in terms if bool((term.weight != 0).any())]
    predictions = [term.predict() for term in needed]
    if len(predictions) == 1:
        return predictions[0]

    def mixed(*values: Tensor) -> Tensor:
        total, forbidden = torch.zeros_like(values[0]), torch.zeros_like(values[0], dtype=torch.bool)
        for value, term in zip(values, needed, strict=True):
            weight = expand_time(term.weight.to(value), value)
            nowhere = value == -torch.inf
            forbidden = forbidden | (nowhere & (weight != 0))
            total = total + torch.where((weight == 0) | nowhere, 0.0, weight * value)
        return torch.where(forbidden, -torch.inf, total)

    return map_state(mixed, *predictions)


def within(t: Float[Tensor, "b"], interval: tuple[float, float]) -> Bool[Tensor, "b"]:
    """Whether each time lies in an interval, its ends included."""
    return (t >= interval[0]) & (t <= interval[1])


def check_interval(interval: tuple[float, float]) -> None:
    """Raises InputError unless an interval has its ends in order."""
    if not interval[0] <= interval[1]:
        raise InputError(f"an interval of times is (low, high), got {interval}; exchange them")
