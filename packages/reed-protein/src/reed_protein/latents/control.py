"""The shuffled control: every chain is taught the z of another chain of about its length.

What stays: the distribution of z, its order along a chain, what it says about length, the heads, the taps, the cost,
and that a chain keeps its z through training. What goes: everything z says about this chain's sequence. A gain that
survives the control is not due to representation guidance. Shuffling within chains would be less fair: it also destroys
the order along the chain, which a network may learn from. Over the whole data set, a long chain would get the z of a
short one again and again.

Partners are drawn once, in a bucket of chains of like length, along a cycle that never joins two chains of one cluster
unless the bucket has no others.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from reed_core.errors import InputError
from reed_core.latent import Representation
from torch import Tensor

from reed_protein.dataset import Chains, CleanChains, NamedBackbone

BUCKET = 32  # chains that exchange their z


def partners(
    lengths: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"] | None, seed: int
) -> Int64[np.ndarray, " n"]:
    """For each chain, the one whose z it gets: a permutation without fixed points, within buckets of like length.

    Args:
        lengths: Length of each chain.
        groups: Cluster of each chain; None takes each for its own.
        seed: Seeds the draw.

    Raises:
        InputError: If there is only one chain.
    """
    if len(lengths) < 2:
        raise InputError(f"the shuffled control needs at least two chains, got {len(lengths)}; set shuffle=false")
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(lengths)), lengths))
    clusters = np.arange(len(lengths)) if groups is None else groups
    found = np.empty(len(lengths), dtype=np.int64)
    for some in np.array_split(order, max(1, len(order) // BUCKET)):
        names, inverse, counts = np.unique(clusters[some], return_inverse=True, return_counts=True)
        ring = some[np.lexsort((generator.random(len(some)), generator.permutation(len(names))[inverse]))]
        # Clusters stand together: a step as wide as the widest leaves each.
        found[ring] = np.roll(ring, counts.max() if len(names) > 1 else 1)
    return found


def transplant(
    value: Representation,
    theirs: Bool[Tensor, "b m"],
    ours: Bool[Tensor, "b n"],
) -> Representation:
    """The z of some chains laid over others, row by row; where the first are shorter, they start again.

    Args:
        value: z of the first, [b, m, ...]; of pairs, neighbours by rank.
        theirs: Where their residues are.
        ours: Where the residues of the others are.

    Returns:
        z [b, n, ...], known where it was known there and the other chain has a residue (and, for pairs, a neighbour).
    """
    known = theirs if value.mask is None else value.mask
    rows = torch.arange(ours.shape[1])[None] % theirs.sum(1, keepdim=True).clamp(min=1)
    batch = torch.arange(len(ours))[:, None]
    kept = known[batch, rows] & ours.view(*ours.shape, *[1] * (known.ndim - 2))
    if known.ndim == 3:
        kept &= (torch.arange(known.shape[2]) < ours.sum(1, keepdim=True))[:, None]
    return Representation(value.z[batch, rows], kept)


class Shuffled:
    """A source that gives every chain the z of its partner.

    Args:
        source: The source.
        chains: The chains.
        seed: Seeds the choice of partners.
    """

    def __init__(
        self,
        source: Callable[[Sequence[int], Tensor, NamedBackbone], Representation],
        chains: Chains,
        seed: int,
    ) -> None:
        self.source, self.clean = source, CleanChains(chains)
        self.partner = partners(chains.lengths, chains.groups, seed)

    def __call__(self, items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representation:
        """The partners' z, encoded on their own clean backbones."""
        other = [int(self.partner[item]) for item in items]
        batch = self.clean.batch(other)
        assert isinstance(batch.x_0, Tensor)
        return transplant(self.source(other, batch.x_0, batch.c), batch.c.mask, backbone.mask)
