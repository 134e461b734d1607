"""Attention of patches among themselves, and of patches to text: softmax(q k^T / sqrt(h)) v per head of width h.

With rotary positions, pairs of channels of q and k are turned by the angles of a patch: half of the pairs by w_k times
its row, the other half by w_k times its column, w_k = 100^(-k / (h / 4)). So q . k depends on the difference of two
places alone (arXiv 2104.09864; in two dimensions arXiv 2403.13298).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

ROPE_BASE = 100.0


def rope_table(head: int, grid: int) -> Float[Tensor, "2 n pairs"]:
    """Cosines and sines of the angles of the channel pairs of a head, patch by patch, in the default dtype.

    Args:
        head: Width of a head, a multiple of 4.
        grid: Patches along one side.
    """
    rates = ROPE_BASE ** (-torch.arange(head // 4, dtype=torch.float64) / (head // 4))
    row, column = torch.meshgrid(*2 * [torch.arange(grid, dtype=torch.float64)], indexing="ij")
    angles = torch.cat([row.reshape(-1, 1) * rates, column.reshape(-1, 1) * rates], -1)
    return torch.stack([angles.cos(), angles.sin()]).to(torch.get_default_dtype())


def rotate(x: Float[Tensor, "b h n e"], table: Float[Tensor, "2 n pairs"]) -> Float[Tensor, "b h n e"]:
    """Turns channel k of the first half of a head and channel k of the second half by angle k."""
    cosine, sine = table.to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class SelfAttention(nn.Module):
    """Attention among patches.

    Args:
        width: Width of states.
        heads: Number of heads.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], rope: Float[Tensor, "2 n pairs"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Attends."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TextAttention(nn.Module):
    """Attention of patches to text; its last layer starts at zero, so that it changes nothing at first.

    Args:
        width: Width of states and of text tokens.
        heads: Number of heads.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.query_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], text: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b n d"]:
        """Attends to the text tokens where the mask is True; at least one per sample."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(text).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.out(read.transpose(1, 2).flatten(2))
