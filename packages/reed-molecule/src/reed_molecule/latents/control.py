"""The shuffled control: every molecule is taught the z of another one of about its size.

What stays: the distribution of z, what it says about size, the heads, the taps, the cost, and that a molecule keeps its
z through training. What goes: everything z says about this molecule's own atoms and geometry. A gain that survives is
not due to representation guidance. Molecules of one size exchange their z where they can, so atoms meet atoms one to
one; a conformer never gets the z of another conformer of the same molecule while its bucket has other molecules.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64
from reed_core.errors import InputError
from reed_core.latent import Representation
from torch import Tensor

from reed_molecule.dataset import MoleculeSet

BUCKET = 64  # molecules that exchange their z


def partners(sizes: Int64[np.ndarray, " n"], identities: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """For each molecule, the one whose z it gets: a permutation without fixed points, within buckets of like size.

    Args:
        sizes: Atoms of each molecule.
        identities: Which molecule each conformer is of.
        seed: Seeds the draw.

    Raises:
        InputError: If there is only one molecule.
    """
    if len(sizes) < 2:
        raise InputError(f"the shuffled control needs two molecules or more, got {len(sizes)}; set shuffle=false")
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(sizes)), sizes))
    found = np.empty(len(sizes), dtype=np.int64)
    for some in np.array_split(order, max(1, len(order) // BUCKET)):
        _, inverse, counts = np.unique(identities[some], return_inverse=True, return_counts=True)
        # Sizes stay in order; within a size, conformers of a molecule stand together.
        ring = some[np.lexsort((generator.permutation(len(counts))[inverse], sizes[some]))]
        found[ring] = np.roll(ring, int(counts.max()) if len(counts) > 1 else 1)
    return found


def transplant(
    value: Representation, theirs: Bool[Tensor, "b m"], ours: Bool[Tensor, "b n"], pair: bool
) -> Representation:
    """The z of some molecules laid over others, atom by atom; where the first are smaller, they start again.

    Args:
        value: z of the first, [b, m, ...], or of pairs [b, m, m].
        theirs: Where their atoms are.
        ours: Where the atoms of the others are.
        pair: Whether z is of pairs: then both axes are laid over.

    Returns:
        z [b, n, ...] ([b, n, n]), known where it was known there and the other molecule has an atom (two of them).
    """
    known = theirs if value.mask is None else value.mask
    rows = torch.arange(ours.shape[1])[None] % theirs.sum(1, keepdim=True).clamp(min=1)
    batch = torch.arange(len(ours))[:, None]
    if not pair:
        return Representation(value.z[batch, rows], known[batch, rows] & ours)
    both = (batch[..., None], rows[:, :, None], rows[:, None])
    return Representation(value.z[both], known[both] & ours[:, :, None] & ours[:, None])


class Shuffled:
    """A source that gives every molecule the z of its partner.

    Args:
        source: The source.
        level: The level of its latent.
        molecules: The molecules.
        seed: Seeds the choice of partners.
    """

    def __init__(
        self,
        source: Callable[[Sequence[int], Tensor], Representation],
        level: str,
        molecules: MoleculeSet,
        seed: int,
    ) -> None:
        self.source, self.level, self.sizes = source, level, molecules.sizes
        self.partner = partners(molecules.sizes, np.asarray(molecules.identities), seed)

    def __call__(self, items: Sequence[int], mask: Bool[Tensor, "b n"]) -> Representation:
        """The partners' z."""
        other = [int(self.partner[item]) for item in items]
        sizes = torch.from_numpy(self.sizes[other])
        theirs = torch.arange(int(sizes.max()))[None] < sizes[:, None]
        value = self.source(other, theirs)
        return value if self.level == "global" else transplant(value, theirs, mask, self.level == "pair")
