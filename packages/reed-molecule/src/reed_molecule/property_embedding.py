"""How the network reads properties of whole molecules: one vector, added to that of the time, which every block reads.

    told = sum_p [y_p known ? W_2 silu(W_1 f(y_p)) : u_p],   f(y) = (y, exp(-(y - c_k)^2 / 2 h^2))
y_p is standardised, the centres c_k spread h apart over [-3, 3], and u_p is the learned vector of an unknown value.
W_2 and u_p start at 0: the network starts as the one that is told nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

CENTRES = 16
REACH = 3.0


class PropertyEmbedding(nn.Module):
    """The embedding of some properties.

    Args:
        count: Number of properties, at least 1.
        width: Width of the vector.
    """

    centres: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-REACH, REACH, CENTRES), persistent=False)
        self.unknown = nn.Parameter(torch.zeros(count, width))
        self.values = nn.ModuleList(
            nn.Sequential(nn.Linear(1 + CENTRES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(count)
        )
        for value in self.values:
            last = value[2]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, properties: Float[Tensor, "b p"] | None, like: Float[Tensor, "b w"]) -> Float[Tensor, "b w"]:
        """The vector of each molecule.

        Args:
            properties: Standardised values, NaN where unknown; None when all are.
            like: A vector of each molecule, for number, dtype and device.
        """
        count = len(self.values)
        if properties is None:
            properties = torch.full((len(like), count), torch.nan, dtype=like.dtype, device=like.device)
        known = ~properties.isnan()
        y = torch.where(known, properties, 0.0).to(like)
        width = 2 * REACH / (CENTRES - 1)
        features = torch.cat([y[..., None], torch.exp(-0.5 * ((y[..., None] - self.centres) / width).square())], -1)
        told = torch.zeros_like(like)
        for column, value in enumerate(self.values):
            told = told + torch.where(known[:, column, None], value(features[:, column]), self.unknown[column])
        return told
