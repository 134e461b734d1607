"""How one row of z is stored, and what it is when read again.

float32, float16   the value itself.
int8               q = round(z / s) with one scale s = max_i |z_i| / 127 per row (token, edge or pooled vector);
                   read as s q. Error per entry: at most s / 2.
pca-k              y = C (z - m) in float16, where the k rows of C are the leading eigenvectors of the covariance of a
                   sample of rows and m is their mean (`reed_core.representation.basis`); read as m + C^T y.

Every format gives back z in the encoder's own width: a format is a matter of the disk, and neither the head nor the
recipe nor the weights of a run depend on it. Rows of pca-k are k numbers until they are gathered, so whoever wants a z
of k dimensions finds it in `Cache.item`. float16 is read as float16; all others as float32.
"""

import re
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from reed_core.errors import InputError
from reed_core.representation.basis import Basis

_FLOATS = {"float16": torch.float16, "float32": torch.float32}
_LEVELS = 127


class Packed(NamedTuple):
    """Rows as they are stored.

    Attributes:
        values: The numbers.
        scale: One per row, for int8.
    """

    values: Shaped[Tensor, "... w"]
    scale: Float32[Tensor, "..."] | None = None


def components(form: str, dim: int) -> int:
    """The k of pca-k; 0 for the other formats.

    Args:
        form: "float16", "float32", "int8" or "pca-k" with a number for k.
        dim: Width of z.

    Raises:
        InputError: If there is no such format, or k is not between 1 and the width.
    """
    if form in _FLOATS or form == "int8":
        return 0
    found = re.fullmatch(r"pca-([1-9][0-9]{0,5})", form)
    if found is None:
        raise InputError(f"no format '{form}' of a cache; choose float16, float32, int8 or pca-k, as pca-64")
    if int(found[1]) > dim:
        raise InputError(f"format {form} keeps more components than z is wide ({dim}); choose fewer, or float16")
    return int(found[1])


SHARD_HEADER = 1500
"""Bytes of a shard, about, that are neither rows nor offsets."""


def row_bytes(form: str, dim: int) -> int:
    """Bytes of one row on disk: its numbers, its scale, and whether it is known."""
    k = components(form, dim)
    width = {"float32": 4 * dim, "float16": 2 * dim, "int8": dim + 4}
    return 1 + (2 * k if k else width[form])


def pack(form: str, z: Float[Tensor, "... d"], basis: Basis | None) -> Packed:
    """What is stored of z.

    Args:
        form: The format.
        z: Rows in float32, 0 where unknown.
        basis: Of pca-k.
    """
    if form in _FLOATS:
        return Packed(z.to(_FLOATS[form]))
    if form == "int8":
        scale = z.float().abs().amax(-1) / _LEVELS
        steps = torch.where(scale > 0, scale, 1.0)[..., None]
        return Packed((z / steps).round().clamp(-_LEVELS, _LEVELS).to(torch.int8), scale)
    assert basis is not None
    return Packed(((z.float() - basis.mean) @ basis.components.T).half())


def unpack(
    form: str, packed: Packed, basis: Basis | None, out: Float32[Tensor, "... d"] | None = None
) -> Float[Tensor, "... d"]:
    """Makes z again; of pca-k, an unknown row is the mean, so mask it.

    Args:
        form: The format.
        packed: What was stored.
        basis: Of pca-k.
        out: Where int8 and pca-k are decoded to, contiguous; None makes a new tensor.
    """
    if form in _FLOATS:
        return packed.values
    if form == "int8":
        assert packed.scale is not None
        made = torch.empty(packed.values.shape) if out is None else out
        for one, values, scale in zip(made, packed.values, packed.scale, strict=True):  # an item stays in the cache
            one.copy_(values).mul_(scale[..., None])
        return made
    assert basis is not None
    flat = packed.values.float().flatten(0, -2)
    target = None if out is None else out.flatten(0, -2)
    return torch.addmm(basis.mean, flat, basis.components, out=target).unflatten(0, packed.values.shape[:-1])
