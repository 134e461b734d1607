"""The kernel distance: an unbiased estimate of the squared maximum mean discrepancy (arXiv 1801.01401).

    k(x, y) = (x'y / d + 1)^3
    MMD^2   = mean of k over pairs of different x + the same over y - 2 mean of k over all x, y

It is the mean over random subsets of equal size, drawn without repetition. Its expectation does not depend on the
number of pictures, other than that of the Frechet distance, and may fall below 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor

SUBSETS, SUBSET = 100, 1000


@dataclass(frozen=True)
class KernelDistance:
    """What was found.

    Attributes:
        mean: Over subsets.
        deviation: Standard deviation between subsets: of one of them, not of the mean.
        size: Pictures of a subset, of each side.
    """

    mean: float
    deviation: float
    size: int


def kernel_distance(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m e"],
    subsets: int = SUBSETS,
    size: int | None = None,
    seed: int = 0,
) -> KernelDistance:
    """The kernel distance of two sets of features.

    Args:
        real: Features of real pictures.
        fake: Features of drawn ones.
        subsets: How many subsets.
        size: Pictures of a subset; None takes 1000, or half of the smaller set where that is less.
        seed: Seeds the choice of the subsets.

    Raises:
        InputError: If there are too few pictures, or a number is out of range.
    """
    least = min(len(real), len(fake))
    size = max(2, min(SUBSET, least // 2)) if size is None else size
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"features of width {real.shape[1]} and {fake.shape[1]}; give those of one encoder")
    if not 2 <= size <= least or subsets < 1:
        raise InputError(
            f"{subsets} subsets of {size} from {len(real)} and {len(fake)} pictures; a subset needs two or more, and "
            "no more than there are"
        )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        rows = [torch.randperm(len(side), generator=generator)[:size].to(side.device) for side in (real, fake)]
        found.append(squared_mmd(real[rows[0]], fake[rows[1]]))
    values = torch.tensor(found, dtype=torch.float64)
    return KernelDistance(float(values.mean()), float(values.std(correction=0)), size)


def squared_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """The unbiased estimate from all rows, float64; memory grows with n * m."""
    x, y = x.double(), y.double()
    return float(_within(x) + _within(y) - 2.0 * _kernel(x, y).mean())


def _within(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.diagonal().sum()) / (len(x) * (len(x) - 1))


def _kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1.0) ** 3
