"""What a diagnosis takes from a batch: the value of one latent, and rows of hidden states beside rows of z."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.latent import Representation, pool_tokens
from reed_core.train.data import Batch


class Rows(NamedTuple):
    """Things to compare, one per row.

    Attributes:
        hidden: Hidden states.
        z: Representations.
        sample: The sample each row belongs to.
    """

    hidden: Float[Tensor, "r w"]
    z: Float[Tensor, "r d"]
    sample: Int[Tensor, "r"]


def representation(batch: Batch, name: str) -> Representation:
    """The value of a latent in a batch, on the device of its data.

    Raises:
        InputError: If the batch has none.
    """
    values = batch.z() if callable(batch.z) else batch.z or {}
    if name not in values:
        raise InputError(f"the batch has no representation '{name}'; it has {', '.join(values) or 'none'}")
    return values[name]


def as_vectors(value: Representation, classes: int) -> Representation:
    """Class indices as one-hot vectors (an index of -1 becomes unknown); vectors as they are.

    Args:
        value: The representation.
        classes: Number of classes, used for indices only.
    """
    if value.z.is_floating_point():
        return value
    known = value.z >= 0
    return Representation(
        F.one_hot(value.z.clamp(min=0), classes).double(), known if value.mask is None else value.mask & known
    )


def rows(
    hidden: Tensor, value: Representation, mask: Tensor | None, over: Literal["samples", "elements"], first: int
) -> Rows:
    """Pairs of hidden states and z, float64 on the CPU.

    Args:
        hidden: A tapped state, [b, w], [b, n, w] or [b, n, k, w].
        value: Representation, [b, d] or with the same axes as `hidden` in front of d.
        mask: True where an element exists, [b, n].
        over: "samples" takes means over each sample's elements; "elements" takes each known element.
        first: Number of the first sample.

    Raises:
        InputError: If elements are asked of things that have none, or do not match.
    """
    number = torch.arange(first, first + len(hidden))
    if over == "samples":
        z, known = value.z, mask if value.mask is None else value.mask
        pooled = z if z.ndim == 2 else pool_tokens(z, known)
        state = hidden if hidden.ndim == 2 else pool_tokens(hidden, mask)
        keep = torch.ones_like(number, dtype=torch.bool) if known is None else known.flatten(1).any(1).cpu()
        if z.ndim == 2 and value.mask is not None:
            keep = value.mask.cpu()
        return Rows(state.double().cpu()[keep], pooled.double().cpu()[keep], number[keep])
    leading = value.z.shape[:-1]
    if hidden.shape[:-1] != leading or len(leading) < 2:
        raise InputError(
            f"elements of z {tuple(leading)} and of the hidden state {tuple(hidden.shape[:-1])} do not match; compare "
            'samples (over="samples")'
        )
    known = value.mask
    if known is None:
        known = torch.ones(leading[:2], dtype=torch.bool) if mask is None else mask
    known = known.cpu().reshape(*known.shape, *([1] * (len(leading) - known.ndim))).expand(leading)
    spread = number.view(-1, *([1] * (len(leading) - 1))).expand(leading)
    return Rows(hidden.double().cpu()[known], value.z.double().cpu()[known], spread[known])
