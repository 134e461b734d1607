"""Sums of messages over neighbours, a few residues at a time, and which residues a wanted one depends on.

    pooled_i = sum_j w_ij silu(W2 silu(centre_i + around_j + edge_ij) + b2)

Formed for all edges at once, each of these operations reads and writes a tensor of n k d numbers from memory. Formed
for `BLOCK` residues at a time and in place, all of them stay in the cache of a core. The values are the same but for
rounding.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 64
# A layer is evaluated everywhere where more than this share of it is needed: choosing rows has its own price.
_NEARLY_ALL = 0.9


def in_blocks(message: nn.Module, states: Tensor) -> bool:
    """Whether sums may be formed block by block: without gradients, on a CPU, and with nobody looking at messages."""
    return (
        not torch.is_grad_enabled()
        and states.device.type == "cpu"
        and not any(part._forward_hooks or part._forward_pre_hooks for part in message.modules())
        and not torch.compiler.is_compiling()
    )


def message_sums(
    inner: nn.Module,
    centre: Float[Tensor, "b n d"],
    around: Float[Tensor, "all d"],
    edge_term: Float[Tensor, "b n k d"],
    neighbours: Int[Tensor, "b n k"],
    edge_weight: Float[Tensor, "b n k 1"],
) -> Float[Tensor, "b n d"]:
    """The weighted sums of the messages to each residue.

    Args:
        inner: W2 and b2.
        centre: What a residue gives to all messages it receives.
        around: What a residue gives to the messages it sends.
        edge_term: What an edge gives.
        neighbours: Rows of `around`.
        edge_weight: The weights.
    """
    size, length, width = centre.shape
    pooled = torch.empty_like(centre)
    for first in range(0, length, BLOCK):
        some = slice(first, first + BLOCK)
        for row in range(size):  # rows that share their edges find them in the cache
            near = neighbours[row, some]
            message = around.index_select(0, near.reshape(-1)).view(*near.shape, width)
            message += edge_term[row, some]
            message += centre[row, some, None]
            message = F.silu(inner(F.silu(message, inplace=True)), inplace=True)
            weight = edge_weight[row, some].to(message.dtype).transpose(-1, -2)
            pooled[row, some] = torch.bmm(weight, message).squeeze(1)
    return pooled


def rows(values: Shaped[Tensor, "b n *d"], at: Int[Tensor, "m"]) -> Shaped[Tensor, "m *d"]:
    """Rows of the flattened batch; nothing is copied where all samples share one tensor."""
    if values.stride(0) == 0:
        return values[0].index_select(0, at % values.shape[1])
    return values.flatten(0, 1).index_select(0, at)


def reached(at: Int[Tensor, "m"], neighbours: Int[Tensor, "b n k"]) -> Int[Tensor, "r"]:
    """The places that are a neighbour of any of some places, in order, each once."""
    flat = neighbours.flatten(0, 1)
    found = torch.zeros(len(flat), dtype=torch.bool, device=at.device)
    return found.index_fill_(0, flat.index_select(0, at).flatten(), True).nonzero().squeeze(1)


def cone(wanted: Bool[Tensor, "b n"], neighbours: Int[Tensor, "b n k"], layers: int) -> list[Tensor | None]:
    """The places of the flattened batch that each layer must update for the wanted ones; None for all of them.

    Args:
        wanted: Where the last layer's states are looked at.
        neighbours: Indices into the flattened batch; each residue is its own neighbour.
        layers: How many layers there are.
    """
    found: list[Tensor | None] = []
    at = wanted.flatten().nonzero().squeeze(1)
    while len(found) < layers and len(at) <= _NEARLY_ALL * wanted.numel():
        found.append(at)
        at = reached(at, neighbours)
    return [None] * (layers - len(found)) + found[::-1]


def ripples(
    changed: Bool[Tensor, "b n"], neighbours: Int[Tensor, "b n k"], places: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Of the places that each layer must update, those that a change of the input reaches; the last layer's are kept.

    Args:
        changed: Where the input differs.
        neighbours: Indices into the flattened batch; each residue is its own neighbour.
        places: As `cone` gives them.
    """
    found: list[Tensor | None] = []
    flat, reach = neighbours.flatten(0, 1), changed.flatten()
    for at in places[:-1]:
        if at is None:
            at = torch.arange(len(reach), device=reach.device)
        touched = reach[flat.index_select(0, at)].any(1)
        found.append(at[touched])
        reach = torch.zeros_like(reach).index_fill_(0, at[touched], True)
    return [*found, places[-1]]
