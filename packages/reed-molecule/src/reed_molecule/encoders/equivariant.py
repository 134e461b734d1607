"""An E(3)-equivariant network of conformers, built of e3nn: node states of C scalars (0e) and C vectors (1o).

    m_ij = w(d_ij) . (x_j (x) Y(x_i - x_j))       depthwise: channel c of x_j meets the l <= 1 harmonics alone ("uvu")
    x_i <- x_i + gate(L' sum_j m_ij / NEIGHBOURS + S x_i),   x_j = L x_j before
All linear maps L, L', S act on nodes; an edge has 4 C weights, told by a small network of radial functions of d_ij that
fade out at the cutoff. Pairs are dense: molecules are small. Only the paths 0e 0e -> 0e, 1o 1o -> 0e, 0e 1o -> 1o and
1o 0e -> 1o are kept, so reflections are respected too.

`encode` reads invariants of a node after a layer: its scalars and the lengths of its vectors, layer-normed.
`forward` is what pretraining asks (`reed_molecule.pretrain`): where the atoms of a noisy conformer were, as
x + w . V_i, and which element a hidden atom is. e3nn is imported when a network is made.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from torch import Tensor, nn
from torch.nn import functional as F

from reed_molecule.condition import Condition
from reed_molecule.encoders.clean import pairs_of, types_of
from reed_molecule.layers import Radial

NEIGHBOURS = 8.0  # about the sum of the radial weights at an atom
_TINY = 1e-12


class EquivariantConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        kind: The family of the weights.
        elements: The elements it knows.
        width: C, channels of scalars and of vectors.
        layers: Rounds of messages.
        radial: Radial functions.
        cutoff: Angstrom.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["e3nn"] = "e3nn"
    elements: tuple[str, ...] = Field(min_length=1)
    width: int = Field(64, ge=1)
    layers: int = Field(3, ge=1)
    radial: int = Field(32, ge=2)
    cutoff: float = Field(6.0, gt=0)

    @property
    def dim(self) -> int:
        """Width of what `encode` returns."""
        return 2 * self.width


class States(NamedTuple):
    """Node states.

    Attributes:
        scalars: [b, n, c].
        vectors: [b, n, c, 3].
    """

    scalars: Tensor
    vectors: Tensor


class Message(nn.Module):
    """One round of messages.

    Args:
        width: C.
        radial: Radial functions.
    """

    def __init__(self, width: int, radial: int) -> None:
        super().__init__()
        o3 = _o3()
        both, edge = o3.Irreps(f"{width}x0e+{width}x1o"), o3.Irreps("1x0e+1x1o")
        middle = o3.Irreps(f"{width}x0e+{width}x0e+{width}x1o+{width}x1o")
        paths = [(0, 0, 0, "uvu", True), (1, 1, 1, "uvu", True), (0, 1, 2, "uvu", True), (1, 0, 3, "uvu", True)]
        self.width = width
        self.up = o3.Linear(both, both)
        self.product = o3.TensorProduct(both, edge, middle, paths, shared_weights=False, internal_weights=False)
        self.weigh = nn.Sequential(
            nn.Linear(radial, width), nn.SiLU(), nn.Linear(width, self.product.weight_numel, bias=False)
        )
        gated = o3.Irreps(f"{2 * width}x0e+{width}x1o")
        self.down, self.skip = o3.Linear(middle, gated), o3.Linear(both, gated)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        edges: Float[Tensor, "b n n 4"],
        radial: Float[Tensor, "b n n r"],
        fade: Float[Tensor, "b n n"],
    ) -> Float[Tensor, "b n w"]:
        """Updated states, [b, n, 4 C]: scalars, then vectors."""
        count = x.shape[1]
        weights = self.weigh(radial) * fade[..., None]
        source = self.up(x)[:, None].expand(-1, count, -1, -1)
        seen = self.product(source, edges, weights).sum(2) / NEIGHBOURS
        out = self.down(seen) + self.skip(x)
        scalars, gates, vectors = out.split([self.width, self.width, 3 * self.width], -1)
        opened = vectors.unflatten(-1, (self.width, 3)) * gates.sigmoid()[..., None]
        return x + torch.cat([F.silu(scalars), opened.flatten(-2)], -1)


class EquivariantEncoder(nn.Module):
    """The network.

    Args:
        config: Sizes.

    Raises:
        InputError: If e3nn is not installed.
    """

    Config = EquivariantConfig

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__()
        self.config = config
        count = len(config.elements)
        self.element = nn.Embedding(count + 1, config.width)  # the last is a hidden atom
        self.radial = Radial(config.radial)
        self.messages = nn.ModuleList(Message(config.width, config.radial) for _ in range(config.layers))
        self.move = nn.Linear(config.width, 1, bias=False)
        self.say = nn.Sequential(nn.Linear(config.dim, config.width), nn.SiLU(), nn.Linear(config.width, count))

    def states(
        self, coords: Float[Tensor, "b n 3"], types: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"], layers: int
    ) -> States:
        """Node states after some layers; padding is never read.

        Args:
            coords: Angstrom.
            types: Places among the elements; their number hides an atom.
            mask: Where atoms exist.
            layers: How many rounds.
        """
        dtype, width = self.element.weight.dtype, self.config.width
        place = torch.where(mask[..., None], coords, 0.0).to(dtype)
        apart = place[:, :, None] - place[:, None]
        distance = apart.square().sum(-1).clamp(min=_TINY).sqrt()
        edges = torch.cat([torch.ones_like(distance)[..., None], math.sqrt(3.0) * apart / distance[..., None]], -1)
        near = pairs_of(mask) & (distance < self.config.cutoff)
        fade = torch.where(near, 0.5 * (torch.cos(math.pi * distance / self.config.cutoff) + 1.0), 0.0)
        radial = self.radial(distance)
        start = self.element(torch.where(mask, types, 0))
        x = torch.cat([start, start.new_zeros(*start.shape[:-1], 3 * width)], -1)
        for message in self.messages[:layers]:
            x = message(x, edges, radial, fade)
        return States(x[..., :width], x[..., width:].unflatten(-1, (width, 3)))

    def forward(
        self, x_t: Mapping[str, Tensor], t: Float[Tensor, "b"], c: Condition | None = None
    ) -> dict[str, Tensor]:
        """Where atoms were, `coords` [b, n, 3], and logits of what they are, `types` [b, n, k]; t is not looked at."""
        mask = torch.ones_like(x_t["types"], dtype=torch.bool) if c is None else c.mask
        states = self.states(x_t["coords"], x_t["types"], mask, self.config.layers)
        shift = self.move(states.vectors.transpose(-1, -2)).squeeze(-1)
        return {"coords": x_t["coords"] + shift, "types": self.say(_invariants(states))}

    def encode(
        self, x_0: Mapping[str, Tensor], mask: Bool[Tensor, "b n"], layer: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """Invariants of each atom of clean molecules (`reed_molecule.encoders.clean`).

        Args:
            x_0: The molecules.
            mask: Where atoms exist.
            layer: After which layer, from 1; None takes the last.
        """
        types = types_of(x_0["numbers"], mask, self.config.elements)
        states = self.states(x_0["coords"], types, mask, self.config.layers if layer is None else layer)
        return _invariants(states)


def _invariants(states: States) -> Float[Tensor, "b n d"]:
    """Scalars and lengths of vectors, layer-normed."""
    lengths = (states.vectors.square().sum(-1) + 1e-6).sqrt()
    joined = torch.cat([states.scalars, lengths], -1)
    return F.layer_norm(joined, joined.shape[-1:])


def _o3():  # type: ignore[no-untyped-def]
    """The module e3nn.o3."""
    try:
        from e3nn import o3
    except ImportError as error:
        raise InputError("latents of kind e3nn need the package e3nn; install it, or choose another kind") from error
    return o3
