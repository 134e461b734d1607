"""What every reader gives: jobs that can be read in any process, and how the geometry came about."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.properties import Table

Geometry = Literal["dft-b3lyp", "mmff94s", "file"]
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)

Job = tuple[str, Any]


@dataclass(frozen=True)
class Source:
    """The records of one file.

    Attributes:
        path: The file or folder.
        geometry: Where the coordinates come from: B3LYP optimisation, MMFF94s, or whatever the file holds.
        jobs: One entry per record: its name and what `parse` needs, picklable.
        parse: Module-level function from a job to a molecule. It raises `InputError`, best an `UnusableError`, for a
            record that is not usable.
        described: The settings that change what `parse` gives, for a person and for resuming.
        properties: Named numbers of each record; None where the file was not asked for them.
    """

    path: Path
    geometry: Geometry
    jobs: Sequence[Job]
    parse: Callable[[Job], Molecule]
    described: str = ""
    properties: Table | None = None

    def chosen(self, places: Sequence[int]) -> "Source":
        """Some of its records, in the order given."""
        table = None if self.properties is None else self.properties.rows(places)
        return replace(self, jobs=[self.jobs[place] for place in places], properties=table)


def text_of(path: Path) -> str:
    """The text of a file, decompressed if its name ends in .gz. Bytes that are no UTF-8 are replaced.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", errors="replace")
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; give a path to molecules") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); give a text file, or one compressed by gzip") from error


def stem_of(path: Path) -> str:
    """The name of a file without .gz and without its suffix."""
    return Path(path.name.removesuffix(".gz")).stem
