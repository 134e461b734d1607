"""The inverse-folding network: an encoder that sees the backbone alone, a decoder that also sees known residues.

Message passing on the k-nearest-neighbour graph, cost linear in length (after ProteinMPNN, doi 10.1126/science.add2187,
and with its decoder factored as below). There is no time input: what is masked says how far diffusion has come.

    message_ij = W2 silu(W_i h_i + W_j [h_j, s_j] + W_e e_ij)
    h_i <- norm(h_i + W3 mean_j silu(message_ij)),  h_i <- norm(h_i + MLP(h_i))

The first linear layer of a message is split by operand: its node terms are computed per residue and then gathered, and
in the decoder its edge term W_e e_ij is a constant of the structure, computed once for all steps and all samples.
W3 is linear, so it follows the sum over neighbours. Per edge and step only W2 remains.

Three savings change nothing but the rounding. Without gradients on a CPU, messages are formed and summed a few residues
at a time (`messages`). Who wants the logits of some residues alone says so: the last decoder layer then updates those
alone, the one before it those and their neighbours, and so on. Samples of one structure that still are alike are
evaluated once.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from reed_protein.backbone import Backbone
from reed_protein.features import EDGE_DIM, NODE_DIM, NUM_OFFSETS, build_graph, gather_nodes
from reed_protein.messages import BLOCK, cone, in_blocks, message_sums, reached, ripples, rows

NUM_TOKENS = 20
UNKNOWN_TOKEN = 20
MASK_TOKEN = 21


class NetworkConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        kind: The family of the weights; only this one exists.
        width: Width of node and edge states.
        neighbours: Neighbours per residue, itself included.
        encoder_layers: Layers that see the backbone alone.
        edge_updates: How many of the first encoder layers also update the edges.
        decoder_layers: Layers that also see residues.
        dropout: Dropout on the updates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["inverse-folding"] = "inverse-folding"
    width: int = Field(128, ge=8)
    neighbours: int = Field(24, ge=2)
    encoder_layers: int = Field(3, ge=1)
    edge_updates: int = Field(2, ge=0)
    decoder_layers: int = Field(3, ge=1)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)


@dataclass(frozen=True)
class Encoding:
    """What a backbone is to the decoder; computed once per structure.

    Attributes:
        nodes: Node states after the encoder, [b, n, d].
        edges: Edge terms of each decoder layer, each [b, n, k, d].
        neighbours: Indices into the flattened batch, [b, n, k].
        edge_weight: 1 / (number of neighbours) on existing edges, else 0, [b, n, k, 1].
    """

    nodes: Tensor
    edges: tuple[Tensor, ...]
    neighbours: Tensor
    edge_weight: Tensor

    @property
    def graph(self) -> tuple[Tensor, Tensor]:
        """Neighbours and weights."""
        return self.neighbours, self.edge_weight

    @property
    def shared(self) -> bool:
        """Whether all rows, two or more, are one structure (`repeat`)."""
        return len(self.nodes) > 1 and self.nodes.stride(0) == 0

    def first(self) -> "Encoding":
        """The encoding of the first sample alone."""
        edges = tuple(edge[:1] for edge in self.edges)
        return Encoding(self.nodes[:1], edges, self.neighbours[:1], self.edge_weight[:1])

    def repeat(self, times: int) -> "Encoding":
        """The encoding of a single structure shared by `times` samples (expanded, not copied, where possible)."""
        size, length, _ = self.nodes.shape
        if size != 1:
            raise ValueError(f"only the encoding of one structure can be shared, got {size}")
        shift = torch.arange(times, device=self.neighbours.device)[:, None, None] * length
        return Encoding(
            nodes=self.nodes.expand(times, -1, -1),
            edges=tuple(edge.expand(times, -1, -1, -1) for edge in self.edges),
            neighbours=self.neighbours + shift,
            edge_weight=self.edge_weight.expand(times, -1, -1, -1),
        )


@dataclass(frozen=True)
class Trace:
    """What the decoder made of one sequence, for sequences that differ from it in a few residues.

    Attributes:
        tokens: The sequence, [1, n].
        states: Node states after each decoder layer but the last, each [1, n, d].
    """

    tokens: Tensor
    states: tuple[Tensor, ...]


class Message(nn.Module):
    """The per-edge part of a message, as a module of its own so that its output can be tapped as a pair state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, centre: Tensor, around: Tensor, edge: Tensor) -> Float[Tensor, "b n k d"]:
        """silu(W2 silu(centre_i + around_j + edge_ij))."""
        return F.silu(self.inner(F.silu(centre[:, :, None] + around + edge)))


class Layer(nn.Module):
    """One round of message passing and a feed-forward update of the nodes."""

    def __init__(self, width: int, context: int, dropout: float) -> None:
        super().__init__()
        self.centre = nn.Linear(width, width)
        self.around = nn.Linear(width + context, width, bias=False)
        self.edge = nn.Linear(width, width, bias=False)
        self.message = Message(width)
        self.outer = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, nodes: Tensor, known: Tensor | None, edge_term: Tensor, neighbours: Tensor, edge_weight: Tensor
    ) -> Float[Tensor, "b n d"]:
        """Updates the nodes; `edge_term` is `self.edge(edges)`, `known` extra features of the neighbours."""
        source = nodes if known is None else torch.cat([nodes, known], dim=-1)
        around = self.around(source)
        return self._updated(nodes, self._pooled(self.centre(nodes), around, edge_term, neighbours, edge_weight))

    def some(
        self, nodes: Tensor, known: Tensor, edge_term: Tensor, encoding: Encoding, at: Int[Tensor, "m"]
    ) -> Float[Tensor, "m d"]:
        """The updated nodes at some places of the flattened batch alone."""
        flat = nodes.flatten(0, 1)
        read = reached(at, encoding.neighbours)
        found = self.around(torch.cat([flat.index_select(0, read), rows(known, read)], dim=-1))
        around = found.new_empty(len(flat), found.shape[-1]).index_copy_(0, read, found)[None]
        own = flat.index_select(0, at)
        size = BLOCK if in_blocks(self.message, around) else max(1, len(at))
        pooled = [
            self._pooled(centre, around, *(rows(of, here)[None] for of in (edge_term, *encoding.graph)))
            for centre, here in zip(self.centre(own)[None].split(size, 1), at.split(size), strict=True)
        ]
        return self._updated(own, torch.cat(pooled, 1)[0])

    def _pooled(
        self, centre: Tensor, around: Tensor, edge_term: Tensor, neighbours: Tensor, edge_weight: Tensor
    ) -> Float[Tensor, "b n d"]:
        if in_blocks(self.message, around):
            flat = around.flatten(0, 1)
            return message_sums(self.message.inner, centre, flat, edge_term, neighbours, edge_weight)
        gathered = rows(around, neighbours.flatten()).view(*neighbours.shape, around.shape[-1])
        message = self.message(centre, gathered, edge_term)
        return torch.matmul(edge_weight.to(message.dtype).transpose(-1, -2), message).squeeze(-2)

    def _updated(self, nodes: Float[Tensor, "*b d"], pooled: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        nodes = self.norm1(nodes + self.dropout(self.outer(pooled)))
        return self.norm2(nodes + self.dropout(self.feed(nodes)))


class EdgeUpdate(nn.Module):
    """Updates the edges from their ends."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre, self.around = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width, bias=False)
        self.message = Message(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, nodes: Tensor, edges: Tensor, neighbours: Tensor) -> Float[Tensor, "b n k d"]:
        """Updates the edges."""
        around = gather_nodes(self.around(nodes), neighbours)
        return self.norm(edges + self.message(self.centre(nodes), around, self.edge(edges)))


class InverseFolding(nn.Module):
    """The network. Called as a denoiser: tokens, a time that it ignores, and the backbone (or its encoding).

    Args:
        config: Sizes.
    """

    Config = NetworkConfig

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        width = config.width
        self.node_in = nn.Linear(NODE_DIM, width)
        self.edge_in = nn.Linear(EDGE_DIM, width)
        self.offset = nn.Embedding(NUM_OFFSETS, width)
        self.node_norm, self.edge_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.encoder = nn.ModuleList(Layer(width, 0, config.dropout) for _ in range(config.encoder_layers))
        self.edge_update = nn.ModuleList(EdgeUpdate(width) for _ in range(config.edge_updates))
        self.tokens = nn.Embedding(MASK_TOKEN + 1, width)
        self.decoder = nn.ModuleList(Layer(width, width, config.dropout) for _ in range(config.decoder_layers))
        self.out = nn.Linear(width, NUM_TOKENS)

    def encode(self, backbone: Backbone) -> Encoding:
        """Encodes a batch of backbones; independent of any residue type."""
        graph = build_graph(backbone, self.config.neighbours)
        nodes = self.node_norm(self.node_in(graph.node))
        edges = self.edge_norm(self.edge_in(graph.edge) + self.offset(graph.offset))
        count = graph.edge_mask.sum(-1, keepdim=True).clamp(min=1)
        edge_weight = (graph.edge_mask / count)[..., None]
        for index, layer in enumerate(self.encoder):
            assert isinstance(layer, Layer)
            nodes = layer(nodes, None, layer.edge(edges), graph.neighbours, edge_weight)
            if index < len(self.edge_update):
                edges = self.edge_update[index](nodes, edges, graph.neighbours)
        terms = tuple(layer.edge(edges) for layer in self.decoder if isinstance(layer, Layer))
        return Encoding(nodes, terms, graph.neighbours, edge_weight)

    def forward(
        self,
        x_t: Int[Tensor, "b n"],
        t: Float[Tensor, "b"] | None = None,
        c: Backbone | Encoding | None = None,
        wanted: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n k"]:
        """Logits of the 20 amino acids.

        Args:
            x_t: Tokens: 0..19 amino acids, 20 unknown, 21 masked.
            t: Ignored: the network is an any-order model.
            c: The backbone, or what `encode` made of it.
            wanted: The residues whose logits are looked at; all if None. Others may be not a number.
        """
        if c is None:
            raise ValueError("inverse folding needs a backbone (or its encoding) as the condition c")
        encoding = self.encode(c) if isinstance(c, Backbone) else c
        if encoding.shared and bool((x_t == x_t[:1]).all()):
            anywhere = None if wanted is None else wanted.any(0, keepdim=True)
            return self._logits(x_t[:1], encoding.first(), anywhere, None).expand(len(x_t), -1, -1)
        return self._logits(x_t, encoding, wanted, None)

    def trace(self, tokens: Int[Tensor, "1 n"], encoding: Encoding) -> Trace:
        """Keeps what the decoder makes of a sequence, for `beside`."""
        known = self.tokens(tokens).to(encoding.nodes.dtype)
        states = [encoding.nodes + known]
        for layer, edge_term in zip(self.decoder[:-1], encoding.edges, strict=False):
            states.append(layer(states[-1], known, edge_term, *encoding.graph))
        return Trace(tokens, tuple(states[1:]))

    def beside(
        self, trace: Trace, x_t: Int[Tensor, "b n"], encoding: Encoding, wanted: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n k"]:
        """As `forward`, for sequences of one structure like that of the trace: only what differs is computed."""
        return self._logits(x_t, encoding, wanted, trace)

    def _logits(
        self, x_t: Tensor, encoding: Encoding, wanted: Tensor | None, trace: Trace | None
    ) -> Float[Tensor, "b n k"]:
        known = self.tokens(x_t).to(encoding.nodes.dtype)
        nodes = encoding.nodes + known
        depth = len(self.decoder)
        places: list[Tensor | None] = [None] * depth if wanted is None else cone(wanted, encoding.neighbours, depth)
        if trace is not None:
            places = ripples(x_t != trace.tokens, encoding.neighbours, places)
        for index, (layer, edge_term) in enumerate(zip(self.decoder, encoding.edges, strict=True)):
            assert isinstance(layer, Layer)
            at = places[index]
            if at is None:
                nodes = layer(nodes, known, edge_term, *encoding.graph)
            else:
                found = layer.some(nodes, known, edge_term, encoding, at)
                before = nodes if trace is None or index == depth - 1 else trace.states[index].expand_as(nodes)
                nodes = before.flatten(0, 1).index_copy(0, at, found).view_as(nodes)
        if wanted is None or places[-1] is None:
            return self.out(nodes).float()
        logits = self.out(rows(nodes, places[-1])).float()
        whole = logits.new_full((x_t.numel(), NUM_TOKENS), torch.nan).index_copy(0, places[-1], logits)
        return whole.view(*x_t.shape, NUM_TOKENS)
