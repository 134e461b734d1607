"""One file of a checkpoint: tensors one after the other in the safetensors layout, hashed while they are written.

A file is the length of its header (8 bytes), the header (JSON: type, shape and range of each tensor), and the bytes of
the tensors, row-major. Any reader of safetensors can open it.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from reed_core.train.manifest import Seal

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
BLOCK = 4 << 20
DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """The name safetensors gives a type.

    Raises:
        TypeError: If it has none.
    """
    if dtype not in _NAMES:
        raise TypeError(f"a checkpoint cannot hold tensors of type {dtype}")
    return _NAMES[dtype]


class Entry(NamedTuple):
    """What a file says of a tensor: its name in the file, its type and its shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Sealed(NamedTuple):
    """What became of a file: its seal, and where the bytes of each tensor begin."""

    seal: Seal
    starts: list[int]


def write_shard(path: Path, entries: Sequence[Entry], tensors: Iterable[Tensor]) -> Sealed:
    """Writes a file and waits until the disk has it.

    Args:
        path: The file.
        entries: What it holds.
        tensors: The tensors of the entries, in their order; each is asked for when the one before is written.

    Raises:
        OSError: If the disk does not take it.
        TypeError: If a type has no name in safetensors.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, end = [], 0
    for entry in entries:
        starts.append(end)
        end += math.prod(entry.shape) * entry.dtype.itemsize
        described = {"dtype": dtype_name(entry.dtype), "shape": list(entry.shape), "data_offsets": [starts[-1], end]}
        header[entry.name] = described
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    before = 8 + len(text)
    with path.open("wb", buffering=0) as stream, ThreadPoolExecutor(1) as pool:
        file = _HashedFile(stream, pool)
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(bytes_of(tensor))
        digest = file.close()
    return Sealed(Seal(size=before + end, sha256=digest), [before + start for start in starts])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row-major; on a CPU without a copy."""
    held = tensor.detach().cpu().contiguous()
    return held.as_strided((held.numel(),), (1,)).view(torch.uint8).numpy().data


class _HashedFile:
    """A file that is hashed while it is written: small parts are put together, a second thread takes the SHA-256."""

    def __init__(self, stream: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._stream, self._pool, self._digest = stream, pool, hashlib.sha256()
        self._parts: list[bytes | memoryview] = []
        self._held = 0
        self._hashing: Future[None] | None = None

    def write(self, part: bytes | memoryview) -> None:
        """Takes the next bytes."""
        self._parts.append(part)
        self._held += len(part)
        if self._held >= BLOCK:
            self._flush()

    def close(self) -> str:
        """Waits until the disk has everything; the SHA-256 in hexadecimal."""
        self._flush()
        os.fsync(self._stream.fileno())
        if self._hashing is not None:
            self._hashing.result()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        block = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._held = [], 0
        if self._hashing is not None:
            self._hashing.result()
        self._hashing = self._pool.submit(self._digest.update, block)
        _write_all(self._stream, block)


def _write_all(stream: BinaryIO, block: bytes | memoryview) -> None:
    left = memoryview(block)
    while left:
        left = left[stream.write(left) :]
