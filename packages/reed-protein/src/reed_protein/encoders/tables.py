"""What tables say of the clean sequence on its backbone: nothing is learned, nothing is read from disk.

identity      token level: the residue itself, asked of states that see the backbone alone. I(z; x | c) > 0, since the
              backbone does not determine the sequence.
environment   token level: BLOSUM62 rows of the residue and the mean row of its spatial neighbours.
contact       pair level: the classes of the two residues of every edge of the graph (6 x 6 physico-chemical classes).

BLOSUM62: Henikoff & Henikoff 1992, doi 10.1073/pnas.89.22.10915. Classes: aliphatic AVILMC, aromatic FWYH, polar
NQST, positive KR, negative DE, special GP.
"""

from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from reed_core.latent import Representation
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.features import gather_nodes, nearest_neighbours
from reed_protein.network import NUM_TOKENS, UNKNOWN_TOKEN
from reed_protein.residues import AMINO_ACIDS

CLASSES = ("AVILMC", "FWYH", "NQST", "KR", "DE", "GP")


@cache
def residue_classes() -> Int[Tensor, "21"]:
    """The class of each token; -1 for unknown."""
    of = {letter: index for index, members in enumerate(CLASSES) for letter in members}
    return torch.tensor([*(of[letter] for letter in AMINO_ACIDS), -1])


@cache
def blosum_rows() -> Tensor:
    """Centred BLOSUM62 rows, [21, 20]; the row of unknown is 0."""
    from Bio.Align import substitution_matrices

    matrix = substitution_matrices.load("BLOSUM62")
    rows = torch.tensor([[float(matrix[a][b]) for b in AMINO_ACIDS] for a in AMINO_ACIDS])
    return torch.cat([rows - rows.mean(0), torch.zeros(1, NUM_TOKENS)])


class Identity:
    """The encoder `identity`: the class of each residue, 0..19."""

    name, dim, fingerprint = "identity", NUM_TOKENS, "identity 1"
    level: Literal["token"] = "token"

    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Classes, -1 where unknown."""
        known = c.mask & (x_0 < UNKNOWN_TOKEN)
        return Representation(torch.where(known, x_0, -1), known)


class Environment:
    """The encoder `environment`.

    Args:
        neighbours: Neighbours per residue, itself included.
    """

    name, dim = "environment", 2 * NUM_TOKENS
    level: Literal["token"] = "token"

    def __init__(self, neighbours: int) -> None:
        self.neighbours = neighbours
        self.fingerprint = f"environment 1, {neighbours} neighbours"

    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Rows of the residue and of its neighbours' mean, [b, n, 40]."""
        known, neighbours, both = _graph(x_0, c, self.neighbours)
        rows = blosum_rows()[torch.where(known, x_0, UNKNOWN_TOKEN)]
        around = (gather_nodes(rows, neighbours) * both[..., None]).sum(-2)
        around = around / both.sum(-1, keepdim=True).clamp(min=1)
        return Representation(torch.cat([rows, around], -1), known)


class Contact:
    """The encoder `contact`, on the edges of the backbone it is given.

    Args:
        neighbours: Neighbours per residue, itself included.
    """

    name, dim = "contact", len(CLASSES) ** 2
    level: Literal["pair"] = "pair"

    def __init__(self, neighbours: int) -> None:
        self.neighbours = neighbours
        self.fingerprint = f"contact 1, {neighbours} neighbours"

    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Class pairs, [b, n, k], -1 where unknown."""
        known, neighbours, both = _graph(x_0, c, self.neighbours)
        group = residue_classes()[torch.where(known, x_0, UNKNOWN_TOKEN)]
        pair = group[..., None] * len(CLASSES) + gather_nodes(group, neighbours)
        return Representation(torch.where(both, pair, -1), both)


def _graph(tokens: Tensor, backbone: Backbone, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which residues are known, the flattened neighbours, and edges between known residues."""
    known = backbone.mask & (tokens < UNKNOWN_TOKEN)
    neighbours, edges = nearest_neighbours(backbone.coords[..., 1, :], backbone.mask, k)
    return known, neighbours, edges & known[..., None] & gather_nodes(known, neighbours)
