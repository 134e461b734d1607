"""The layout of a cache on disk: what its files say, and how one is mapped into memory.

    folder/manifest.json         what the values are: encoder, data, level, dtype, and each shard's range, size, SHA-256
    folder/000000.safetensors    values   [rows, d] (pair level: [rows, k, d])
                                 known    [rows]    (pair level: [rows, k]), True where z is known
                                 offsets  [items + 1]: item i of the shard owns rows offsets[i] : offsets[i + 1]

Items are ragged: one row per element of x_0, a single row at global level. A shard repeats the content of the cache in
its own header, so it can be told from another's without the manifest, which comes last.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from reed_core.errors import InputError
from reed_core.representation.encoder import Level

FORMAT, MANIFEST = 1, "manifest.json"
Stored = Literal["float16", "float32"]
_TYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


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


def map_shard(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as views of its memory map (copy on write)."""
    whole = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))
    start = 8 + int.from_bytes(bytes(whole[:8].tolist()), "little")
    entries = json.loads(bytes(whole[8:start].tolist()))
    tensors = {}
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = whole[start + begin : start + end].view(_TYPES[entry["dtype"]]).view(entry["shape"])
    return tensors


def content_of(path: Path) -> Content | None:
    """What a shard says it holds; None if it is not there, or not whole."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(size, path.stat().st_size)))
        content = Content.model_validate_json(header.pop("__metadata__")["reed"])
        end = max(entry["data_offsets"][1] for entry in header.values())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if 8 + size + end == path.stat().st_size else None


def check_same(place: Path, held: Content, wanted: Content) -> None:
    """Refuses a cache that is not the wanted one.

    Raises:
        InputError: Which of encoder, data and layout differs.
    """
    if held == wanted:
        return
    names = {"encoder_fingerprint": "encoder", "data_fingerprint": "data"}
    found, expected = held.model_dump(), wanted.model_dump()
    differ = [
        f"the {names.get(key, key)} differs (there {str(found[key])[:16]}, here {str(expected[key])[:16]})"
        for key in found
        if found[key] != expected[key]
    ]
    raise InputError(
        f"{place} holds another cache: {', '.join(differ)}; build one in another folder, or remove this one"
    )


def first_line(error: Exception) -> str:
    """The first line of an error, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
