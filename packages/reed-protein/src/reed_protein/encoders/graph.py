"""Pair representations live on the edges of a neighbour graph: [n, k, d] in a cache, never [n, n, d].

The network's graph is that of the jittered backbone, a cache is written on that of the clean one. `on_edges` finds each
edge of the first among those of the second; a cache keeps a few neighbours more, so that nearly all are found.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from reed_core.latent import Representation
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.features import nearest_neighbours


class Edges(NamedTuple):
    """The neighbour graph of a batch.

    Attributes:
        neighbours: Index of each neighbour within its own row of the batch, [b, n, k].
        mask: True where the edge joins two existing residues, [b, n, k].
    """

    neighbours: Int[Tensor, "b n k"]
    mask: Bool[Tensor, "b n k"]


def edges_of(backbone: Backbone, k: int) -> Edges:
    """The graph that the network builds (`nearest_neighbours`), with indices within rows."""
    flat, mask = nearest_neighbours(backbone.coords[..., 1, :].float(), backbone.mask, k)
    return Edges(flat % backbone.mask.shape[1], mask)


def pairs_on_graph(
    pairs: Float[Tensor, "n n d"], neighbours: Int[Tensor, "n k"], mask: Bool[Tensor, "n k"]
) -> Float[Tensor, "n k d"]:
    """The rows of a full pair matrix that lie on edges; 0 where there is no edge."""
    rows = torch.arange(len(pairs), device=pairs.device)[:, None]
    return torch.where(mask[..., None].to(pairs.device), pairs[rows, neighbours.to(pairs.device)], 0.0)


def on_edges(stored: Representation, there: Edges, here: Edges) -> Representation:
    """Values on one graph of the same residues, looked up on another.

    Args:
        stored: z [b, n, k', d] and where it is known, [b, n, k'].
        there: The graph it was stored on.
        here: The graph it is wanted on.

    Returns:
        z [b, n, k, d], known where the edge is in both graphs.
    """
    known = there.mask if stored.mask is None else there.mask & stored.mask
    same = (here.neighbours[..., :, None] == there.neighbours[..., None, :]) & known[..., None, :]
    found = same.any(-1) & here.mask
    at = same.to(torch.uint8).argmax(-1)
    z = stored.z.gather(2, at[..., None].expand(*at.shape, stored.z.shape[-1]))
    return Representation(torch.where(found[..., None], z, 0.0), found)
