"""QM9 as its authors publish it: an archive of `dsgdb9nsd_*.xyz`, and the list of uncharacterised molecules."""

import re
import tarfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from reed_core.errors import InputError

from reed_molecule.properties import QM9_UNITS, Table
from reed_molecule.readers.fields import gdb_values
from reed_molecule.readers.source import Job, Source, text_of
from reed_molecule.readers.xyz import frames_of, parse_frame
from reed_molecule.splits import SPLITS, Split

_NUMBER = re.compile(r"(?:gdb_|dsgdb9nsd_)0*([0-9]{1,6})$")
_MOST_BYTES = 1 << 20

Assign = Callable[[Int64[np.ndarray, " n"], Collection[int]], UInt8[np.ndarray, " n"]]


def qm9_archive(path: Path, uncharacterised: Collection[int], limit: int | None = None) -> Source:
    """The characterised molecules of the archive with their properties, B3LYP geometry; bonds are perceived.

    Args:
        path: `dsgdb9nsd.xyz.tar.bz2`, or another tar file of such files.
        uncharacterised: gdb9 numbers to leave out.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If it is not such an archive.
    """
    outside = set(uncharacterised)
    jobs: list[Job] = []
    rows: list[list[float]] = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name.removesuffix(".xyz")
                found = _NUMBER.match(name)
                if not member.isfile() or not member.name.endswith(".xyz") or found is None:
                    continue
                stream = archive.extractfile(member)
                if int(found[1]) in outside or stream is None or member.size > _MOST_BYTES:
                    continue
                if limit is not None and len(jobs) >= limit:
                    break
                text = stream.read().decode("utf-8", errors="replace")
                for frame in frames_of(text, f"{path} {name}")[:1]:
                    jobs.append((f"gdb_{int(found[1])}", frame))
                    rows.append(gdb_values(text.lstrip().splitlines()[1]))
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not an archive of QM9 ({reason}); fetch it again") from error
    if not jobs:
        raise InputError(f"{path} holds no dsgdb9nsd_*.xyz; give the archive of QM9")
    known = Table(QM9_UNITS, np.array(rows, dtype=np.float64))
    return Source(path, "dft-b3lyp", jobs, partial(parse_frame, 0), "bonds by RDKit DetermineBonds, charge 0", known)


def read_uncharacterised(path: Path) -> list[int]:
    """The gdb9 numbers of `uncharacterized.txt`: the first word of every line that begins with a number.

    Raises:
        InputError: If the file cannot be read.
    """
    words = [line.split()[0] for line in text_of(path).splitlines() if line.strip()]
    return [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 7]


def named_splits(source: Source, assign: Assign, uncharacterised: Collection[int]) -> list[tuple[Source, Split]]:
    """A source of QM9 molecules cut by a published split (`splits.edm`, `splits.midi`).

    Args:
        source: Its records are named gdb_N or dsgdb9nsd_N; uncharacterised ones are left out.
        assign: The split.
        uncharacterised: gdb9 numbers that QM9 lists.

    Raises:
        InputError: If a record has another name, or the list is not QM9's.
    """
    outside = set(uncharacterised)
    parts: dict[Split, list[int]] = {split: [] for split in SPLITS}
    places, numbers = _numbered(source, outside)
    for place, part in zip(places, assign(numbers, uncharacterised).tolist(), strict=True):
        parts[SPLITS[part]].append(place)
    return [(source.chosen(some), split) for split, some in parts.items() if some]


def _numbered(source: Source, outside: set[int]) -> tuple[Sequence[int], Int64[np.ndarray, " n"]]:
    """Places of the records that count, and their numbers."""
    places, numbers = [], []
    for place, job in enumerate(source.jobs):
        found = _NUMBER.match(job[0])
        if found is None:
            raise InputError(
                f"{source.path}: a record is named {job[0][:40]!r}; the splits of QM9 need names such as gdb_17 or "
                "dsgdb9nsd_000017"
            )
        if int(found[1]) not in outside:
            places.append(place)
            numbers.append(int(found[1]))
    return places, np.array(numbers, dtype=np.int64)
