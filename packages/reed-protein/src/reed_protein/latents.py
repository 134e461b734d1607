"""What the network is taught to know while it learns to design: latents made from the clean sequence and the backbone.

identity      token level, encoder: the residue itself, asked of states that see the backbone alone. A categorical
              head; I(z; x | c) > 0, since the backbone does not determine the sequence.
environment   token level: BLOSUM62 rows of the residue and the mean row of its spatial neighbours, a vMF (cosine) head.
contact       pair level: the classes of the two residues of every edge of the graph (6 x 6 physico-chemical classes), a
              categorical head on a message of the decoder.

BLOSUM62: Henikoff & Henikoff 1992, doi 10.1073/pnas.89.22.10915. Classes: aliphatic AVILMC, aromatic FWYH, polar
NQST, positive KR, negative DE, special GP.
"""

from functools import cache

import torch
from jaxtyping import Int
from reed_core.errors import InputError
from reed_core.head import Categorical, VonMisesFisher
from reed_core.latent import Latent, Representation, Representations
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.dataset import LatentMaker
from reed_protein.features import gather_nodes, nearest_neighbours
from reed_protein.network import NUM_TOKENS, UNKNOWN_TOKEN, NetworkConfig
from reed_protein.residues import AMINO_ACIDS

CLASSES = ("AVILMC", "FWYH", "NQST", "KR", "DE", "GP")


def identity(tap: str, width: int, weight: float) -> Latent:
    """The latent `identity`, read at `tap`."""
    return Latent("identity", tap, width, NUM_TOKENS, Categorical(), "token", weight, hidden=width, layers=2)


def environment(tap: str, width: int, weight: float) -> Latent:
    """The latent `environment`, read at `tap`."""
    return Latent("environment", tap, width, 2 * NUM_TOKENS, VonMisesFisher(), "token", weight, hidden=width, layers=2)


def contact(tap: str, width: int, weight: float) -> Latent:
    """The latent `contact`, read at `tap`, a module whose output is a pair state."""
    return Latent("contact", tap, width, len(CLASSES) ** 2, Categorical(), "pair", weight, hidden=width // 2, layers=2)


KINDS = {"identity": identity, "environment": environment, "contact": contact}


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


def make_latents(names: tuple[str, ...], config: NetworkConfig) -> LatentMaker:
    """A function that makes the named latents of a batch from its clean tokens and its backbone.

    Args:
        names: Some of `KINDS`.
        config: The network, whose graph pair latents follow.

    Raises:
        InputError: If a name is unknown.
    """
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise InputError(f"unknown latent {', '.join(unknown)}; choose from {', '.join(KINDS)}")

    def make(tokens: Int[Tensor, "b n"], backbone: Backbone) -> Representations:
        known = backbone.mask & (tokens < UNKNOWN_TOKEN)
        values: dict[str, Representation] = {}
        if "identity" in names:
            values["identity"] = Representation(torch.where(known, tokens, -1), known)
        if {"environment", "contact"} & set(names):
            neighbours, edge_mask = nearest_neighbours(backbone.coords[..., 1, :], backbone.mask, config.neighbours)
            both = edge_mask & known[..., None] & gather_nodes(known, neighbours)
        if "environment" in names:
            rows = blosum_rows()[torch.where(known, tokens, UNKNOWN_TOKEN)]
            around = (gather_nodes(rows, neighbours) * both[..., None]).sum(-2) / both.sum(-1, keepdim=True).clamp(
                min=1
            )
            values["environment"] = Representation(torch.cat([rows, around], -1), known)
        if "contact" in names:
            group = residue_classes()[torch.where(known, tokens, UNKNOWN_TOKEN)]
            pair = group[..., None] * len(CLASSES) + gather_nodes(group, neighbours)
            values["contact"] = Representation(torch.where(both, pair, -1), both)
        return values

    return make
