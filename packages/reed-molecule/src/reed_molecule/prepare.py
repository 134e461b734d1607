"""Makes a prepared set: reads records in a pool of processes, counts what is dropped and why, splits, writes one file.

Work is kept in parts beside the result (`NAME.parts`), each whole or absent; a run that stops is taken up where it
stopped if the sources and settings are the same. The result appears at the end, whole, and the parts are removed.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import rdBase
from reed_core.errors import InputError
from reed_core.files import sha256, write_text
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reed_molecule.molecule import Molecule, flat_smiles
from reed_molecule.properties import Table
from reed_molecule.readers.source import Job, Source
from reed_molecule.splits import SPLITS, Shares, Split, by_hash, identity, without_leaks
from reed_molecule.stored import REACH, About, Stored, centred, joined, pack, read
from reed_molecule.vocabulary import Vocabulary
from reed_molecule.workers import Dropped, Pool, UnusableError

_PART = 500  # records of one part


class Read(NamedTuple):
    """What a process makes of a record: the molecule and its identity."""

    molecule: Molecule
    identity: int


class Prepared(NamedTuple):
    """What `prepare` did.

    Attributes:
        path: The file.
        molecules: How many molecules are in each split.
        distinct: How many of them differ by canonical SMILES without stereo.
        dropped: How many records were not used, by reason.
    """

    path: Path
    molecules: Mapping[Split, int]
    distinct: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class _Reader:
    """Reads and checks a record: what a process of the pool runs."""

    parse: Callable[[Job], Molecule]
    vocabulary: Vocabulary

    def __call__(self, job: Job) -> Read:
        molecule = self.parse(job)
        for check, values in (
            (self.vocabulary.types_of, molecule.numbers),
            (self.vocabulary.charge_classes_of, molecule.charges),
        ):
            try:
                check(values)
            except InputError as error:
                raise UnusableError("outside the vocabulary", f"{molecule.name}: {error}") from error
        if np.abs(centred(molecule.positions)).max() > REACH:
            raise UnusableError("too large", f"{molecule.name}: an atom further than {REACH} angstrom from the centre")
        return Read(molecule, identity(flat_smiles(molecule.smiles)))


def prepare(
    sources: Sequence[tuple[Source, Split | None]],
    out: Path,
    vocabulary: Vocabulary,
    shares: Shares | None = None,
    workers: int = 1,
    timeout: float = 30.0,
    quiet: bool = True,
) -> Prepared:
    """Reads molecules and writes the set, whole or not at all, and `OUT.dropped.tsv`: name, reason and detail of each.

    Args:
        sources: Files, each with the split its molecules belong to, or all with None: then by hash, in `shares`.
        out: The file to write.
        vocabulary: Elements and charges to keep; molecules with others are dropped.
        shares: The parts of the splits, where no split is given.
        workers: Number of processes.
        timeout: Seconds for one record, after which it is dropped.
        quiet: No progress bar on standard error.

    Raises:
        InputError: If geometries differ, splits are given for some files only, nothing is left, parts of another
            preparation are in the way, or the file cannot be written.
    """
    named = [split for _, split in sources if split is not None]
    if not sources or len(named) not in (0, len(sources)) or (named and shares is not None):
        raise InputError("give files without a split (and shares, if you like), or a split for every file")
    geometries = sorted({source.geometry for source, _ in sources})
    if len(geometries) > 1:
        raise InputError(f"files of {' and '.join(geometries)} geometry do not mix; prepare them apart")
    folder = out.with_name(f"{out.name}.parts")
    _claim(folder, _settings(sources, vocabulary, timeout))
    parts: list[Stored] = []
    lost: list[tuple[str, Dropped]] = []
    bar = Progress(
        TextColumn("reading molecules"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=quiet,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=sum(len(source.jobs) for source, _ in sources))
        for number, (source, split) in enumerate(sources):
            about = About(source.geometry, vocabulary, sources=(f"{source.path.name}: {source.described}",))
            with Pool(_Reader(source.parse, vocabulary), workers, timeout) as pool:
                cuts = [*range(0, len(source.jobs), _PART), len(source.jobs)]
                for start, end in pairwise(cuts):
                    place = folder / f"{number:03d}_{start:09d}"
                    known = None if source.properties is None else source.properties.rows(range(start, end))
                    part, gone = _part(place, source.jobs[start:end], pool, about, known, lambda: bar.advance(task))
                    where = np.full(len(part), SPLITS.index(split or "train"), dtype=np.uint8)
                    parts.append(part.with_split(where, "as the files give it" if split else ""))
                    lost += gone
    whole = joined(parts) if parts else None
    if whole is None or not len(whole):
        first = f"; the first: {lost[0][1].detail or lost[0][1].reason}" if lost else ""
        raise InputError(f"no usable molecule among {len(lost)} records{first}")
    whole, leaks = _split(whole, bool(named), shares or Shares())
    lost += leaks
    dropped = dict(Counter(why.reason for _, why in lost).most_common())
    whole = replace(whole, about=replace(whole.about, dropped=dropped))
    rows = ["name\treason\tdetail", *("\t".join(" ".join(word.split()) for word in (name, *why)) for name, why in lost)]
    whole.write(out)
    write_text(out.with_name(f"{out.name}.dropped.tsv"), "\n".join(rows) + "\n")
    shutil.rmtree(folder)
    counts = {split: int((whole.split == place).sum()) for place, split in enumerate(SPLITS)}
    return Prepared(out, counts, len(np.unique(whole.identities)), dropped)


def _split(whole: Stored, given: bool, shares: Shares) -> tuple[Stored, list[tuple[str, Dropped]]]:
    """Assigns by hash, or keeps what was given and drops molecules that a later split holds too."""
    if not given:
        how = f"by hash of the molecule: train {shares.train:g}, valid {shares.valid:g}, test {shares.test:g}"
        return whole.with_split(by_hash(whole.identities, shares), how), []
    keep = without_leaks(whole.identities, whole.split)
    gone = [(whole.molecule(int(i)).name, Dropped("in another split too")) for i in np.flatnonzero(~keep)]
    return whole.chosen(np.flatnonzero(keep)), gone


def _part(
    place: Path,
    jobs: Sequence[Job],
    pool: Pool[Job, Read],
    about: About,
    known: Table | None,
    advance: Callable[[], None],
) -> tuple[Stored, list[tuple[str, Dropped]]]:
    """One part: read back if a run before this one has made it, made and kept otherwise."""
    file, losses = place.with_suffix(".safetensors"), place.with_suffix(".json")
    if file.exists():
        for _ in jobs:
            advance()
        return read(file), [(name, Dropped(reason, detail)) for name, reason, detail in json.loads(losses.read_text())]
    kept: list[Read] = []
    rows: list[int] = []
    lost: list[tuple[str, Dropped]] = []
    for row, (job, answer) in enumerate(zip(jobs, pool.map(jobs), strict=True)):
        if isinstance(answer, Dropped):
            lost.append((job[0], answer))
        else:
            kept.append(answer)
            rows.append(row)
        advance()
    table = None if known is None else known.rows(rows)
    part = pack([one.molecule for one in kept], [one.identity for one in kept], about, table)
    write_text(losses, json.dumps([(name, *why) for name, why in lost]))
    part.write(file)
    return part, lost


def _settings(sources: Sequence[tuple[Source, Split | None]], vocabulary: Vocabulary, timeout: float) -> str:
    """All that the parts depend on."""
    files = [
        (number, source.path.name, source.geometry, source.described, len(source.jobs), split, _content(source.path))
        for number, (source, split) in enumerate(sources)
    ]
    tables = [source.properties for source, _ in sources]
    names = [list(table.names) for table in tables if table is not None and table.names]
    settings = [files, names, vocabulary.symbols, vocabulary.charges, timeout, _PART, rdBase.rdkitVersion]
    return json.dumps(settings, indent=1)


def _content(path: Path) -> str:
    if path.is_file():
        return sha256(path)
    stats = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(path.glob("*.xyz"))]
    return hashlib.sha256("\n".join(stats).encode()).hexdigest()


def _claim(folder: Path, settings: str) -> None:
    """Makes the folder of parts, or takes up that of the same preparation."""
    note = folder / "settings.json"
    if folder.exists():
        if note.is_file() and note.read_text(encoding="utf-8") == settings:
            return
        raise InputError(f"{folder} holds parts of another preparation; remove it, or choose another name to write to")
    write_text(note, settings)
