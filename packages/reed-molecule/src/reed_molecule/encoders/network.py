"""A network of ours (`equivariant`, `bond_graph`) as an encoder: frozen, at node or global level."""

from typing import Any, Literal

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation, pool_tokens
from reed_core.representation import fingerprint_module, named
from reed_core.state import State
from torch import Tensor

from reed_molecule.encoders.bond_graph import BondGraphEncoder
from reed_molecule.encoders.equivariant import EquivariantEncoder

Network = EquivariantEncoder | BondGraphEncoder


class NetworkEncoder:
    """States of a network as z, [b, n, d], or their mean over atoms, [b, d].

    Args:
        module: The network; frozen here.
        level: "token" or "global".
        layer: After which layer it is read, from 1; None takes the last.

    Raises:
        InputError: If there is no such layer.
    """

    def __init__(self, module: Network, level: Literal["token", "global"] = "token", layer: int | None = None) -> None:
        self.module = module.eval().requires_grad_(False)
        self.level, self.layer, self.name, self.dim = level, layer, module.config.kind, module.config.dim
        if layer is not None and not 1 <= layer <= module.config.layers:
            raise InputError(f"layer {layer} of an encoder of {module.config.layers}; choose 1 to that")

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, the level and the layer."""
        read = f"{self.level},{self.layer}"
        return named({"weights": fingerprint_module(self.module), "code": "network-1", "read": read})

    @torch.no_grad()
    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Encodes clean molecules; z lies on the CPU.

        Raises:
            InputError: If an element or a charge is none that the network knows.
        """
        place = self.module.element.weight.device
        exists = torch.ones_like(x_0["numbers"], dtype=torch.bool) if mask is None else mask
        here = {name: value.to(place) for name, value in x_0.items()}
        z = self.module.encode(here, exists.to(place), self.layer).cpu()
        z = torch.where(exists[..., None], z, 0.0)
        if self.level == "global":
            return Representation(pool_tokens(z, exists))
        return Representation(z, exists)
