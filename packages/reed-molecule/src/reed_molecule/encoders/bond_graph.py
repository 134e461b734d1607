"""A network of the bond graph alone: elements, formal charges and bonds, no coordinates (GINEConv of torch-geometric).

    h_i <- h_i + MLP(norm(h_i) + sum_{j bonded to i} relu(norm(h_j) + e(class of the bond)))        (arXiv 1905.12265)
Sums, not means, tell apart what the Weisfeiler-Lehman test tells apart, at random weights already: that is the control
for pretrained ones. Molecules of a batch are packed into one graph; torch-geometric is imported when a network is made.

`forward` is what pretraining asks: which element a hidden atom is (attribute masking). The bonds and charges are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from torch import Tensor, nn
from torch.nn import functional as F

from reed_molecule.encoders.clean import pairs_of, types_of
from reed_molecule.vocabulary import BONDS, Vocabulary


class BondGraphConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        kind: The family of the weights.
        elements: The elements it knows.
        charges: The formal charges it knows.
        width: Width of node states.
        layers: Rounds of messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["bond_graph"] = "bond_graph"
    elements: tuple[str, ...] = Field(min_length=1)
    charges: tuple[int, ...] = (0,)
    width: int = Field(128, ge=1)
    layers: int = Field(4, ge=1)

    @property
    def dim(self) -> int:
        """Width of what `encode` returns."""
        return self.width


@dataclass(frozen=True)
class BondGraphCondition:
    """What pretraining gives beside the elements.

    Attributes:
        mask: Where atoms exist, [b, n].
        charges: Classes of formal charges, [b, n].
        bonds: Bond classes, [b, n, n].
    """

    mask: Bool[Tensor, "b n"]
    charges: Int[Tensor, "b n"]
    bonds: Int[Tensor, "b n n"]

    def to(self, device: Any) -> "BondGraphCondition":
        """The same on a device."""
        return BondGraphCondition(self.mask.to(device), self.charges.to(device), self.bonds.to(device))


class BondGraphEncoder(nn.Module):
    """The network.

    Args:
        config: Sizes.

    Raises:
        InputError: If torch-geometric is not installed.
    """

    Config = BondGraphConfig

    def __init__(self, config: BondGraphConfig) -> None:
        super().__init__()
        try:
            from torch_geometric.nn.conv import GINEConv
        except ImportError as error:
            raise InputError(
                "latents of kind bond_graph need the package torch-geometric; install it, or choose another kind"
            ) from error
        self.config = config
        convolution: Any = GINEConv  # its optional methods are declared abstract
        width, count = config.width, len(config.elements)
        self.element = nn.Embedding(count + 1, width)  # the last is a hidden atom
        self.charge = nn.Embedding(len(config.charges), width)
        self.bond = nn.Embedding(BONDS, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.layers))
        self.convolutions = nn.ModuleList(
            convolution(nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)))
            for _ in range(config.layers)
        )
        self.say = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, count))

    def states(
        self,
        types: Int[Tensor, "b n"],
        charges: Int[Tensor, "b n"],
        bonds: Int[Tensor, "b n n"],
        mask: Bool[Tensor, "b n"],
        layers: int,
    ) -> Float[Tensor, "b n w"]:
        """Node states after some layers, layer-normed; 0 in the padding.

        Args:
            types: Places among the elements; their number hides an atom.
            charges: Places among the charges.
            bonds: Bond classes, symmetric.
            mask: Where atoms exist.
            layers: How many rounds.
        """
        place = torch.full(mask.shape, -1, device=mask.device)
        place[mask] = torch.arange(int(mask.sum()), device=mask.device)
        row, to, source = torch.where((bonds > 0) & pairs_of(mask), bonds, 0).nonzero(as_tuple=True)
        edges = torch.stack([place[row, source], place[row, to]])
        told = self.bond(bonds[row, to, source])
        h = self.element(types[mask]) + self.charge(charges[mask])
        for norm, convolution in zip(self.norms[:layers], self.convolutions[:layers], strict=True):
            h = h + convolution(norm(h), edges, told)
        out = h.new_zeros(*mask.shape, self.config.width)
        out[mask] = F.layer_norm(h, h.shape[-1:])
        return out

    def forward(
        self, x_t: Mapping[str, Tensor], t: Float[Tensor, "b"], c: BondGraphCondition | None = None
    ) -> dict[str, Tensor]:
        """Logits of the elements, `types` [b, n, k]; t is not looked at.

        Raises:
            InputError: If there is no bond graph.
        """
        if c is None:
            raise InputError("a bond-graph encoder reads bonds and charges; give them as a BondGraphCondition")
        return {"types": self.say(self.states(x_t["types"], c.charges, c.bonds, c.mask, self.config.layers))}

    def encode(
        self, x_0: Mapping[str, Tensor], mask: Bool[Tensor, "b n"], layer: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """States of each atom of clean molecules (`reed_molecule.encoders.clean`).

        Args:
            x_0: The molecules.
            mask: Where atoms exist.
            layer: After which layer, from 1; None takes the last.
        """
        types = types_of(x_0["numbers"], mask, self.config.elements)
        known = Vocabulary(self.config.elements, self.config.charges)
        real = torch.where(mask, x_0["charges"], self.config.charges[0]).cpu().numpy()
        charges = torch.from_numpy(known.charge_classes_of(real)).to(types.device)
        return self.states(types, charges, x_0["bonds"], mask, self.config.layers if layer is None else layer)
