"""Reading a cache: files stay mapped and small, and z is made of them only when a batch is gathered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from pydantic import ValidationError
from torch import Tensor

from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.latent import Representation
from reed_core.representation.basis import BASIS, Basis
from reed_core.representation.format import Packed, components, unpack
from reed_core.representation.gather import Table, gather, runs_of
from reed_core.representation.pool import Pool
from reed_core.representation.shard import LAYOUT, MANIFEST, Manifest, check_same, first_line, map_shard


class Item(NamedTuple):
    """What is stored of one item.

    Attributes:
        values: Its rows, as stored.
        known: Where they are known.
        scale: The scale of each, of the format int8.
    """

    values: Shaped[Tensor, "n ..."]
    known: Bool[Tensor, "n ..."]
    scale: Shaped[Tensor, "n ..."] | None = None


def open_cache(folder: Path | str, *, encoder: str, data: str) -> "Cache":
    """Opens a finished cache for reading: checks its manifest and the sizes of its shards, reads no value.

    Args:
        folder: The folder.
        encoder: The fingerprint of the encoder whose values are wanted.
        data: The fingerprint of the items they should be of.

    Raises:
        InputError: If there is no cache, it is of another encoder or other data (and in which part), or a shard is
            missing or cut short.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no cache in {folder} ({first_line(error)}); build it with build_cache") from error
    except ValidationError as error:
        raise InputError(
            f"{path} is no manifest of layout {LAYOUT} ({first_line(error)}); build the cache again"
        ) from error
    check_same(
        Path(folder),
        manifest.content,
        manifest.content.model_copy(
            update={"layout": LAYOUT, "encoder_fingerprint": encoder, "data_fingerprint": data}
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

    Stored values are views of the mapped files: only the pages that are touched are read. Writing to them changes this
    process's copy alone. A cache may be sent to other processes: they map the files themselves.

    Args:
        folder: The folder.
        manifest: Its manifest.

    Raises:
        InputError: If the basis of pca-k is missing or damaged.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._open: dict[int, Table] = {}
        self._pool = Pool()
        self._basis = self._read_basis() if components(manifest.content.format, manifest.content.dim) else None

    def __len__(self) -> int:
        return self.manifest.content.items

    @property
    def bytes(self) -> int:
        """The size of its shards on disk."""
        return sum(shard.bytes for shard in self.manifest.shards)

    def __getitem__(self, item: int) -> Shaped[Tensor, "... d"]:
        """The z of one item: [n, d], [n, k, d] or [d]; 0 where it is not known. Floats are views, without a copy."""
        values = self.gather([item]).z[0] if self._packed else self.item(item).values
        return values[0] if self.manifest.content.level == "global" and not self._packed else values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def item(self, item: int) -> Item:
        """The rows of one item as they are stored, and where they are known, without a copy.

        Raises:
            IndexError: If there is no such item.
        """
        self._check(np.array([item]))
        size = self.manifest.content.shard_items
        table = self._table(item // size)
        start, end = table.offsets[item % size : item % size + 2].tolist()
        rows = {name: torch.from_numpy(array[start:end]) for name, array in table.arrays.items()}
        return Item(rows["values"], rows["known"], rows.get("scale"))

    def lengths(self, items: Sequence[int]) -> Int64[np.ndarray, " b"]:
        """The number of rows of each item; 1 at global level."""
        runs = self._runs(items)[0]
        return np.concatenate([np.diff(run.starts) for run in runs])

    def gather(self, items: Sequence[int], length: int | None = None) -> Representation:
        """The z of a batch, ready for an objective.

        Args:
            items: Item numbers, at least one. Those that follow each other are read at once.
            length: Pad to this many rows, as x_0 is; None pads to the longest item. Global z has no such axis.

        Returns:
            z [b, n, d], [b, n, k, d] or [b, d], in float16 if that is how it is stored, else in float32; and a mask
            that is True where z is known.

        Raises:
            InputError: If an item is longer than `length`.
            IndexError: If there is no such item.
        """
        content = self.manifest.content
        runs, tables = self._runs(items)
        longest = max(int(np.diff(run.starts).max()) for run in runs)
        if length is not None and longest > length and content.level != "global":
            raise InputError(
                f"an item of the cache in {self.folder} has {longest} rows, more than {length}; pad to more"
            )
        rows = longest if length is None or content.level == "global" else length
        found = gather(runs, tables, len(items), rows, self._pool)
        known = torch.from_numpy(found.known)
        scale = None if found.scale is None else torch.from_numpy(found.scale)
        packed = Packed(torch.from_numpy(found.values), scale)
        out = None
        if self._packed:
            out = torch.from_numpy(self._pool.take((*found.known.shape, content.dim), np.float32))
        z = unpack(content.format, packed, self._basis, out)
        if self._basis is not None:
            z.masked_fill_(~known[..., None], 0.0)
        return Representation(z[:, 0], known[:, 0]) if content.level == "global" else Representation(z, known)

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

    @property
    def _packed(self) -> bool:
        return self.manifest.content.format not in ("float16", "float32")

    def _check(self, items: Int64[np.ndarray, " b"]) -> None:
        wrong = items[(items < 0) | (items >= len(self))]
        if len(wrong):
            raise IndexError(f"item {wrong[0]} of a cache of {len(self)}")

    def _runs(self, items: Sequence[int]) -> tuple[list[Any], dict[int, Table]]:
        numbers = np.asarray(items, dtype=np.int64)
        self._check(numbers)
        size = self.manifest.content.shard_items
        tables = {index: self._table(index) for index in np.unique(numbers // size).tolist()}
        return list(runs_of(numbers, size, tables)), tables

    def _read_basis(self) -> Basis:
        path = self.folder / BASIS
        if not path.is_file() or sha256(path) != self.manifest.content.basis:
            raise InputError(
                f"{path} is missing or damaged; remove {self.folder} and build the cache again: without its basis "
                "no value can be read"
            )
        return Basis(**{name: value.clone() for name, value in map_shard(path).tensors.items()})

    def _table(self, index: int) -> Table:
        if index not in self._open:
            self._open[index] = self._map(index)
        return self._open[index]

    def _map(self, index: int) -> Table:
        shard = self.manifest.shards[index]
        place = self.folder / shard.file
        try:
            mapped = map_shard(place)
            offsets = mapped.tensors["offsets"].numpy()
            arrays = {name: mapped.tensors[name].numpy() for name in ("values", "known")}
            if self.manifest.content.format == "int8":
                arrays["scale"] = mapped.tensors["scale"].numpy()
            ends = (int(offsets[0]), int(offsets[-1]))
            sizes = {len(array) for array in arrays.values()}
            if (sizes, ends, len(offsets)) != ({shard.rows}, (0, shard.rows), shard.last - shard.first + 1):
                raise ValueError("its tables do not fit the manifest")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{place} is damaged ({first_line(error)}); remove it and build the cache again"
            ) from error
        return Table(place, mapped.begins["values"], arrays, offsets)


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
        others = [int(self.other[item]) for item in items]
        found = self.cache.gather(others)
        assert found.mask is not None
        if self.cache.manifest.content.level == "global":
            return found
        own, theirs = (torch.from_numpy(self.cache.lengths(some)) for some in (items, others))
        longest = int(own.max())
        if length is not None and longest > length:
            raise InputError(
                f"an item of the cache in {self.cache.folder} has {longest} rows, more than {length}; pad to more"
            )
        places = torch.arange(length or longest)[None]
        rows, batch = places % theirs[:, None], torch.arange(len(items))[:, None]
        mask = found.mask[batch, rows]
        mask &= (places < own[:, None]).view(*rows.shape[:1], -1, *[1] * (mask.ndim - 2))
        return Representation(torch.where(mask[..., None], found.z[batch, rows], 0.0), mask)
