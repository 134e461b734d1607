"""Writing a cache: every shard is a function of (encoder, data, range of items) alone.

So shards can be written in any order, by different processes; an interrupted build keeps those that are whole and ends
with the same bytes. Only the manifest, written last, makes the folder a cache.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from safetensors.torch import save_file
from torch import Tensor

from reed_core.errors import InputError
from reed_core.files import sha256, write_text, write_with
from reed_core.representation.cache import Cache, Item
from reed_core.representation.encoder import Encoder, checked
from reed_core.representation.shard import (
    FORMAT,
    MANIFEST,
    Content,
    Manifest,
    Shard,
    Stored,
    check_same,
    content_of,
    map_shard,
)
from reed_core.train.data import Batch


@runtime_checkable
class Items(Protocol):
    """What is encoded: numbered items, without augmentation. `fingerprint` changes whenever an item does."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def batch(self, items: Sequence[int]) -> Batch:
        """The clean data, condition and mask of some items."""
        ...


class CacheBuilder:
    """Writes a cache: `write` every shard, in any order and from any process, then `seal`.

    Args:
        folder: Where to; created.
        encoder: The encoder.
        data: The items.
        dtype: "float16" or "float32".
        shard_items: Items per shard.
        batch_items: Items encoded at once.
    """

    def __init__(
        self,
        folder: Path | str,
        encoder: Encoder,
        data: Items,
        *,
        dtype: Stored = "float16",
        shard_items: int = 4096,
        batch_items: int = 64,
    ) -> None:
        if min(len(data), shard_items, batch_items) < 1:
            raise InputError(
                f"a cache needs at least one item, in shards and batches of at least one; got {len(data)} items, "
                f"shard_items {shard_items}, batch_items {batch_items}"
            )
        self.folder, self.encoder, self.data, self.batch_items = Path(folder), encoder, data, batch_items
        self.content = Content(
            format=FORMAT,
            encoder=encoder.name,
            encoder_fingerprint=encoder.fingerprint,
            data_fingerprint=data.fingerprint,
            level=encoder.level,
            dim=encoder.dim,
            dtype=dtype,
            items=len(data),
            shard_items=shard_items,
        )

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.content.items // self.content.shard_items)

    def write(self, index: int) -> None:
        """Writes one shard, unless it is there and whole.

        Raises:
            InputError: If the place is taken by a shard of another cache, or the encoder's values cannot be stored.
        """
        path = self._path(index)
        held = content_of(path)
        if held is not None:
            check_same(path, held, self.content)
            return
        stored = [item for start in self._starts(index) for item in self._encode(start, self._range(index).stop)]
        lengths = torch.tensor([0, *(len(item.values) for item in stored)])
        tensors = {
            "values": torch.cat([item.values for item in stored]),
            "known": torch.cat([item.known for item in stored]),
            "offsets": lengths.cumsum(0),
        }
        header = {"reed": self.content.model_dump_json()}  # one key: safetensors keeps no order among several
        write_with(path, lambda aside: save_file(tensors, aside, header))

    def seal(self) -> Manifest:
        """Hashes all shards and writes the manifest, which makes the folder a cache.

        Raises:
            InputError: If a shard is missing or not whole.
        """
        paths = [self._path(index) for index in range(self.shards)]
        found = [content_of(path) for path in paths]
        missing = [path.name for path, content in zip(paths, found, strict=True) if content is None]
        if missing:
            raise InputError(
                f"{self.folder} lacks {len(missing)} of {len(paths)} shards ({missing[0]}, ...); write them"
            )
        shards = []
        for index, (path, content) in enumerate(zip(paths, found, strict=True)):
            assert content is not None
            check_same(path, content, self.content)
            owned = self._range(index)
            shards.append(
                Shard(
                    file=path.name,
                    first=owned.start,
                    last=owned.stop,
                    rows=len(map_shard(path)["values"]),
                    bytes=path.stat().st_size,
                    sha256=sha256(path),
                )
            )
        manifest = Manifest(content=self.content, shards=tuple(shards))
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        return manifest

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def _range(self, index: int) -> range:
        size = self.content.shard_items
        return range(index * size, min((index + 1) * size, self.content.items))

    def _starts(self, index: int) -> range:
        owned = self._range(index)
        return range(owned.start, owned.stop, self.batch_items)

    @torch.no_grad()
    def _encode(self, start: int, stop: int) -> list[Item]:
        numbers = range(start, min(start + self.batch_items, stop))
        batch = self.data.batch(numbers)
        found = checked(self.encoder, self.encoder(batch.x_0, batch.c, batch.mask))
        leading = found.z.shape[:-1]
        known = torch.ones(leading, dtype=torch.bool) if found.mask is None else found.mask.cpu()
        if self.content.level == "global":
            lengths = [1] * len(numbers)
            z, known = found.z[:, None], known[:, None]
        else:
            z = found.z
            whole = torch.full((len(numbers),), z.shape[1])
            lengths = (whole if batch.mask is None else _lengths(batch.mask.cpu())).tolist()
        values = torch.where(known[..., None], z.detach().cpu(), 0.0).to(getattr(torch, self.content.dtype))
        for place, number in enumerate(numbers):
            if not lengths[place]:
                raise InputError(f"item {number} has no element; leave it out of the data")
            if not bool(values[place].isfinite().all()):
                raise InputError(
                    f"encoder {self.encoder.name} put out a value for item {number} that {self.content.dtype} cannot "
                    "hold; store float32, or look at the encoder"
                )
        return [Item(values[i, :n].contiguous(), known[i, :n].contiguous()) for i, n in enumerate(lengths)]


def build_cache(
    folder: Path | str,
    encoder: Encoder,
    data: Items,
    *,
    dtype: Stored = "float16",
    shard_items: int = 4096,
    batch_items: int = 64,
) -> Cache:
    """Writes what is missing of a cache, in this process, and opens it. Arguments as of `CacheBuilder`."""
    builder = CacheBuilder(folder, encoder, data, dtype=dtype, shard_items=shard_items, batch_items=batch_items)
    for index in range(builder.shards):
        builder.write(index)
    return Cache(builder.folder, builder.seal())


def _lengths(mask: Bool[Tensor, "b n"]) -> Tensor:
    """The number of leading elements that hold all those that exist."""
    return torch.where(mask, torch.arange(1, mask.shape[1] + 1), 0).amax(1)
