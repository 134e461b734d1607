"""XYZ files, one or many molecules in each: plain, multi-frame, or QM9's `dsgdb9nsd_*.xyz`. Bonds are perceived.

A QM9 file has, after the atoms (with a fifth column), a line of frequencies, one of SMILES and one of InChI, and
numbers such as `1.2*^-6`.
"""

from functools import partial
from pathlib import Path

import numpy as np
from rdkit import Chem
from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.readers.bonds import perceived
from reed_molecule.readers.source import Geometry, Job, Source, stem_of, text_of
from reed_molecule.vocabulary import MAX_ATOMIC_NUMBER
from reed_molecule.workers import UnusableError

_GDB = "gdb "
_GDB_TAIL = 3
_TABLE = Chem.GetPeriodicTable()
_NUMBERS = {_TABLE.GetElementSymbol(number): number for number in range(1, MAX_ATOMIC_NUMBER + 1)}


def xyz(path: Path, geometry: Geometry = "file", charge: int = 0, limit: int | None = None) -> Source:
    """Reads an XYZ file, or all `.xyz` of a folder in the order of their names.

    Args:
        path: The file or folder.
        geometry: Where the coordinates come from.
        charge: The total charge of every molecule.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If a file cannot be read, or a count of atoms is missing where one must be.
    """
    files = sorted(path.glob("*.xyz")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"no .xyz file in {path}")
    jobs: list[Job] = []
    for file in files:
        if limit is not None and len(jobs) >= limit:
            break
        frames = frames_of(text_of(file), str(file))
        name = stem_of(file)
        jobs += [(name if len(frames) == 1 else f"{name}_{i}", frame) for i, frame in enumerate(frames)]
    described = f"bonds by RDKit DetermineBonds, charge {charge}"
    return Source(path, geometry, jobs[:limit], partial(parse_frame, charge), described)


def frames_of(text: str, label: str) -> list[list[str]]:
    """The lines of atoms of each molecule of an XYZ text.

    Raises:
        InputError: If a count of atoms is missing where one must be.
    """
    lines = text.splitlines()
    frames, at = [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        word = lines[at].strip()
        if not (word.isascii() and word.isdigit()) or len(word) > 6 or at + 2 + int(word) > len(lines):
            raise InputError(
                f"{label} line {at + 1}: {lines[at][:40]!r}; expected a number of atoms, with that many lines after it"
            )
        end = at + 2 + int(word)
        frames.append(lines[at + 2 : end])
        at = end + (_GDB_TAIL if lines[at + 1].startswith(_GDB) else 0)
    return frames


def parse_frame(charge: int, job: Job) -> Molecule:
    """A molecule of the lines of its atoms.

    Raises:
        UnusableError: If a line is not an atom, or no bonds are found.
    """
    name, lines = job
    numbers, positions = [], []
    for line in lines:
        words = line.replace("*^", "e").split()
        try:
            symbol, place = words[0], [float(word) for word in words[1:4]]
            number = int(symbol) if symbol.isascii() and symbol.isdigit() else _NUMBERS[symbol.capitalize()]
        except (ValueError, IndexError, KeyError) as error:
            raise UnusableError("not readable", f"{name}: {line[:40]!r} is not an element and three numbers") from error
        if len(place) != 3:
            raise UnusableError("not readable", f"{name}: {line[:40]!r} is not an element and three numbers")
        numbers.append(number)
        positions.append(place)
    coords = np.array(positions, dtype=np.float32).reshape(-1, 3)
    return perceived(np.array(numbers, dtype=np.int64), coords, charge, name)
