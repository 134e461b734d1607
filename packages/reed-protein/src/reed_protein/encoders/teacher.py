"""Our own teacher: a trained inverse-folding network that reads the clean sequence on its backbone.

Its late decoder states know each residue and its surroundings, in the terms that a decoder of this family uses. It is
the REED latent that needs no download: the weights that come with the package, or any a user trained.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.latent import Representation
from reed_core.representation import fingerprint_module, named
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.encoders.graph import edges_of, on_edges
from reed_protein.network import InverseFolding


class Teacher:
    """A tapped state of a network as z.

    Args:
        module: The network; frozen here.
        read: The module that is read: "decoder.2" (token level), "decoder.1.message" (pair level).
        level: "token" or "pair".
        neighbours: Edges per residue of a pair-level z, itself included; those beyond the teacher's own graph are
            unknown.
        name: A short name.
    """

    def __init__(
        self,
        module: InverseFolding,
        read: str,
        level: Literal["token", "pair"] = "token",
        neighbours: int = 0,
        name: str = "teacher",
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.read, self.level, self.neighbours, self.name = read, level, neighbours, name
        self.dim = module.config.width

    @classmethod
    def load(
        cls,
        weights: Path,
        read: str,
        level: Literal["token", "pair"] = "token",
        neighbours: int = 0,
        name: str = "teacher",
    ) -> "Teacher":
        """Loads the network from a folder of weights; arguments as of the class."""
        return cls(from_pretrained(InverseFolding, weights), read, level, neighbours, name)

    @property
    def fingerprint(self) -> str:
        """The hash of the weights and of what is read."""
        parts = {"code": "teacher-1", "read": self.read, "level": self.level, "edges": str(self.neighbours)}
        return named({"weights": fingerprint_module(self.module), **parts})

    @torch.no_grad()
    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Encodes a batch.

        Raises:
            InputError: If what is read has other axes than the level says.
        """
        device = next(self.module.parameters()).device
        here = Backbone(c.coords, c.mask, c.position, c.chain)
        with Tap(self.module, [self.read]) as tap:
            self.module(x_0.to(device), None, here.to(device))
        z = tap[self.read].float().cpu()
        if z.ndim != (3 if self.level == "token" else 4) or z.shape[-1] != self.dim:
            raise InputError(
                f"'{self.read}' of the teacher puts out {list(z.shape)}, which is no {self.level} state of width "
                f"{self.dim}; read a layer (decoder.2) for tokens, its message (decoder.1.message) for pairs"
            )
        if self.level == "token":
            return Representation(torch.where(c.mask[..., None].cpu(), z, 0.0), c.mask)
        own = edges_of(here, self.module.config.neighbours)
        return on_edges(Representation(z, own.mask), own, edges_of(here, self.neighbours))
