"""The opponent: the E(n)-equivariant graph network of EDM (arXiv 2203.17003, appendix), under our process and loss.

Per layer, over all ordered pairs i != j of a molecule, with a_ij = (d_ij^2 now, d_ij^2 of the input):
    m_ij = E(h_i, h_j, a_ij)                                  E: linear, SiLU, linear, SiLU
    h_i <- h_i + N(h_i, sum_j sigmoid(w . m_ij) m_ij)         N: linear, SiLU, linear
    x_i <- x_i + sum_j (x_i - x_j) / (d_ij + 1) R tanh(X(h_i, h_j, a_ij))
X is linear, SiLU, linear, SiLU, linear, on the new h; R = 15 / layers. h starts as a linear map of one-hot types,
one-hot charges and t. What is predicted of coordinates is the displacement, centred; of types and charges, a linear map
of the last h.

Ours, as EDM has no bonds: the noisy bond is one-hot among the a_ij, and bonds are read from the sum of the two last
states of a pair, its first and last d^2 and its noisy bond, through linear, SiLU, linear: symmetric. This takes 1.7 %
of the weights of nf 256, 9 layers; without it (`bonds=False`) they are 5.34 million.

`split` computes the first linear map of E and X at the nodes, W [h_i; h_j; a] = W_1 h_i + W_2 h_j + W_3 a: the same
function at less cost, which the published code does not use. Pairs are dense, padding included, as there.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from reed_molecule.condition import Condition
from reed_molecule.model import ModelConfig, MoleculeModel
from reed_molecule.process import centre
from reed_molecule.vocabulary import BONDS
from torch import Tensor, nn
from torch.nn import functional as F

RANGE = 15.0
_TINY = 1e-8  # under the root of d^2, whose slope is infinite at 0
_SMALL_GAIN = 1e-3


class EGNNConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        types: Elements.
        charges: Formal charges.
        features: Width of all layers, nf.
        layers: Number of layers.
        split: Whether the first linear map of the pairs is computed at the nodes.
        bonds: Whether bonds are read and predicted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: int = Field(5, ge=2)
    charges: int = Field(3, ge=2)
    features: int = Field(64, ge=1)
    layers: int = Field(6, ge=1)
    split: bool = False
    bonds: bool = True


class OfPair(nn.Module):
    """Linear, SiLU, linear, SiLU of two node states and what lies between them.

    Args:
        features: Width.
        between: Attributes of a pair.
        split: As in `EGNNConfig`.
    """

    def __init__(self, features: int, between: int, split: bool) -> None:
        super().__init__()
        self.split, self.features = split, features
        self.first = nn.Linear(2 * features + between, features)
        self.second = nn.Linear(features, features)

    def forward(self, h: Float[Tensor, "b n f"], a: Float[Tensor, "b n n k"]) -> Float[Tensor, "b n n f"]:
        """States of all ordered pairs."""
        if self.split:
            of_i, of_j, of_a = self.first.weight.split([self.features, self.features, a.shape[-1]], 1)
            near = F.linear(h, of_i, self.first.bias)[:, :, None] + F.linear(h, of_j)[:, None]
            inner = near + F.linear(a, of_a)
        else:
            shape = (*a.shape[:3], self.features)
            inner = self.first(torch.cat([h[:, :, None].expand(shape), h[:, None].expand(shape), a], -1))
        return F.silu(self.second(F.silu(inner)))


class Layer(nn.Module):
    """One round of messages, node update and coordinate update.

    Args:
        config: Sizes.
    """

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        features, between = config.features, 2 + BONDS * config.bonds
        self.reach = RANGE / config.layers
        self.edge, self.coordinate = (OfPair(features, between, config.split) for _ in range(2))
        self.gate = nn.Linear(features, 1)
        self.node = nn.Sequential(nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, features))
        self.move = nn.Linear(features, 1, bias=False)
        nn.init.xavier_uniform_(self.move.weight, gain=_SMALL_GAIN)

    def forward(
        self,
        h: Float[Tensor, "b n f"],
        x: Float[Tensor, "b n 3"],
        given: Float[Tensor, "b n n k"],
        pairs: Bool[Tensor, "b n n"],
    ) -> tuple[Tensor, Tensor]:
        """New states and coordinates; `given` are the attributes of pairs that stay, `pairs` those that exist."""
        apart, squared = differences(x)
        a = torch.cat([squared, given], -1)
        exists = pairs[..., None].to(h)
        message = self.edge(h, a)
        heard = (self.gate(message).sigmoid() * message * exists).sum(2)
        h = h + self.node(torch.cat([h, heard], -1))
        pull = self.reach * torch.tanh(self.move(self.coordinate(h, a))) * exists
        return h, x + (apart / ((squared + _TINY).sqrt() + 1.0) * pull).sum(2)


class EGNN(nn.Module):
    """The network; depth k is read at `layers.<k-1>:0`.

    Args:
        config: Sizes.
    """

    Config = EGNNConfig

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.config = config
        features = config.features
        self.start = nn.Linear(config.types + config.charges + 1, features)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.end = nn.Linear(features, config.types + config.charges)
        if config.bonds:
            self.bond = nn.Sequential(nn.Linear(features + 2 + BONDS, features), nn.SiLU(), nn.Linear(features, BONDS))

    def forward(
        self,
        x_t: Mapping[str, Tensor],
        t: Float[Tensor, "b"],
        c: Condition | None = None,
        guess: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Predicts every field; arguments and result as in `Denoiser.forward`. A guess is not read."""
        types = x_t["types"]
        mask = torch.ones_like(types, dtype=torch.bool) if c is None else c.mask
        pairs = Condition(mask).pairs
        dtype = self.start.weight.dtype
        first = centre(x_t["coords"].to(dtype), mask)
        told = t.to(dtype)[:, None, None].expand(*types.shape, 1)
        kinds = [_one_hot(x_t[name], mask, count) for name, count in self._tokens()]
        h, x = self.start(torch.cat([*(kind.to(dtype) for kind in kinds), told], -1)), first
        given = differences(first)[1]
        if self.config.bonds:
            given = torch.cat([given, _one_hot(x_t["bonds"], pairs, BONDS).to(dtype)], -1)
        for layer in self.layers:
            h, x = layer(h, x, given, pairs)
        said = dict(zip(("types", "charges"), self.end(h).split([c for _, c in self._tokens()], -1), strict=True))
        said["coords"] = centre(x - first, mask)
        if self.config.bonds:
            ends = torch.cat([h[:, :, None] + h[:, None], differences(x)[1], given], -1)
            said["bonds"] = self.bond(ends)
        return {name: value.to(torch.promote_types(value.dtype, torch.float32)) for name, value in said.items()}

    def _tokens(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("types", self.config.types), ("charges", self.config.charges)


def differences(x: Float[Tensor, "b n 3"]) -> tuple[Tensor, Tensor]:
    """Vectors from j to i, [b, n, n, 3], and their squared lengths, [b, n, n, 1]."""
    apart = x[:, :, None] - x[:, None]
    return apart, apart.square().sum(-1, keepdim=True)


def _one_hot(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """One-hot tokens, 0 where nothing exists, whatever lies there."""
    return F.one_hot(torch.where(mask, values, 0).long(), count) * mask[..., None]


class EGNNModelConfig(ModelConfig):
    """A model whose network is an EGNN.

    Attributes:
        egnn: Its sizes; types and charges are those of the vocabulary.
    """

    egnn: EGNNConfig = EGNNConfig()


class EGNNModel(MoleculeModel):
    """An EGNN with vocabulary, process and size distribution: trained, saved and sampled as ours is.

    Args:
        config: What it is; `network` is not used.
    """

    Config = EGNNModelConfig

    def __init__(self, config: EGNNModelConfig) -> None:
        super().__init__(config)
        sizes = {"types": len(config.elements), "charges": len(config.formal_charges)}
        self.add_module("network", EGNN(config.egnn.model_copy(update=sizes)))
