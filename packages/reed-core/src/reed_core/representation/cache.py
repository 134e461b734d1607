"""A cache of one representation on disk: written once, shard by shard; read by memory map, one item at a time.

    folder/manifest.json         what the values are: encoder, data, level, dtype, and each shard's range, size, SHA-256
    folder/000000.safetensors    values   [rows, d] (pair level: [rows, k, d])
                                 known    [rows]    (pair level: [rows, k]), True where z is known
                                 offsets  [items + 1]: item i of the shard owns rows offsets[i] : offsets[i + 1]

Items are ragged: one row per element of x_0, a single row at global level. A shard is a function of (encoder, data,
range of items) alone and says so in its own header, so shards can be written by different processes, in any order; an
interrupted build keeps those that are whole and ends with the same bytes. The manifest comes last.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Shaped
from pydantic import BaseModel, ConfigDict
from reed_core.errors import InputError
from reed_core.files import sha256, write_text, write_with
from reed_core.representation.encoder import Encoder, Level
from reed_core.train.data import Batch
from safetensors.torch import save_file
from torch import Tensor

FORMAT, MANIFEST = 1, "manifest.json"
Stored = Literal["float16", "float32"]
_TYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


class Items(Protocol):
    """What is encoded: numbered items, without augmentation. `fingerprint` changes whenever an item does."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def batch(self, items: Sequence[int]) -> Batch:
        """The clean data, condition and mask of some items."""
        ...


class Content(BaseModel):
    """What a cache holds; every shard repeats it.

    Attributes:
        format: Version of the layout on disk.
        encoder: Name of the encoder.
        encoder_fingerprint: Its fingerprint.
        data_fingerprint: The fingerprint of the encoded items.
        level: "token", "pair" or "global".
        dim: Width of z.
        dtype: Type of the stored values.
        items: Number of items.
        shard_items: Items per shard; the last may hold fewer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    encoder: str
    encoder_fingerprint: str
    data_fingerprint: str
    level: Level
    dim: int
    dtype: Stored
    items: int
    shard_items: int


class Shard(BaseModel):
    """One file of a cache: items first..last (exclusive) in `rows` rows, its size in bytes and its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    first: int
    last: int
    rows: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The file `manifest.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: Content
    shards: tuple[Shard, ...]


class Item(NamedTuple):
    """What is stored of one item: rows of values, and where they are known."""

    values: Shaped[Tensor, "n ..."]
    known: Bool[Tensor, "n ..."]


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
        held = _held(path)
        if held is not None:
            _check_same(path, held, self.content)
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
        missing = [path.name for path in paths if _held(path) is None]
        if missing:
            raise InputError(
                f"{self.folder} lacks {len(missing)} of {len(paths)} shards ({missing[0]}, ...); write them"
            )
        shards = []
        for index, path in enumerate(paths):
            _check_same(path, _held(path), self.content)
            owned = self._range(index)
            shards.append(
                Shard(
                    file=path.name,
                    first=owned.start,
                    last=owned.stop,
                    rows=len(_mapped(path)["values"]),
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

    def _encode(self, start: int, stop: int) -> list[Item]:
        numbers = range(start, min(start + self.batch_items, stop))
        batch = self.data.batch(numbers)
        found = self.encoder(batch.x_0, batch.c, batch.mask)
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
) -> "Cache":
    """Writes what is missing of a cache, in this process, and opens it. Arguments as of `CacheBuilder`."""
    builder = CacheBuilder(folder, encoder, data, dtype=dtype, shard_items=shard_items, batch_items=batch_items)
    for index in range(builder.shards):
        builder.write(index)
    return Cache(builder.folder, builder.seal())
