"""The Frechet distance of two sets of features, through their Gaussians.

    FD = |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)                         (arXiv 1706.08500)

With S_i = A_i A_i', A_i = V_i diag(l_i)^(1/2) from the symmetric eigenvectors of S_i (eigenvalues that are rounding
left out), S_1 S_2 has the non-zero eigenvalues of M M' with M = A_1' A_2, so that

    tr (S_1 S_2)^(1/2) = sum of the singular values of M.

No square root of a product that need not be symmetric is taken; covariances of low rank are no special case. S is
unbiased (n - 1). FD itself is biased: with fewer pictures it is larger, by about c / n. Only figures of equal n
compare, and n pictures give a covariance of rank n - 1 at most.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor

BLOCK = 256  # rows that are summed at once


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of features, float64.

    Attributes:
        mean: Of each feature.
        covariance: Unbiased.
        count: Number of rows; None where it was not recorded.
    """

    mean: Float[Tensor, "d"]
    covariance: Float[Tensor, "d d"]
    count: int | None = None

    def to(self, device: Any) -> "Gaussian":
        """The same elsewhere."""
        return Gaussian(self.mean.to(device), self.covariance.to(device), self.count)


class GaussianStream:
    """Sums rows as they come. The result does not depend, to the last bit, on how they were cut into batches.

    Rows are gathered into blocks of one size; mean and scatter of the blocks are joined pairwise in order (Chan, Golub
    and LeVeque, 1979), so that nothing is lost to a large mean.
    """

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._rows = 0
        self._sum: tuple[int, Tensor, Tensor] | None = None

    def add(self, features: Float[Tensor, "b d"]) -> None:
        """Adds a batch of rows, of any floating type.

        Raises:
            InputError: If a value is not finite, or the width is another one.
        """
        rows = features.double()
        if not bool(torch.isfinite(rows).all()):
            raise InputError("a feature is not finite; look at the pictures, or at the weights of the encoder")
        width = self._width
        if width is not None and rows.shape[1] != width:
            raise InputError(
                f"features of width {rows.shape[1]} after such of width {width}; give those of one encoder"
            )
        self._waiting.append(rows)
        self._rows += len(rows)
        if self._rows >= BLOCK:
            together = torch.cat(self._waiting)
            whole = self._rows - self._rows % BLOCK
            for block in together[:whole].split(BLOCK):
                self._sum = _joined(self._sum, block)
            self._waiting, self._rows = [together[whole:].clone()], self._rows - whole

    def finish(self) -> Gaussian:
        """The Gaussian of all rows so far; more may be added after it.

        Raises:
            InputError: If there are fewer than two rows.
        """
        total = self._sum
        if self._rows:
            total = _joined(total, torch.cat(self._waiting))
        if total is None or total[0] < 2:
            raise InputError(f"{0 if total is None else total[0]} pictures; a covariance needs two or more")
        count, mean, scatter = total
        return Gaussian(mean, scatter / (count - 1), count)

    @property
    def _width(self) -> int | None:
        return self._waiting[0].shape[1] if self._waiting else None


def gaussian(features: Float[Tensor, "n d"]) -> Gaussian:
    """Mean and covariance of some features.

    Raises:
        InputError: If there are fewer than two rows, or a value is not finite.
    """
    stream = GaussianStream()
    stream.add(features)
    return stream.finish()


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The Frechet distance of two Gaussians (their squared 2-Wasserstein distance); 0 or more.

    Raises:
        InputError: If their widths differ, or a value is not finite.
    """
    if one.mean.shape != other.mean.shape:
        raise InputError(
            f"statistics of {len(one.mean)} and of {len(other.mean)} features; they are of different encoders"
        )
    roots = [_root(gaussian.covariance) for gaussian in (one, other)]
    shift = (one.mean.double() - other.mean.double()).square().sum()
    spread = one.covariance.double().trace() + other.covariance.double().trace()
    product = roots[0].T @ roots[1]
    shared = torch.linalg.svdvals(product).sum() if product.numel() else torch.zeros_like(shift)
    found = float(shift + spread - 2.0 * shared)
    if found != found:
        raise InputError("statistics that are not finite; compute them again")
    return max(found, 0.0)


def _root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d r"]:
    """A with S = A A'; eigenvalues below the rounding of the largest are no part of it."""
    values, vectors = torch.linalg.eigh(covariance.double())
    real = values > len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    return vectors[:, real] * values[real].sqrt()


def _joined(total: tuple[int, Tensor, Tensor] | None, block: Float[Tensor, "b d"]) -> tuple[int, Tensor, Tensor]:
    """Count, mean and scatter of all rows, those of a further block among them."""
    count, mean = len(block), block.mean(0)
    centred = block - mean
    scatter = centred.T @ centred
    if total is None:
        return count, mean, scatter
    old_count, old_mean, old_scatter = total
    n, apart = old_count + count, mean - old_mean
    between = torch.outer(apart, apart) * (old_count * count / n)
    return n, old_mean + apart * (count / n), old_scatter + scatter + between
