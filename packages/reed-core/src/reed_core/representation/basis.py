"""The basis of the format pca-k: principal components of a sample of rows, fitted once and kept beside the shards.

With rows z_1 .. z_N of the sample, m = mean z and S = mean (z - m)(z - m)^T, the rows of C are the k eigenvectors of S
with the largest eigenvalues: of all orthonormal sets of k, C leaves the least mean square of z - m - C^T C (z - m).
Sums are taken in float64, batch by batch, so memory is that of one d x d matrix.

Several workers may fit at once; the first to put the file in its place wins, and all read that one. Every shard names
the file by its hash, so values under two bases can never stand in one cache.
"""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from safetensors.torch import save_file
from torch import Tensor

from reed_core.errors import InputError
from reed_core.files import written_aside

BASIS = "basis.safetensors"


class Basis(NamedTuple):
    """The plane that rows are projected on.

    Attributes:
        mean: m, [d].
        components: C, [k, d], orthonormal.
    """

    mean: Float32[Tensor, "d"]
    components: Float32[Tensor, "k d"]


def fit_basis(rows: Iterable[Float[Tensor, "_ d"]], dim: int, k: int) -> Basis:
    """Fits a basis.

    Args:
        rows: The sample, in batches.
        dim: d.
        k: Number of components.

    Raises:
        InputError: If the sample has no more than k rows.
    """
    count, total, square = 0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    for batch in rows:
        wide = batch.double()
        count, total = count + len(wide), total + wide.sum(0)
        square.addmm_(wide.T, wide)
    if count <= k:
        raise InputError(
            f"{count} rows of the sample do not determine {k} principal components; choose fewer, or another format"
        )
    mean = total / count
    _, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    leading = vectors[:, -k:].flip(1).T
    signs = leading.gather(1, leading.abs().argmax(1, keepdim=True)).sign()  # eigenvectors have no sign of their own
    return Basis(mean.float(), (leading * signs).float().contiguous())


def write_basis(path: Path, basis: Basis, header: str) -> None:
    """Puts a basis in its place, unless there is one.

    Args:
        path: The file.
        basis: The basis.
        header: What it is of, as text.
    """
    own = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.part{path.suffix}")
    try:
        with written_aside(own) as aside:
            save_file({"mean": basis.mean, "components": basis.components}, aside, {"reed": header})
        try:
            os.link(own, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links: the last to arrive wins, and shards of the others are refused
            own.replace(path)
    finally:
        own.unlink(missing_ok=True)
