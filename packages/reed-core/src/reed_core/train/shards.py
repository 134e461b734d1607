"""How torch.distributed.checkpoint stores a checkpoint here: one safetensors file a process, and a sealed manifest.

DCP decides who writes which piece of which tensor, and who reads what after the number of processes has changed; this
is its storage. Its own file storage is not used: it pickles its index, which would be unpickled without restriction,
and makes an archive of every tensor and every number, which costs a small model many times `torch.save`. Here nothing
is pickled, tensors are written as they lie in memory, and the SHA-256 is taken on the way.
"""

import math
import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from reed_core.files import directory_written_aside
from reed_core.train.manifest import Layout, Manifest, Piece, Seal
from reed_core.train.shard_file import DTYPES, Entry, bytes_of, dtype_name, write_shard


class _Place(NamedTuple):
    """Where a process writes: the folder of the checkpoint, and its own file in it."""

    folder: str
    file: str


class _Written(NamedTuple):
    """A piece that was written, and the seal of its file."""

    piece: Piece
    dtype: str
    seal: Seal


class ShardWriter(StorageWriter):
    """Writes one checkpoint; a context, which leaves nothing behind when the block fails.

    Args:
        target: The folder to be made.
        samples: Samples seen.
        outline: What the state holds besides tensors.
        world: How many processes write.
    """

    def __init__(self, target: Path, samples: int, outline: Any, world: int) -> None:
        self.target, self.samples, self.outline, self.world = target, samples, outline, world
        self._aside = ExitStack()
        self._folder = target

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.__exit__(kind, error, trace)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing: the first process makes the folder when the plan is whole."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan of a process, as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """On the first process: makes the folder, aside, and tells each process its file."""
        self._folder = self._aside.enter_context(directory_written_aside(self.target))
        return [
            replace(plan, storage_data=_Place(str(self._folder), f"{number}.safetensors"))
            for number, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """On every process: writes its file, unless it has nothing to write."""
        place: _Place = plan.storage_data
        results: list[WriteResult] = []
        if plan.items:
            results = _write_file(Path(place.folder) / place.file, plan, planner)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first process, when all have written: seals the folder and gives it its name."""
        written: defaultdict[str, list[_Written]] = defaultdict(list)
        for result in (one for part in results for one in part):
            written[result.index.fqn].append(result.storage_data)
        tensors = {
            name: Layout(
                dtype=written[name][0].dtype, shape=tuple(held.size), pieces=tuple(one.piece for one in written[name])
            )
            for name, held in metadata.state_dict_metadata.items()
            if isinstance(held, TensorStorageMetadata)
        }
        files = {one.piece.file: one.seal for parts in written.values() for one in parts}
        Manifest(
            samples=self.samples,
            torch=torch.__version__,
            world=self.world,
            files=files,
            tensors=tensors,
            outline=self.outline,
        ).write(self._folder)
        self._aside.close()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether a path is one to write to: DCP asks when it has to choose a writer."""
        return "://" not in str(checkpoint_id)


def _write_file(path: Path, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
    entries, chunks = [], []
    for item in plan.items:
        assert item.tensor_data is not None
        chunk, dtype = item.tensor_data.chunk, item.tensor_data.properties.dtype
        part = "" if chunk.sizes == item.tensor_data.size else "@" + ",".join(map(str, chunk.offsets))
        entries.append(Entry(item.index.fqn + part, dtype, tuple(chunk.sizes)))
        chunks.append(chunk)
    seal, starts = write_shard(path, entries, (_tensor(planner, item) for item in plan.items))
    results = []
    for item, entry, chunk, start in zip(plan.items, entries, chunks, starts, strict=True):
        piece = Piece(offset=tuple(chunk.offsets), extent=entry.shape, file=path.name, start=start)
        size = math.prod(entry.shape) * entry.dtype.itemsize
        results.append(WriteResult(item.index, size, _Written(piece, dtype_name(entry.dtype), seal)))
    return results


def _tensor(planner: SavePlanner, item: WriteItem) -> Tensor:
    tensor = planner.resolve_data(item)
    assert isinstance(tensor, Tensor)
    return tensor


class ShardReader(StorageReader):
    """Reads one checkpoint, which was checked before.

    Args:
        folder: The checkpoint.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._places = {
            MetadataIndex(name, piece.offset): (layout.dtype, piece)
            for name, layout in manifest.tensors.items()
            for piece in layout.pieces
        }

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a reader reads once."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The tensors and their pieces, as DCP describes them."""
        return Metadata(
            {
                name: TensorStorageMetadata(
                    TensorProperties(DTYPES[layout.dtype]),
                    torch.Size(layout.shape),
                    [ChunkStorageMetadata(torch.Size(one.offset), torch.Size(one.extent)) for one in layout.pieces],
                )
                for name, layout in self.manifest.tensors.items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing: the manifest says where everything is."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """The plan of a process, as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """The plans of all processes, as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads the pieces of a plan, file by file, and copies what is needed of each into its tensor."""
        wanted: defaultdict[str, list[ReadItem]] = defaultdict(list)
        for item in plan.items:
            wanted[self._places[item.storage_index][1].file].append(item)
        for file, items in wanted.items():
            with (self.folder / file).open("rb") as stream:
                for item in sorted(items, key=lambda one: self._places[one.storage_index][1].start):
                    dtype, piece = self._places[item.storage_index]
                    content = torch.empty(piece.extent, dtype=DTYPES[dtype])
                    stream.seek(piece.start)
                    if stream.readinto(bytes_of(content)) != content.nbytes:
                        raise EOFError(f"{file} of {self.folder.name} ends too early")
                    for axis, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                        content = content.narrow(axis, start, length)
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(content)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether a path is one to read: DCP asks when it has to choose a reader."""
        return "://" not in str(checkpoint_id)
