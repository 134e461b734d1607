"""Precision, recall, density and coverage: balls around the features of one set, and who lies in them.

r_k(x) is the distance from x to its k-th nearest neighbour in its own set (x itself is not one).

    precision   share of drawn pictures y with |y - x| <= r_k(x) for a real x   (arXiv 1904.06991)
    recall      share of real pictures x with |x - y| <= r_k(y) for a drawn y;  k = 3
    density     1 / (k m) * number of pairs (x, y) with |y - x| < r_k(x)        (arXiv 2002.09797)
    coverage    share of real x with |y - x| < r_k(x) for a drawn y;  k = 5

Balls are closed for the first two and open for the others, as each paper's authors compute them: a set compared with
itself has all four at 1. Density may exceed 1. Squared distances are |x|^2 + |y|^2 - 2 x'y of centred features in
float64, and those below rounding are 0; blocks of rows bound the memory, whatever the number of pictures.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor

NEIGHBOURS_PR, NEIGHBOURS_DC = 3, 5
_ENTRIES = 1 << 23  # distances held at once
_ROUNDING = 1e-12  # of |x|^2 + |y|^2: what is below it is no distance
_TIE = 1e-10  # relative: squared distances nearer than this are equal


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares between 0 and 1."""

    precision: float
    recall: float


@dataclass(frozen=True)
class DensityCoverage:
    """Density is 0 or more, coverage a share."""

    density: float
    coverage: float


def precision_recall(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m e"], k: int = NEIGHBOURS_PR, entries: int = _ENTRIES
) -> PrecisionRecall:
    """How much of what was drawn looks real, and how much of what is real can be drawn.

    Args:
        real: Features of real pictures.
        fake: Features of drawn ones.
        k: Which neighbour sets the radius.
        entries: Distances held in memory at once.

    Raises:
        InputError: If a set has no k-th neighbour, or widths differ.
    """
    x, y = _centred(real, fake, k)
    reach_x, reach_y = _radii(x, k, entries) * (1 + _TIE), _radii(y, k, entries) * (1 + _TIE)
    inside, found = y.new_zeros(len(y), dtype=torch.bool), []
    for rows, reach in zip(_blocks(x, len(y), entries), _blocks(reach_x, len(y), entries), strict=True):
        apart = _squared(rows, y)
        inside |= (apart <= reach[:, None]).any(0)
        found.append((apart <= reach_y).any(1))
    return PrecisionRecall(float(inside.double().mean()), float(torch.cat(found).double().mean()))


def density_coverage(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m e"], k: int = NEIGHBOURS_DC, entries: int = _ENTRIES
) -> DensityCoverage:
    """As precision and recall, less moved by outliers: only balls around real pictures count.

    Args:
        real: Features of real pictures.
        fake: Features of drawn ones.
        k: Which neighbour sets the radius.
        entries: Distances held in memory at once.

    Raises:
        InputError: If the real pictures have no k-th neighbour, or widths differ.
    """
    x, y = _centred(real, fake, k, both=False)
    pairs, covered = 0, []
    reach_x = _radii(x, k, entries) * (1 - _TIE)
    for rows, reach in zip(_blocks(x, len(y), entries), _blocks(reach_x, len(y), entries), strict=True):
        within = _squared(rows, y) < reach[:, None]
        pairs += int(within.sum())
        covered.append(within.any(1))
    return DensityCoverage(pairs / (k * len(y)), float(torch.cat(covered).double().mean()))


def _radii(x: Float[Tensor, "n d"], k: int, entries: int) -> Float[Tensor, "n"]:
    """Squared distance from each row to its k-th nearest neighbour."""
    found, start = [], 0
    for rows in _blocks(x, len(x), entries):
        apart = _squared(rows, x)
        own = torch.arange(len(rows), device=x.device)
        apart[own, start + own] = torch.inf
        found.append(apart.kthvalue(k, dim=1).values)
        start += len(rows)
    return torch.cat(found)


def _squared(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Squared distances; exactly 0 where they are rounding alone."""
    size = x.square().sum(1)[:, None] + y.square().sum(1)
    apart = torch.addmm(size, x, y.T, alpha=-2.0)
    return torch.where(apart > _ROUNDING * size, apart, 0.0)


def _blocks(x: Tensor, columns: int, entries: int) -> tuple[Tensor, ...]:
    return x.split(max(1, entries // max(1, columns)))


def _centred(real: Tensor, fake: Tensor, k: int, both: bool = True) -> tuple[Tensor, Tensor]:
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"features of width {real.shape[1]} and {fake.shape[1]}; give those of one encoder")
    least = min(len(real), len(fake)) if both else len(real)
    if k < 1 or least <= k or not len(fake):
        raise InputError(
            f"neighbour {k} of {len(real)} real and {len(fake)} drawn pictures; give more pictures than that, and "
            "one neighbour or more"
        )
    x, y = real.double(), fake.double()
    centre = x.mean(0)
    return x - centre, y - centre
