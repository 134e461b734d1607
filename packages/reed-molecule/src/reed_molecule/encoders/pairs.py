"""Classes of pairs of atoms: how far apart they are in the bond graph or in space, or which bond joins them.

what        class of a pair
graph       its graph distance minus 1, for distances below FAR; else FAR - 1 (farther apart, or in different parts)
bonds       0 none, 1 single, 2 double, 3 triple, 4 aromatic
distance    the bin of its distance: below EDGES[0], between EDGES[0] and EDGES[1], ..., EDGES[-1] and more, angstrom
They are properties of unordered pairs; a pair of an atom with itself, or with padding, is unknown.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from reed_core.latent import Representation
from reed_core.representation import named
from reed_core.state import State
from torch import Tensor

from reed_molecule.encoders.clean import pairs_of
from reed_molecule.vocabulary import BONDS

What = Literal["graph", "bonds", "distance"]
FAR = 7
EDGES = (1.25, 1.65, 2.0, 2.35, 2.7, 3.2, 4.0, 5.0, 6.5)
CLASSES: Mapping[What, int] = {"graph": FAR, "bonds": BONDS, "distance": len(EDGES) + 1}


class PairClasses:
    """Classes of pairs as z, [b, n, n]; -1 where unknown.

    Args:
        what: Which classes.
    """

    level: Literal["pair"] = "pair"

    def __init__(self, what: What) -> None:
        self.name: str = what
        self.what = what
        self.dim = CLASSES[what]
        self.fingerprint = named({"code": "pairs-1", "what": what})

    @torch.no_grad()
    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """The class of each pair of existing atoms."""
        exists = torch.ones(x_0["bonds"].shape[:2], dtype=torch.bool) if mask is None else mask
        pairs = pairs_of(exists)
        match self.what:
            case "graph":
                z = graph_distance((x_0["bonds"] > 0) & pairs) - 1
            case "bonds":
                z = x_0["bonds"]
            case "distance":
                coords = x_0["coords"]
                apart = (coords[:, :, None] - coords[:, None]).square().sum(-1).sqrt()
                z = torch.bucketize(apart, torch.tensor(EDGES, dtype=apart.dtype), right=True)
        return Representation(torch.where(pairs, z, -1), pairs)


def graph_distance(bonded: Bool[Tensor, "b n n"]) -> Int[Tensor, "b n n"]:
    """Bonds on the shortest path between two atoms, at most FAR, which also stands for no path; 0 on the diagonal."""
    step = bonded.float()
    reached = torch.eye(bonded.shape[1], dtype=torch.bool).expand_as(bonded)
    distance = torch.where(reached, 0, FAR)
    for length in range(1, FAR):
        further = (reached.float() @ step > 0) & ~reached
        distance = torch.where(further, length, distance)
        reached = reached | further
    return distance
