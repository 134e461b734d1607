"""What `prepare` is asked for, as sources: files, files of a named split, and QM9 by name. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reed_core.errors import InputError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from reed_molecule import splits
from reed_molecule.download import QM9_ARCHIVE, QM9_UNCHARACTERISED, Remote, fetch
from reed_molecule.readers import Source, open_source
from reed_molecule.readers.fields import missing, with_properties
from reed_molecule.readers.qm9 import Assign, named_splits, qm9_archive, read_uncharacterised
from reed_molecule.readers.source import GEOMETRIES, Geometry
from reed_molecule.splits import Shares, Split
from reed_molecule.vocabulary import DRUGS, QM9, Vocabulary

NAMED: dict[str, Assign] = {"edm": splits.edm, "midi": splits.midi}
VOCABULARIES = {"qm9": QM9, "drugs": DRUGS}


@dataclass(frozen=True)
class Wanted:
    """How files are read.

    Attributes:
        geometry: Where coordinates come from; None takes what the format is known for.
        seed: Seeds the embedding of SMILES.
        conformers: Conformers made of each SMILES.
        charge: Total charge of each molecule of an XYZ file.
        add_hydrogens: Place hydrogens that an SDF lacks.
        limit: How many records to read of each file.
        split: "edm" or "midi", the published splits of QM9; None splits by hash.
        raw: Where QM9's files lie, or are to lie.
        properties: Properties to keep; none keeps those of QM9 where a file has them.
        quiet: No progress bar.
    """

    geometry: Geometry | None = None
    seed: int = 0
    conformers: int = 1
    charge: int = 0
    add_hydrogens: bool = False
    limit: int | None = None
    split: str | None = None
    raw: Path = Path("qm9-raw")
    properties: tuple[str, ...] = ()
    quiet: bool = True


def collect(names: Sequence[str], wanted: Wanted) -> list[tuple[Source, Split | None]]:
    """Opens what was named: paths, `train=PATH` and the like, or `qm9`.

    Args:
        names: As on the command line.
        wanted: How to read them.

    Raises:
        InputError: If a file is missing or of no known format, a split does not go with what was named,
            or a property is in no file.
    """
    if wanted.split is not None and wanted.split not in NAMED:
        raise InputError(f"--split {wanted.split}: expected {' or '.join(NAMED)}; without it, molecules split by hash")
    out: list[tuple[Source, Split | None]] = []
    for name in names:
        side, given, rest = name.partition("=")
        split = next((one for one in splits.SPLITS if given and one == side), None)
        path = Path(name if split is None else rest)
        source = _qm9(wanted) if name == "qm9" and not path.exists() else _opened(path, wanted)
        source = with_properties(source, wanted.properties)
        if wanted.split is None:
            out.append((source, split))
        elif split is None:
            out += named_splits(source, NAMED[wanted.split], _uncharacterised(wanted))
        else:
            raise InputError(f"{name} with --split {wanted.split}: a file of one split is not split again")
    missing([source for source, _ in out], wanted.properties)
    return out


def read_vocabulary(text: str, charges: str | None = None) -> Vocabulary:
    """A vocabulary by name, or of listed elements.

    Args:
        text: "qm9", "drugs", or elements such as H,C,N,O.
        charges: Formal charges such as -1,0,1; None takes those of the name, or -1, 0 and 1.

    Raises:
        InputError: If an element or a charge is none.
    """
    base = VOCABULARIES.get(text)
    symbols = base.symbols if base else tuple(part.strip() for part in text.split(","))
    if charges is None:
        return Vocabulary(symbols, base.charges if base else (-1, 0, 1))
    try:
        return Vocabulary(symbols, tuple(int(part) for part in charges.split(",")))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--charges {charges}: expected whole numbers, such as -1,0,1") from error


def read_shares(text: str) -> Shares:
    """The parts of train, valid and test, written as 0.9,0.05,0.05.

    Raises:
        InputError: If it is written otherwise, or they do not sum to 1.
    """
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--shares {text}: expected three numbers, such as 0.9,0.05,0.05") from error
    return Shares(train, valid, test)


def checked_geometry(text: str | None) -> Geometry | None:
    """One of `GEOMETRIES`, or None.

    Raises:
        InputError: If it is another word.
    """
    found = next((geometry for geometry in GEOMETRIES if geometry == text), None)
    if text is not None and found is None:
        raise InputError(f"--geometry {text}: expected one of {', '.join(GEOMETRIES)}")
    return found


def _opened(path: Path, wanted: Wanted) -> Source:
    return open_source(
        path,
        wanted.geometry,
        seed=wanted.seed,
        conformers=wanted.conformers,
        charge=wanted.charge,
        add_hydrogens=wanted.add_hydrogens,
        limit=wanted.limit,
    )


def _qm9(wanted: Wanted) -> Source:
    if wanted.geometry not in (None, "dft-b3lyp"):
        raise InputError(f"QM9 with --geometry {wanted.geometry}: its geometry is dft-b3lyp; leave it out")
    outside = _uncharacterised(wanted)
    return qm9_archive(_fetched(QM9_ARCHIVE, wanted), outside, wanted.limit)


def _uncharacterised(wanted: Wanted) -> list[int]:
    return read_uncharacterised(_fetched(QM9_UNCHARACTERISED, wanted))


def _fetched(remote: Remote, wanted: Wanted) -> Path:
    columns = (TextColumn(remote.name), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=wanted.quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=remote.size)
        return fetch(remote, wanted.raw, lambda size: bar.advance(task, size))
