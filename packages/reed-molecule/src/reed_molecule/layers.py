"""Layers of the molecular denoiser: time and distance features, norms that keep equivariance, and the block.

A block holds, per molecule, invariant node states h [b,n,w], vectors V [b,n,3,c] (l = 1, odd under reflection), pair
states e [b,n,n,p] and the positions x [b,n,3] that distances are taken of. Only these operations mix them, each of them
E(3)-equivariant:
    pair      g_ij = silu(W_1 h_i + W_2 h_j + W_3 [e_ij, radial(|x_i - x_j|)]),   e <- e + W g
    attention a_ij = softmax_j(q_i . k_j + Q V_i : K V_j + bias(g_ij))    (':' sums over space and channels)
              h_i <- h_i + W [sum_j a_ij v_j, sum_j a_ij g_ij, sum_j s_ij g_ij],   s_ij = sigmoid(w . g_ij), j != i
              V_i <- V_i + sum_j a_ij U V_j + sum_j s'_ij u_ij,   u_ij = (x_i - x_j) / sqrt(|x_i - x_j|^2 + CORE^2)
    feed      (h, V) <- (h, V) + MLP of h and |U V_i|, which also scales U' V_i
    move      x_i <- x_i + t w . V_i
The softmax forgets how many neighbours there are, the sigmoid-weighted sum counts them, as valences need. The first
linear layer of the pairs is split: W_1 h_i and W_2 h_j are computed per node. u_ij and all distances are smooth where
atoms coincide.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

CORE = 0.1
RANGE = 0.6


class Radial(nn.Module):
    """Features of distances: Gaussians in exp(-RANGE d), finest at bond lengths (after PhysNet, arXiv 1902.08408).

    Args:
        count: Number of features.
    """

    centres: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(0.0, 1.0, count), persistent=False)
        self.sharpness = 0.5 * (count - 1) ** 2

    def forward(self, distance: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n r"]:
        """Features in [0, 1] of distances in model units."""
        return torch.exp(-self.sharpness * (torch.exp(-RANGE * distance)[..., None] - self.centres).square())


class Between(NamedTuple):
    """What lies between the atoms of each pair.

    Attributes:
        distance: [b, n, n]; CORE at least.
        direction: Vectors from j to i, shorter than 1, 0 where atoms coincide, [b, n, n, 3].
    """

    distance: Tensor
    direction: Tensor


def between(x: Float[Tensor, "b n 3"]) -> Between:
    """Distances and directions, smooth everywhere."""
    apart = x[:, :, None] - x[:, None, :]
    distance = (apart.square().sum(-1) + CORE**2).sqrt()
    return Between(distance, apart / distance[..., None])


def time_features(t: Float[Tensor, "b"], count: int) -> Float[Tensor, "b c"]:
    """Sines and cosines of the time, of periods from 2 down to 2 / 256."""
    rate = math.pi * torch.exp2(torch.linspace(0.0, 8.0, count // 2, device=t.device, dtype=t.dtype))
    angle = t[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1)


def calm(vectors: Float[Tensor, "b n 3 c"]) -> Float[Tensor, "b n 3 c"]:
    """Vectors divided by sqrt(1 + the mean square of their lengths): bounded, and smooth at 0."""
    return vectors / (1.0 + vectors.square().sum(2, keepdim=True).mean(3, keepdim=True)).sqrt()


class Modulated(nn.Module):
    """A layer norm whose scale and shift are told by the time.

    Args:
        width: Width of the states.
        told: Width of the time embedding.
    """

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.tell = nn.Linear(told, 2 * width)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, h: Float[Tensor, "b n w"], time: Float[Tensor, "b e"]) -> Float[Tensor, "b n w"]:
        """Normalised, scaled and shifted states."""
        scale, shift = self.tell(time)[:, None].chunk(2, -1)
        return self.norm(h) * (1.0 + scale) + shift


class Exchange(nn.Module):
    """The part of a block in which atoms see each other.

    Args:
        width: Of the nodes.
        vectors: Vector channels.
        pairs: Width of the pair states.
        heads: Attention heads, a divisor of width and vectors.
        radial: Distance features.
        told: Width of the time embedding.
    """

    def __init__(self, width: int, vectors: int, pairs: int, heads: int, radial: int, told: int) -> None:
        super().__init__()
        self.heads, self.vectors = heads, vectors
        self.norm = Modulated(width, told)
        self.ends = nn.Linear(width, 2 * pairs)
        self.edge = nn.Linear(pairs + radial, pairs, bias=False)
        self.grow = nn.Linear(pairs, pairs)
        self.score = nn.Linear(pairs, 2 * heads)
        self.radiate = nn.Linear(pairs, vectors)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.vector_qkv = nn.Linear(vectors, 3 * vectors, bias=False)
        self.out = nn.Linear(width + 2 * heads * pairs, width)
        self.vector_out = nn.Linear(vectors, vectors, bias=False)

    def forward(
        self,
        h: Float[Tensor, "b n w"],
        V: Float[Tensor, "b n 3 c"],
        e: Float[Tensor, "b n n p"],
        radial: Float[Tensor, "b n n r"],
        direction: Float[Tensor, "b n n 3"],
        mask: Bool[Tensor, "b n"],
        pairs: Bool[Tensor, "b n n"],
        time: Float[Tensor, "b e"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updated h, V and e; `pairs` is True for two different existing atoms."""
        size, count = h.shape[:2]
        source, directed = self.norm(h, time), calm(V)
        left, right = self.ends(source).chunk(2, -1)
        inner = left[:, :, None] + right[:, None] + self.edge(torch.cat([e, radial], -1))
        g = F.silu(inner)
        e = e + self.grow(g)

        soft, counted = self.score(g).movedim(-1, 1).chunk(2, 1)
        query, key, value = self._heads(self.query_key_value(source).unsqueeze(2))
        v_query, v_key, v_value = self._heads(self.vector_qkv(directed))
        weigh = torch.cat([query / math.sqrt(query.shape[-1]), v_query / math.sqrt(v_query.shape[-1])], -1)
        logits = weigh @ torch.cat([key, v_key], -1).transpose(-1, -2) + soft
        attention = logits.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
        counted = torch.where(pairs[:, None], counted.sigmoid(), 0.0)

        seen = attention @ torch.cat([value, v_value], -1)
        scalars, turned = seen.split([value.shape[-1], v_value.shape[-1]], -1)
        pooled = (torch.cat([attention, counted], 1).movedim(1, 2) @ g).flatten(2)
        h = h + self.out(torch.cat([scalars.movedim(1, 2).flatten(2), pooled], -1))
        turned = turned.unflatten(-1, (3, -1)).permute(0, 2, 3, 1, 4).reshape(size, count, 3, self.vectors)
        rays = direction.transpose(-1, -2) @ torch.where(pairs[..., None], self.radiate(g), 0.0)
        V = V + self.vector_out(turned) + rays
        return h, V, e

    def _heads(self, joined: Float[Tensor, "b n k c"]) -> tuple[Tensor, Tensor, Tensor]:
        """Splits query, key and value [b, n, k, 3 c] and deals their channels to the heads: [b, h, n, k c / h]."""
        parts = joined.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5).flatten(-2)
        return parts[0], parts[1], parts[2]


class Feed(nn.Module):
    """The part of a block in which an atom's scalars and vectors act on each other.

    Args:
        width: Of the nodes.
        vectors: Vector channels.
        told: Width of the time embedding.
    """

    def __init__(self, width: int, vectors: int, told: int) -> None:
        super().__init__()
        self.norm = Modulated(width, told)
        self.mix = nn.Linear(vectors, 2 * vectors, bias=False)
        self.inner = nn.Linear(width + vectors, 2 * width)
        self.outer = nn.Linear(2 * width, width + vectors)

    def forward(
        self, h: Float[Tensor, "b n w"], V: Float[Tensor, "b n 3 c"], time: Float[Tensor, "b e"]
    ) -> tuple[Tensor, Tensor]:
        """Updated h and V."""
        measured, scaled = self.mix(calm(V)).chunk(2, -1)
        length = (measured.square().sum(2) + CORE**2).sqrt()
        said = self.outer(F.silu(self.inner(torch.cat([self.norm(h, time), length], -1))))
        return h + said[..., : h.shape[-1]], V + scaled * said[..., None, h.shape[-1] :]


class Block(nn.Module):
    """One round: exchange, feed, move. Its output's first tensor is the invariant node state, which a `Tap` reads.

    Args:
        width: Of the nodes.
        vectors: Vector channels.
        pairs: Width of the pair states.
        heads: Attention heads.
        radial: Distance features.
        told: Width of the time embedding.
    """

    def __init__(self, width: int, vectors: int, pairs: int, heads: int, radial: int, told: int) -> None:
        super().__init__()
        self.radial = Radial(radial)
        self.exchange = Exchange(width, vectors, pairs, heads, radial, told)
        self.feed = Feed(width, vectors, told)
        self.move = nn.Linear(vectors, 1, bias=False)
        nn.init.normal_(self.move.weight, std=0.1 / math.sqrt(vectors))

    def forward(
        self,
        h: Float[Tensor, "b n w"],
        V: Float[Tensor, "b n 3 c"],
        e: Float[Tensor, "b n n p"],
        x: Float[Tensor, "b n 3"],
        mask: Bool[Tensor, "b n"],
        pairs: Bool[Tensor, "b n n"],
        time: Float[Tensor, "b e"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Updated h, V and e, and the velocity [b, n, 3] that this block adds."""
        distance, direction = between(x)
        h, V, e = self.exchange(h, V, e, self.radial(distance), direction, mask, pairs, time)
        h, V = self.feed(h, V, time)
        return h, V, e, self.move(calm(V)).squeeze(-1)
