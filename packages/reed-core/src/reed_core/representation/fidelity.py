"""What a format loses: stored rows against the float32 output of the encoder, taken while it is at hand.

For rows z and what is read again, z', over all known rows of the data:

    mean cosine      mean of z . z' / (|z| |z'|)
    worst cosine     the least of them
    relative error   sqrt(sum |z - z'|^2 / sum |z|^2)

Each shard carries its own sums, so the figures of a cache follow from its files alone, whoever wrote them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from pydantic import BaseModel, ConfigDict
from torch import Tensor

Sums = Float64[Tensor, "5"]  # rows, sum of cosines, sum |z - z'|^2, sum |z|^2, least cosine


class Fidelity(BaseModel):
    """How near stored values are to the encoder's.

    Attributes:
        rows: Known rows, all of which were compared.
        cosine: Their mean cosine.
        worst_cosine: The least cosine of a row.
        relative_error: Root of the summed squared errors over the summed squared norms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    cosine: float
    worst_cosine: float
    relative_error: float

    def __str__(self) -> str:
        return f"mean cosine {self.cosine:.6f}, worst {self.worst_cosine:.6f}, relative error {self.relative_error:.2e}"


def sums_of(z: Float[Tensor, "n d"], again: Float[Tensor, "n d"]) -> Float64[Tensor, "5"]:
    """The sums over some rows; a row of zeros that comes back as zeros has cosine 1."""
    wide, other = z.double(), again.double()
    square, norms = (wide * wide).sum(1), wide.norm(dim=1) * other.norm(dim=1)
    same = (square == 0) & (other == 0).all(1)
    cosine = torch.where(same, 1.0, (wide * other).sum(1) / torch.where(norms > 0, norms, 1.0))
    least = cosine.min() if len(z) else cosine.new_tensor(1.0)
    error = (wide - other).square().sum()
    return torch.stack([cosine.new_tensor(float(len(z))), cosine.sum(), error, square.sum(), least])


def merged(parts: Sequence[Float64[Tensor, "5"]]) -> Float64[Tensor, "5"]:
    """The sums over all parts."""
    table = torch.stack(list(parts))
    return torch.cat([table[:, :4].sum(0), table[:, 4].amin(0, keepdim=True)])


def fidelity_of(sums: Float64[Tensor, "5"]) -> Fidelity:
    """The figures."""
    rows, cosine, error, square, least = sums.tolist()
    return Fidelity(
        rows=int(rows),
        cosine=min(1.0, cosine / rows) if rows else 1.0,
        worst_cosine=min(1.0, least),
        relative_error=(error / square) ** 0.5 if square else 0.0,
    )
