"""A batch out of mapped shards, with one copy: file to batch.

Items that stand together in a shard are one run. The values of a run go from the file straight to their places in the
padded batch by one `preadv`, which maps no page and so costs no page fault; short runs, and systems without it, are
copied from the memory map.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from reed_core.errors import InputError
from reed_core.representation.pool import Pool

_SHORT = 1 << 16  # bytes below which opening the file costs more than page faults
_VECTORS = 1024  # pieces that one call may fill (IOV_MAX of Linux and macOS)


class Table(NamedTuple):
    """What a shard holds, mapped.

    Attributes:
        path: The file.
        begin: The byte at which its values begin.
        arrays: values, known, scale: its rows.
        offsets: Row at which each item begins, and the end.
    """

    path: Path
    begin: int
    arrays: Mapping[str, Shaped[np.ndarray, "rows ..."]]
    offsets: Int64[np.ndarray, " items_and_one"]


class Run(NamedTuple):
    """Items that stand together in a shard and in the batch.

    Attributes:
        shard: Number of the shard.
        place: Row of the batch of the first.
        starts: First row of each in the shard, and the end of the last.
    """

    shard: int
    place: int
    starts: Int64[np.ndarray, " n_and_one"]

    def equal(self, length: int) -> bool:
        """Whether every item has this many rows, so that the run is one block of the batch too."""
        return bool((np.diff(self.starts) == length).all())


class Gathered(NamedTuple):
    """A padded batch of rows: 0 beyond an item's own."""

    values: Shaped[np.ndarray, "b n ..."]
    scale: Shaped[np.ndarray, "b n ..."] | None
    known: Bool[np.ndarray, "b n ..."]


def runs_of(items: Int64[np.ndarray, " b"], shard_items: int, tables: Mapping[int, Table]) -> Iterator[Run]:
    """Cuts a batch where the next item is not the following one of the same shard."""
    shards = items // shard_items
    cuts = np.flatnonzero((np.diff(items) != 1) | (np.diff(shards) != 0)) + 1
    for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(items)], strict=True):
        shard = int(shards[first])
        own = int(items[first]) - shard * shard_items
        yield Run(shard, first, tables[shard].offsets[own : own + last - first + 1])


def gather(runs: Sequence[Run], tables: Mapping[int, Table], count: int, length: int, pool: Pool) -> Gathered:
    """Reads runs into a new batch.

    Args:
        runs: What to read.
        tables: Their shards.
        count: Items.
        length: Rows of the padded batch.
        pool: Where memory comes from.

    Raises:
        InputError: If a file ends early.
    """
    some = tables[runs[0].shard].arrays
    made = {name: pool.take((count, length, *one.shape[1:]), one.dtype) for name, one in some.items()}
    for run in runs:
        table, whole = tables[run.shard], run.equal(length)
        values = table.arrays["values"]
        row = values.dtype.itemsize * int(np.prod(values.shape[1:]))
        start, end = int(run.starts[0]), int(run.starts[-1])
        direct = (end - start) * row >= _SHORT and hasattr(os, "preadv")
        for name, source in table.arrays.items():
            target = made[name][run.place : run.place + len(run.starts) - 1]
            if whole:
                pieces = [target.reshape(-1, *source.shape[1:])]
            else:
                pieces = []
                for one, n in zip(target, np.diff(run.starts).tolist(), strict=True):
                    pieces.append(one[:n])
                    one[n:] = 0
            if direct and name == "values":
                _read(table.path, [piece.data.cast("B") for piece in pieces], table.begin + start * row)
                continue
            at = start
            for piece in pieces:
                piece[...] = source[at : at + len(piece)]
                at += len(piece)
    return Gathered(made["values"], made.get("scale"), made["known"])


def _read(path: Path, pieces: list[Any], offset: int) -> None:
    """Fills buffers from a file, one after the other."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        done = 0
        while done < len(pieces):
            got = os.preadv(descriptor, pieces[done : done + _VECTORS], offset)
            if got <= 0:
                raise InputError(f"{path} ends early; remove it and build the cache again: whole shards are kept")
            offset += got
            while done < len(pieces) and got >= len(pieces[done]):
                got -= len(pieces[done])
                done += 1
            if got:
                pieces[done] = pieces[done][got:]
    finally:
        os.close(descriptor)
