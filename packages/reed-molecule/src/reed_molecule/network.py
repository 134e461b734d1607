"""The denoiser of molecules: E(3)-equivariant, for coordinates, types, charges and bonds at once.

Positions are centred first, so nothing depends on where a molecule lies. Every block adds to the velocity v and looks
at positions further along the straight path: with noise(t) = t of the linear path,
    x^(k) = x_t - t (v_1 + ... + v_k),   v = v_1 + ... + v_K
so x^(K) is the clean molecule that v implies, and each block reads distances in the current estimate of it. The pair
states keep what the first blocks read in x_t itself. Types and charges are read from node states, bonds from the sum of
both directions of a pair state, which makes their logits symmetric.

Self-conditioning (arXiv 2208.04202), when `self_condition` is set: the network is also given a guess, its own
prediction of the step before. In training half of the batches run it twice, the first time without gradient,
for that guess.

Properties of whole molecules, when `conditions` says how many, are added to the vector of the time
(`property_embedding`). A given part of the molecules, when `parts` is set, is read clean and marked, at nodes and at
pairs; what is said of it is what is given, whether or not the network can read it (`part`).

Equivariance: rotation, reflection and translation turn v alone; a permutation of atoms permutes everything; padding is
never read. Blocks and their mathematics are in `layers`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from torch import Tensor, nn
from torch.nn import functional as F

from reed_molecule.condition import Condition
from reed_molecule.layers import Block, Radial, between, time_features
from reed_molecule.part import Part
from reed_molecule.process import FIELDS, centre
from reed_molecule.property_embedding import PropertyEmbedding
from reed_molecule.vocabulary import BONDS

TIME_FEATURES = 32


class NetworkConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        types: Elements of the vocabulary.
        charges: Formal charges of the vocabulary.
        width: Width of node states.
        vectors: Vector channels of a node.
        pairs: Width of pair states.
        blocks: Number of blocks.
        heads: Attention heads; a divisor of `width` and of `vectors`.
        radial: Features of a distance.
        self_condition: Whether the network reads its prediction of the step before.
        conditions: Properties of whole molecules that the network is told.
        parts: Whether it reads given parts; one that does not can still be led to them (`inpaint`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: int = Field(5, ge=2)
    charges: int = Field(3, ge=2)
    width: int = Field(160, ge=8)
    vectors: int = Field(32, ge=1)
    pairs: int = Field(48, ge=4)
    blocks: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    radial: int = Field(24, ge=2)
    self_condition: bool = False
    conditions: int = Field(0, ge=0)
    parts: bool = False

    @model_validator(mode="after")
    def _divisible(self) -> "NetworkConfig":
        if self.width % self.heads or self.vectors % self.heads:
            raise ValueError(f"heads {self.heads} must divide width {self.width} and vectors {self.vectors}")
        return self


class Guess(nn.Module):
    """What an earlier prediction adds to the first states of nodes, vectors and pairs.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.radial = Radial(config.radial)
        self.node = nn.Linear(config.types + config.charges, config.width)
        self.vector = nn.Linear(1, config.vectors, bias=False)
        self.pair = nn.Linear(BONDS + config.radial, config.pairs)

    def forward(self, guess: Mapping[str, Tensor], clean: Float[Tensor, "b n 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of h, V and e, from logits and the clean positions that the guess implies."""
        types, charges, bonds = (guess[name].to(clean).softmax(-1) for name in ("types", "charges", "bonds"))
        distances = self.radial(between(clean).distance)
        return (
            self.node(torch.cat([types, charges], -1)),
            self.vector(clean[..., None]),
            self.pair(torch.cat([bonds, distances], -1)),
        )


class Marks(nn.Module):
    """What tells given atoms and pairs from noise; at the start nothing does.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.node = nn.Parameter(torch.zeros(config.width))
        self.pair = nn.Parameter(torch.zeros(config.pairs))

    def forward(self, part: Part) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b n n p"]]:
        """Terms of h and e."""
        node, pair = part.known["coords"][..., None], part.known["bonds"][..., None]
        return node.to(self.node) * self.node, pair.to(self.pair) * self.pair


class Denoiser(nn.Module):
    """The network. Depth k is read at `blocks.<k-1>`: node states [b, n, width].

    Args:
        config: Sizes.
    """

    Config = NetworkConfig

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        width, pairs = config.width, config.pairs
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.types = nn.Embedding(config.types + 1, width)  # the last is the mask token of masked diffusion
        self.charges = nn.Embedding(config.charges + 1, width)
        self.place = nn.Linear(width, config.vectors)
        self.bonds = nn.Embedding(BONDS + 1, pairs)
        self.blocks = nn.ModuleList(
            Block(width, config.vectors, pairs, config.heads, config.radial, width) for _ in range(config.blocks)
        )
        self.guess = Guess(config) if config.self_condition else None
        self.marks = Marks(config) if config.parts else None
        self.norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(pairs)
        self.say_type = nn.Linear(width, config.types)
        self.say_charge = nn.Linear(width, config.charges)
        self.pair_ends = nn.Linear(width, pairs)
        self.pair_inner = nn.Linear(pairs, pairs)
        self.say_bond = nn.Linear(pairs, BONDS)
        self.told = PropertyEmbedding(config.conditions, width) if config.conditions else None

    def forward(
        self,
        x_t: Mapping[str, Tensor],
        t: Float[Tensor, "b"],
        c: Condition | None = None,
        guess: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Predicts every field.

        Args:
            x_t: `coords` [b, n, 3] in model units, `types` [b, n], `charges` [b, n], `bonds` [b, n, n], symmetric.
            t: Times, [b].
            c: Which atoms exist, and what is known or given of the molecules; None when all do, and nothing is.
            guess: An earlier prediction for these molecules, read with `self_condition` alone; None is no guess.

        Returns:
            `coords`: the velocity, centred, 0 in the padding, [b, n, 3]; `types`, `charges`: logits [b, n, k]; `bonds`:
            symmetric logits [b, n, n, BONDS], meaningless on the diagonal.

        Raises:
            InputError: If a field is missing.
        """
        if set(x_t) != set(FIELDS):
            raise InputError(f"expected the fields {', '.join(FIELDS)}, got {', '.join(x_t)}; give every field a value")
        if self.guess is not None and guess is None and self.training and bool(torch.rand(()) < 0.5):
            with torch.no_grad():
                guess = self._predict(x_t, t, c, None)
        return self._predict(x_t, t, c, guess)

    def _predict(
        self,
        x_t: Mapping[str, Tensor],
        t: Float[Tensor, "b"],
        c: Condition | None,
        guess: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        mask = torch.ones_like(x_t["types"], dtype=torch.bool) if c is None else c.mask
        part = None if c is None else c.part
        pairs = Condition(mask).pairs
        dtype = self.norm.weight.dtype
        noisy = {**x_t, "coords": centre(x_t["coords"].to(dtype), mask)}
        read = noisy if part is None or self.marks is None else part.read(noisy)
        start, types = read["coords"], read["types"]
        t = t.to(start)
        atoms = mask.sum(1, keepdim=True).to(start).clamp(min=1).log() / 3.0
        time = self.time(torch.cat([time_features(t, TIME_FEATURES), atoms], -1))
        if self.told is not None:
            time = time + self.told(None if c is None else c.properties, time)
        h = self.types(_tokens(types, mask)) + self.charges(_tokens(read["charges"], mask)) + time[:, None]
        V = start[..., None] * self.place(h)[:, :, None]
        e = self.bonds(_tokens(read["bonds"], pairs))
        if self.marks is not None and part is not None:
            more_h, more_e = self.marks(part)
            h, e = h + more_h, e + more_e
        if self.guess is not None and guess is not None:
            clean = noisy["coords"] - t[:, None, None] * guess["coords"].to(dtype)
            more_h, more_V, more_e = self.guess(guess, clean)
            h, V, e = h + more_h, V + more_V, e + more_e
        v = torch.zeros_like(start)
        for block in self.blocks:
            h, V, e, more = block(h, V, e, start - t[:, None, None] * v, mask, pairs, time)
            v = v + centre(more, mask)
        h, e = self.norm(h), self.pair_norm(e + e.transpose(1, 2))
        ends = self.pair_ends(h)
        bonds = F.silu(self.pair_inner(e) + ends[:, :, None] + ends[:, None])
        said = {"coords": v, "types": self.say_type(h), "charges": self.say_charge(h), "bonds": self.say_bond(bonds)}
        said = {name: value.to(torch.promote_types(value.dtype, torch.float32)) for name, value in said.items()}
        return said if part is None else part.said(said, noisy, t)


def _tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Tokens as indices of an embedding, 0 where nothing exists, whatever lies there."""
    return torch.where(mask, values, 0).long()
