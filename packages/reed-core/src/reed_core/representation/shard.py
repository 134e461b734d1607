"""The layout of a cache on disk: what its files say, and how one is mapped into memory.

    folder/manifest.json         what the values are: encoder, data, level, format; how near they are to the encoder's;
                                 and each shard's range, size, SHA-256
    folder/basis.safetensors     of the format pca-k alone: mean [d], components [k, d]
    folder/000000.safetensors    values   [rows, w] (pair level: [rows, edges, w]); w is d, or the k of pca-k
                                 scale    [rows]    (pair level: [rows, edges]), of the format int8 alone
                                 known    [rows]    (pair level: [rows, edges]), True where z is known
                                 offsets  [items + 1]: item i of the shard owns rows offsets[i] : offsets[i + 1]
                                 errors   [5]: sums for the figures of fidelity

Items are ragged: one row per element of x_0, a single row at global level. A shard repeats the content of the cache in
its own header, so it can be told from another's without the manifest, which comes last.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from reed_core.errors import InputError
from reed_core.representation.encoder import Level
from reed_core.representation.fidelity import Fidelity
from reed_core.representation.identity import differences

LAYOUT, MANIFEST = 2, "manifest.json"
_TYPES = {
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I8": torch.int8,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


class Content(BaseModel):
    """What a cache holds; every shard repeats it.

    Attributes:
        layout: Version of the layout on disk.
        encoder: Name of the encoder.
        encoder_fingerprint: Its fingerprint: weights, preprocessing, what is read.
        data_fingerprint: The fingerprint of the encoded items.
        level: "token", "pair" or "global".
        dim: Width of z.
        format: How z is stored (`reed_core.representation.format`).
        items: Number of items.
        shard_items: Items per shard; the last may hold fewer.
        basis: SHA-256 of the basis of pca-k; empty for the other formats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: int
    encoder: str
    encoder_fingerprint: str
    data_fingerprint: str
    level: Level
    dim: int
    format: str
    items: int
    shard_items: int
    basis: str = ""

    @property
    def address(self) -> str:
        """A short name that no other content has, for a folder: 16 hexadecimal digits."""
        said = self.model_copy(update={"basis": ""}).model_dump_json()
        return hashlib.sha256(said.encode()).hexdigest()[:16]


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
    fidelity: Fidelity
    shards: tuple[Shard, ...]


class Mapped(NamedTuple):
    """A safetensors file in memory.

    Attributes:
        tensors: Its tensors, as views of the memory map.
        begins: The byte of the file at which each begins.
    """

    tensors: dict[str, Tensor]
    begins: dict[str, int]


def map_shard(path: Path) -> Mapped:
    """The tensors of a safetensors file, as views of its memory map (copy on write)."""
    whole = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))
    start = 8 + int.from_bytes(bytes(whole[:8].tolist()), "little")
    entries = json.loads(bytes(whole[8:start].tolist()))
    tensors, begins = {}, {}
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            begins[name] = start + begin
            tensors[name] = whole[start + begin : start + end].view(_TYPES[entry["dtype"]]).view(entry["shape"])
    return Mapped(tensors, begins)


def content_of(path: Path) -> Content | None:
    """What a file of a cache says it holds; None if it is not there, or not whole."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(size, path.stat().st_size)))
        said = json.loads(header.pop("__metadata__")["reed"])
        end = max(entry["data_offsets"][1] for entry in header.values())
        if 8 + size + end != path.stat().st_size:
            return None
        return Content.model_validate(said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_same(place: Path, held: Content, wanted: Content) -> None:
    """Refuses a cache that is not the wanted one.

    Raises:
        InputError: Which parts of encoder, data and layout differ.
    """
    if held == wanted:
        return
    found, expected = held.model_dump(), wanted.model_dump()
    differ = [
        *differences("encoder", found.pop("encoder_fingerprint"), expected.pop("encoder_fingerprint")),
        *differences("data", found.pop("data_fingerprint"), expected.pop("data_fingerprint")),
        *(
            f"the {key} differs (there {str(found[key])[:16]}, here {str(expected[key])[:16]})"
            for key in found
            if found[key] != expected[key]
        ),
    ]
    raise InputError(
        f"{place} holds another cache: {', '.join(differ)}; build one in another folder, or remove this one"
    )


def first_line(error: Exception) -> str:
    """The first line of an error, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
