"""What becomes vectors before the first block: time, class, text, place.

    time    f(t) = [cos(w_k t), sin(w_k t)],  w_k = 10000^(-k / 128), k = 0 ... 127;   a two-layer MLP of it
    place   [sin(o_k j), cos(o_k j), sin(o_k i), cos(o_k i)] of column j and row i,  o_k = 10000^(-4 k / d)
The time is not scaled: t in [0, 1], as in SiT (arXiv 2401.08740). Places are fixed and no parameters.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

FREQUENCIES = 256
"""Numbers that describe a time."""


def time_frequencies(dtype: torch.dtype, device: torch.device | None = None) -> Float[Tensor, "k"]:
    """The 128 angular frequencies w_k, from 1 down to nearly 1 / 10000."""
    half = FREQUENCIES // 2
    return torch.exp(-math.log(10000.0) / half * torch.arange(half, dtype=dtype, device=device))


def place_table(width: int, grid: int) -> Float[Tensor, "n d"]:
    """The fixed positions of a square grid, row by row, in the default dtype.

    Args:
        width: d, a multiple of 4.
        grid: Patches along one side.
    """
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(*2 * [torch.arange(grid, dtype=torch.float64)], indexing="ij")
    angles = [place.reshape(-1, 1) * rates for place in (column, row)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], -1)
    return table.to(torch.get_default_dtype())


class TimeEmbedding(nn.Module):
    """An MLP of sines and cosines of t.

    Args:
        width: Width of the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(FREQUENCIES, width)
        self.outer = nn.Linear(width, width)
        for linear in (self.inner, self.outer):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b d"]:
        """Embeds times; the angles are computed in float32 or wider."""
        wide = t.to(torch.promote_types(t.dtype, torch.float32))
        angles = wide[:, None] * time_frequencies(wide.dtype, wide.device)
        features = torch.cat([angles.cos(), angles.sin()], -1).to(self.inner.weight.dtype)
        return self.outer(nn.functional.silu(self.inner(features)))


class LabelEmbedding(nn.Module):
    """A vector per class, and one for no class.

    Args:
        classes: Number of classes; the row after them is the null class.
        width: Width of the result.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, label: Int[Tensor, "b"] | None, count: int) -> Float[Tensor, "b d"]:
        """Embeds class numbers; -1, or None for all of `count` samples, is the null class."""
        if label is None:
            return self.table.weight[self.classes].expand(count, -1)
        return self.table(torch.where(label < 0, self.classes, label))


class TextEmbedding(nn.Module):
    """Text tokens as keys of cross-attention, after a null token that every sample has.

    A sample without text sees the null token alone, so that attention always has something to read.

    Args:
        dim: Width of the tokens.
        width: Width of the result.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, width)
        self.null = nn.Parameter(torch.empty(width))
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.null, std=0.02)

    def forward(
        self, text: Float[Tensor, "b m k"] | None, mask: Bool[Tensor, "b m"] | None, count: int
    ) -> tuple[Float[Tensor, "b m_1 d"], Bool[Tensor, "b m_1"]]:
        """The tokens of `count` samples and which of them exist. Padding is never read, whatever it holds."""
        null = self.null.expand(count, 1, -1)
        here = torch.ones(count, 1, dtype=torch.bool, device=null.device)
        if text is None:
            return null, here
        exists = here.expand(-1, text.shape[1]) if mask is None else mask
        clean = torch.where(exists[..., None], text, 0.0).to(self.linear.weight.dtype)
        tokens = self.linear(self.norm(clean))
        return torch.cat([null.to(tokens), tokens], 1), torch.cat([here, exists], 1)
