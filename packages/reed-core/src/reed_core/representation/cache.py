"""Reading a cache: values are views of the mapped files, so an item costs what it holds, however large its shard."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Shaped
from pydantic import ValidationError
from torch import Tensor

from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.latent import Representation
from reed_core.representation.shard import FORMAT, MANIFEST, Manifest, check_same, first_line, map_shard


class Item(NamedTuple):
    """What is stored of one item: rows of values, and where they are known."""

    values: Shaped[Tensor, "n ..."]
    known: Bool[Tensor, "n ..."]


def open_cache(folder: Path | str, *, encoder: str, data: str) -> "Cache":
    """Opens a finished cache for reading: checks its manifest and the sizes of its shards, reads no value.

    Args:
        folder: The folder.
        encoder: The fingerprint of the encoder whose values are wanted.
        data: The fingerprint of the items they should be of.

    Raises:
        InputError: If there is no cache, it is of another encoder or other data, or a shard is missing or cut short.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no cache in {folder} ({first_line(error)}); build it with build_cache") from error
    except ValidationError as error:
        raise InputError(
            f"{path} is no manifest of format {FORMAT} ({first_line(error)}); build the cache again"
        ) from error
    check_same(
        Path(folder),
        manifest.content,
        manifest.content.model_copy(
            update={"format": FORMAT, "encoder_fingerprint": encoder, "data_fingerprint": data}
        ),
    )
    for shard in manifest.shards:
        place = Path(folder) / shard.file
        size = place.stat().st_size if place.is_file() else None
        if size != shard.bytes:
            state = "is missing" if size is None else f"holds {size} bytes instead of {shard.bytes}"
            raise InputError(f"{place} {state}; remove it and build the cache again: whole shards are kept")
    return Cache(Path(folder), manifest)


class Cache:
    """A cache, open for reading; made by `open_cache` or `build_cache`.

    Values are views of the mapped files: only the pages that are touched are read. Writing to them changes this
    process's copy alone. A cache may be sent to other processes: they map the files themselves.

    Args:
        folder: The folder.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._firsts = [shard.first for shard in manifest.shards]
        self._open: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.manifest.content.items

    def __getitem__(self, item: int) -> Shaped[Tensor, "... d"]:
        """The stored z of one item, without a copy: [n, d], [n, k, d] or [d]; 0 where it is not known."""
        values = self.item(item).values
        return values[0] if self.manifest.content.level == "global" else values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def item(self, item: int) -> Item:
        """The rows of one item and where they are known, without a copy.

        Raises:
            IndexError: If there is no such item.
        """
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of a cache of {len(self)}")
        index = bisect_right(self._firsts, item) - 1
        if index not in self._open:
            self._open[index] = self._map(index)
        shard = self._open[index]
        start, end = shard["offsets"][item - self._firsts[index] :][:2].tolist()
        return Item(shard["values"][start:end], shard["known"][start:end])

    def gather(self, items: Sequence[int], length: int | None = None) -> Representation:
        """The z of a batch, ready for an objective.

        Args:
            items: Item numbers.
            length: Pad to this many rows, as x_0 is; None pads to the longest item. Global z has no such axis.

        Returns:
            z [b, n, d], [b, n, k, d] or [b, d] in the stored type, and a mask that is True where z is known.

        Raises:
            InputError: If an item is longer than `length`.
        """
        return self.pack([self.item(item) for item in items], length)

    def pack(self, pieces: Sequence[Item], length: int | None = None) -> Representation:
        """Pads rows of several items to one batch; see `gather`."""
        if self.manifest.content.level == "global":
            values, known = zip(*pieces, strict=True)
            return Representation(torch.cat(values), torch.cat(known))
        longest = max(len(piece.values) for piece in pieces)
        if length is not None and longest > length:
            raise InputError(
                f"an item of the cache in {self.folder} has {longest} rows, more than {length}; pad to more"
            )
        shape = (len(pieces), length or longest)
        z = pieces[0].values.new_zeros(*shape, *pieces[0].values.shape[1:])
        mask = torch.zeros(*shape, *pieces[0].known.shape[1:], dtype=torch.bool)
        for place, piece in enumerate(pieces):
            z[place, : len(piece.values)] = piece.values
            mask[place, : len(piece.known)] = piece.known
        return Representation(z, mask)

    def verify(self) -> None:
        """Reads everything and compares the SHA-256 of each shard with the manifest.

        Raises:
            InputError: If a shard is damaged.
        """
        for shard in self.manifest.shards:
            place = self.folder / shard.file
            if not place.is_file() or sha256(place) != shard.sha256:
                raise InputError(
                    f"{place} is damaged: its SHA-256 is not the manifest's; remove it and build the cache again"
                )

    def _map(self, index: int) -> dict[str, Tensor]:
        shard = self.manifest.shards[index]
        place = self.folder / shard.file
        try:
            tensors = map_shard(place)
            offsets = tensors["offsets"]
            rows, ends = tensors["values"].shape[0], (int(offsets[0]), int(offsets[-1]))
            if (rows, ends, len(offsets)) != (shard.rows, (0, rows), shard.last - shard.first + 1):
                raise ValueError("its tables do not fit the manifest")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{place} is damaged ({first_line(error)}); remove it and build the cache again"
            ) from error
        return tensors


class Shuffled:
    """A control: every item gets the z of another one, by one fixed permutation, so z says nothing about x.

    The permutation is a single cycle: no item keeps its own. Where the other item has fewer rows they start again.

    Args:
        cache: The cache.
        seed: Seeds the permutation.
    """

    def __init__(self, cache: Cache, seed: int) -> None:
        order = torch.randperm(len(cache), generator=torch.Generator().manual_seed(seed))
        self.cache = cache
        self.other = torch.empty_like(order).scatter_(0, order, order.roll(1))

    def gather(self, items: Sequence[int], length: int | None = None) -> Representation:
        """As `Cache.gather`: as many rows for each item as it has itself, of another item's values."""
        pieces = []
        for item in items:
            values, known = self.cache.item(int(self.other[item]))
            rows = torch.arange(len(self.cache.item(item).values)) % len(values)
            pieces.append(Item(values[rows], known[rows]))
        return self.cache.pack(pieces, length)
