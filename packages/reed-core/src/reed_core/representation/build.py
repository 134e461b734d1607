"""Writing a cache: every shard is a function of (encoder, data, range of items) alone.

So shards can be written in any order, by different processes; an interrupted build keeps those that are whole and ends
with the same bytes. Only the manifest, written last, makes the folder a cache; it follows from the shards alone, so
whoever finds them whole may write it, and twice is the same as once.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from safetensors.torch import save_file
from torch import Tensor

from reed_core.errors import InputError
from reed_core.files import sha256, write_text, write_with
from reed_core.representation.basis import BASIS, Basis, fit_basis, write_basis
from reed_core.representation.cache import Cache
from reed_core.representation.encoder import Encoder, checked
from reed_core.representation.fidelity import fidelity_of, merged, sums_of
from reed_core.representation.format import components, pack, unpack
from reed_core.representation.shard import (
    LAYOUT,
    MANIFEST,
    Content,
    Manifest,
    Shard,
    check_same,
    content_of,
    map_shard,
)
from reed_core.train.data import Batch

SAMPLE_ITEMS = {"token": 512, "pair": 128, "global": 16384}  # items that a basis is fitted on, at most
_LEFT_SECONDS = 3600.0


@runtime_checkable
class Items(Protocol):
    """What is encoded: numbered items, without augmentation. `fingerprint` changes whenever an item does."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def batch(self, items: Sequence[int]) -> Batch:
        """The clean data, condition and mask of some items."""
        ...


class _Rows(NamedTuple):
    """The rows of one item, ready to be stored."""

    values: Tensor
    scale: Tensor | None
    known: Tensor
    errors: Float64[Tensor, "5"]


@runtime_checkable
class PartProgress(Protocol):
    """Told how far the writing of a part has come."""

    def __call__(self, *, completed: int, total: int) -> Any:
        """Called after each shard."""
        ...


class CacheBuilder:
    """Writes a cache: `write` every shard, in any order and from any process, then `seal`.

    Args:
        folder: Where to; created.
        encoder: The encoder.
        data: The items.
        format: "float16", "float32", "int8" or "pca-k" (`reed_core.representation.format`).
        shard_items: Items per shard.
        batch_items: Items encoded at once.
    """

    def __init__(
        self,
        folder: Path | str,
        encoder: Encoder,
        data: Items,
        *,
        format: str = "float16",
        shard_items: int = 4096,
        batch_items: int = 64,
    ) -> None:
        if min(len(data), shard_items, batch_items) < 1:
            raise InputError(
                f"a cache needs at least one item, in shards and batches of at least one; got {len(data)} items, "
                f"shard_items {shard_items}, batch_items {batch_items}"
            )
        self.folder, self.encoder, self.data, self.batch_items = Path(folder), encoder, data, batch_items
        self.rank = components(format, encoder.dim)
        self.content = Content(
            layout=LAYOUT,
            encoder=encoder.name,
            encoder_fingerprint=encoder.fingerprint,
            data_fingerprint=data.fingerprint,
            level=encoder.level,
            dim=encoder.dim,
            format=format,
            items=len(data),
            shard_items=shard_items,
        )
        self.basis: Basis | None = None

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.content.items // self.content.shard_items)

    @property
    def missing(self) -> tuple[int, ...]:
        """The shards that are not there, or not whole; when there is none, the cache can be sealed."""
        return tuple(index for index in range(self.shards) if content_of(self._path(index)) is None)

    @property
    def settled(self) -> bool:
        """Whether a basis of pca-k is in the folder."""
        return content_of(self.folder / BASIS) is not None

    def items_of(self, index: int) -> range:
        """The items of a shard."""
        size = self.content.shard_items
        return range(index * size, min((index + 1) * size, self.content.items))

    def write(self, index: int) -> None:
        """Writes one shard, unless it is there and whole; the first call settles the basis of pca-k.

        Raises:
            InputError: If the place is taken by a shard of another cache, or the encoder's values cannot be stored.
        """
        path = self._path(index)
        held = content_of(path)
        if held is not None:  # a folder of something else gets no basis of ours
            check_same(path, held.model_copy(update={"basis": ""}), self.content.model_copy(update={"basis": ""}))
        self._settle(fit=True)
        if held is not None:
            check_same(path, held, self.content)
            return
        owned = self.items_of(index)
        stored = [rows for start in owned[:: self.batch_items] for rows in self._rows(start, owned.stop)]
        lengths = torch.tensor([0, *(len(rows.values) for rows in stored)])
        tensors = {
            "values": torch.cat([rows.values for rows in stored]),
            "known": torch.cat([rows.known for rows in stored]),
            "offsets": lengths.cumsum(0),
            "errors": merged([rows.errors for rows in stored]),
        }
        scales = [rows.scale for rows in stored if rows.scale is not None]
        if scales:
            tensors["scale"] = torch.cat(scales)
        header = {"reed": self.content.model_dump_json()}  # one key: safetensors keeps no order among several
        write_with(path, lambda aside: save_file(tensors, aside, header))

    def write_part(self, part: tuple[int, int] = (0, 1), progress: PartProgress | None = None) -> Cache | None:
        """Writes what is missing of a part of the shards; stopped at any moment, it goes on with the next shard.

        Args:
            part: (i, n): the i-th of n parts, i from 0, for n workers. The call that finds all shards there seals.
            progress: Called as progress(completed=, total=) with the shards looked after and their number.

        Returns:
            The cache; None if another worker still has shards to write.

        Raises:
            InputError: If an item cannot be encoded, or the folder holds another cache.
        """
        mine = range(part[0], self.shards, part[1])
        for done, index in enumerate(mine, start=1):
            self.write(index)
            if progress is not None:
                progress(completed=done, total=len(mine))
        if part[1] > 1 and self.missing:
            return None
        return Cache(self.folder, self.seal())

    def seal(self) -> Manifest:
        """Hashes all shards and writes the manifest, which makes the folder a cache.

        What writers that were killed left behind goes, once it is an hour old.

        Raises:
            InputError: If a shard is missing or not whole.
        """
        self._settle(fit=False)
        paths = [self._path(index) for index in range(self.shards)]
        found = [content_of(path) for path in paths]
        missing = [path.name for path, content in zip(paths, found, strict=True) if content is None]
        if missing:
            raise InputError(
                f"{self.folder} lacks {len(missing)} of {len(paths)} shards ({missing[0]}, ...); write them"
            )
        shards, sums = [], []
        for index, (path, content) in enumerate(zip(paths, found, strict=True)):
            assert content is not None
            check_same(path, content, self.content)
            owned, tensors = self.items_of(index), map_shard(path).tensors
            sums.append(tensors["errors"])
            shards.append(
                Shard(
                    file=path.name,
                    first=owned.start,
                    last=owned.stop,
                    rows=len(tensors["values"]),
                    bytes=path.stat().st_size,
                    sha256=sha256(path),
                )
            )
        manifest = Manifest(content=self.content, fidelity=fidelity_of(merged(sums)), shards=tuple(shards))
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        for left in self.folder.glob(".*.part*"):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                left.unlink(missing_ok=True)
        return manifest

    def _settle(self, fit: bool) -> None:
        """Finds the basis of pca-k, fitting it where there is none; from then on the content names it."""
        if not self.rank or self.basis is not None:
            return
        path = self.folder / BASIS
        held = content_of(path)
        if held is None and fit:
            basis = fit_basis(self._sample(), self.content.dim, self.rank)
            write_basis(path, basis, self.content.model_dump_json())
            held = content_of(path)
        if held is None:
            raise InputError(f"{path} is missing or damaged; remove {self.folder} and build the cache again")
        check_same(path, held, self.content)
        self.basis = Basis(**map_shard(path).tensors)
        self.content = self.content.model_copy(update={"basis": sha256(path)})

    def _sample(self) -> Iterator[Float[Tensor, "n d"]]:
        """Known rows of items spread evenly over the data."""
        count = min(self.content.items, SAMPLE_ITEMS[self.content.level])
        chosen = [place * self.content.items // count for place in range(count)]
        for start in range(0, count, self.batch_items):
            for z, known in self.encode(chosen[start : start + self.batch_items]):
                yield z[known]

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def _rows(self, start: int, stop: int) -> list[_Rows]:
        """The rows of the items of one batch, from `start`."""
        numbers = range(start, min(start + self.batch_items, stop))
        form, made = self.content.format, []
        for number, (z, known) in zip(numbers, self.encode(numbers), strict=True):
            packed = pack(form, z, self.basis)
            kept = packed.values * known[..., None]  # the mean is not 0 in the coordinates of pca-k
            if kept.is_floating_point():
                self._require_finite(kept, number)
            again = unpack(form, packed, self.basis)
            made.append(_Rows(kept, packed.scale, known, sums_of(z[known], again[known])))
        return made

    @torch.no_grad()
    def encode(self, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Encodes some items: z in float32 and where it is known, cut to the rows that each has; 0 where it is not.

        Raises:
            InputError: If an item has no element, or a value is not finite.
        """
        batch = self.data.batch(numbers)
        found = checked(self.encoder, self.encoder(batch.x_0, batch.c, batch.mask))
        z = found.z.detach().cpu().float()
        known = torch.ones(z.shape[:-1], dtype=torch.bool) if found.mask is None else found.mask.cpu()
        if self.content.level == "global":
            z, known, lengths = z[:, None], known[:, None], [1] * len(numbers)
        else:
            whole = torch.full((len(numbers),), z.shape[1])
            lengths = (whole if batch.mask is None else _lengths(batch.mask.cpu())).tolist()
        for number, length in zip(numbers, lengths, strict=True):
            if not length:
                raise InputError(f"item {number} has no element; leave it out of the data")
        z = torch.where(known[..., None], z, 0.0)
        for number, values in zip(numbers, z, strict=True):
            self._require_finite(values, number)
        return [(z[place, :n], known[place, :n].contiguous()) for place, n in enumerate(lengths)]

    def _require_finite(self, values: Tensor, number: int) -> None:
        if not bool(values.isfinite().all()):
            raise InputError(
                f"encoder {self.encoder.name} put out a value for item {number} that {self.content.format} cannot "
                "hold; store float32, or look at the encoder"
            )


def build_cache(
    folder: Path | str,
    encoder: Encoder,
    data: Items,
    *,
    format: str = "float16",
    shard_items: int = 4096,
    batch_items: int = 64,
) -> Cache:
    """Writes what is missing of a cache, in this process, and opens it. Arguments as of `CacheBuilder`."""
    builder = CacheBuilder(folder, encoder, data, format=format, shard_items=shard_items, batch_items=batch_items)
    cache = builder.write_part()
    assert cache is not None, "one worker writes all"
    return cache


def _lengths(mask: Bool[Tensor, "b n"]) -> Tensor:
    """The number of leading elements that hold all those that exist."""
    return torch.where(mask, torch.arange(1, mask.shape[1] + 1), 0).amax(1)
