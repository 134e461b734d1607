"""`check_encoder`: is an encoder a fixed function of each sample, as a cache of its values takes for granted?"""

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from reed_core.latent import Representation
from reed_core.representation.encoder import Encoder
from reed_core.testing.measure import require, require_same, spoiled
from reed_core.train.data import Batch


@runtime_checkable
class Items(Protocol):
    """Data to encode, as `build_cache` takes it."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def batch(self, items: Sequence[int]) -> Batch:
        """Items, padded to the longest of them, without augmentation."""
        ...


def check_encoder(encoder: Encoder, items: Items, which: Sequence[int] = (0, 1, 2, 3), *, most: float = 1e-4) -> None:
    """Checks an encoder on a few items.

    Args:
        encoder: The encoder.
        items: Data; items of different size show what padding does.
        which: Numbers of the items that are encoded, at least two.
        most: Largest difference, relative to 1 + |z|, that counts as none (batched matrix products differ a little).

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    require(len(which) >= 2, "check_encoder needs items", f"{len(which)}", "at least 2")
    batch = items.batch(which)
    found = encoder(batch.x_0, batch.c, batch.mask)
    _check_form(encoder, batch, found)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        again = encoder(batch.x_0, batch.c, batch.mask)
    _require_same_value(again, found, "the same batch encoded twice", "the same z", 0.0)
    if batch.mask is not None:
        for junk in (7.0, -30.0):
            other = encoder(spoiled(batch.x_0, batch.mask, junk), batch.c, batch.mask)
            _require_same_value(other, found, "encoded with junk in the padding of x_0", "the same z", most, batch.mask)
    turned = items.batch(list(which)[::-1])
    back = encoder(turned.x_0, turned.c, turned.mask)
    for place, item in enumerate(which):
        single = items.batch([item])
        alone = encoder(single.x_0, single.c, single.mask)
        for other, row, title in ((found, place, "in a batch"), (back, len(which) - 1 - place, "in another batch")):
            what = f"z of item {item} alone and {title}"
            _require_same_value(alone, _cut(other, row, alone), what, "no difference", most, single.mask)
    _check_fingerprint(encoder)


def _check_form(encoder: Encoder, batch: Batch, found: Representation) -> None:
    require(encoder.level in ("token", "pair", "global"), "level", encoder.level, "token, pair or global")
    require(isinstance(encoder.name, str) and encoder.name != "", "name", repr(encoder.name), "a short name")
    z, level = found.z, encoder.level
    rank = {"global": 2, "token": 3, "pair": 4}[level] - (not z.is_floating_point())
    require(z.ndim == rank, f"axes of z of level {level}", z.ndim, str(rank))
    require(z.shape[0] == batch.x_0.shape[0], "samples in z", z.shape[0], str(batch.x_0.shape[0]))
    if z.is_floating_point():
        require(z.shape[-1] == encoder.dim, "width of z", z.shape[-1], f"dim = {encoder.dim}")
    if level != "global":
        length = batch.x_0.shape[1]
        require(z.shape[1] == length, f"elements of z of level {level}", z.shape[1], f"those of x_0, {length}")
    require(not z.requires_grad, "z, its gradient", "one that is tracked", "none: an encoder is frozen")
    lead = z.shape[:-1] if z.is_floating_point() else z.shape
    if found.mask is not None:
        require(found.mask.shape == lead, "mask of z, shape", tuple(found.mask.shape), str(tuple(lead)))
        if batch.mask is not None and level != "global":
            outside = found.mask & ~batch.mask.reshape(*batch.mask.shape, *([1] * (found.mask.ndim - 2)))
            require(not bool(outside.any()), "mask of z", f"{int(outside.sum())} padded elements known", "none")
    known = _known(found, batch.mask)
    values = z if known is None else z[known]
    require(bool(values.isfinite().all()), "z where it is known", "a number that is not finite", "finite numbers")


def _known(value: Representation, mask: Tensor | None) -> Tensor | None:
    """Where z is known: its own mask, or where x exists."""
    if value.mask is not None or mask is None:
        return value.mask
    per_element = value.z.ndim > 2 or (not value.z.is_floating_point() and value.z.ndim > 1)
    return mask if per_element else None


def _cut(value: Representation, row: int, like: Representation) -> Representation:
    """One sample of a batch, with as many elements as it has alone."""
    z = value.z[row : row + 1]
    mask = None if value.mask is None else value.mask[row : row + 1]
    for axis in range(1, like.z.ndim):
        if z.shape[axis] > like.z.shape[axis]:
            z = z.narrow(axis, 0, like.z.shape[axis])
            mask = None if mask is None or axis >= mask.ndim else mask.narrow(axis, 0, like.z.shape[axis])
    return Representation(z, mask)


def _require_same_value(
    one: Representation, other: Representation, what: str, expected: str, most: float, mask: Tensor | None = None
) -> None:
    known, known_other = _known(one, mask), _known(other, mask)
    if known is not None and known_other is not None:
        require(torch.equal(known, known_other), f"{what}, where z is known", "another mask", expected)
    require_same(one.z, other.z, what, expected, known, most)


def _check_fingerprint(encoder: Encoder) -> None:
    print_now = encoder.fingerprint
    require(
        isinstance(print_now, str) and print_now != "", "fingerprint", repr(print_now), "a string that is not empty"
    )
    require(encoder.fingerprint == print_now, "fingerprint asked twice", "another string", "the same string")
    module = encoder if isinstance(encoder, nn.Module) else getattr(encoder, "module", None)
    if not isinstance(module, nn.Module):
        return
    twin = copy.deepcopy(encoder)
    require(twin.fingerprint == print_now, "fingerprint of a copy", "another string", "the same string")
    inner = twin if isinstance(twin, nn.Module) else twin.module  # type: ignore[attr-defined]
    with torch.no_grad():
        for name, value in inner.state_dict().items():
            if value.numel() and value.is_floating_point():
                kept = value.clone()
                value.view(-1)[-1] += 1.0
                require(twin.fingerprint != print_now, f"fingerprint after a change of {name}", "the same", "another")
                value.copy_(kept)
