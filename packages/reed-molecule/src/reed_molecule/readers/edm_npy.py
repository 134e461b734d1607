"""The npy table of EDM's GEOM-DRUGS: rows (conformer, atomic number, x, y, z), end to end. Bonds are perceived."""

from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.readers.bonds import perceived
from reed_molecule.readers.source import Geometry, Job, Source


def edm_npy(path: Path, geometry: Geometry = "file", limit: int | None = None) -> Source:
    """Reads neutral molecules. A conformer ends where the number in the first column changes.

    Args:
        path: The npy file.
        geometry: Where the coordinates come from.
        limit: How many conformers to read, from the start; None reads all.

    Raises:
        InputError: If it is not a table of five columns of numbers.
    """
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not an npy file ({error})") from error
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != 5 or table.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected a table of five columns: conformer, atomic number, x, y, z")
    starts = np.flatnonzero(np.diff(table[:, 0], prepend=np.nan) != 0) if len(table) else np.zeros(0, dtype=np.int64)
    ends = np.append(starts[1:], len(table))
    jobs: list[Job] = [
        (f"{path.stem}_{i}", np.array(table[start:end, 1:]))
        for i, (start, end) in enumerate(zip(starts[:limit].tolist(), ends[:limit].tolist(), strict=True))
    ]
    return Source(path, geometry, jobs, _parse, "bonds by RDKit DetermineBonds, charge 0")


def _parse(job: Job) -> Molecule:
    name, rows = job
    numbers = np.nan_to_num(rows[:, 0], nan=0.0).astype(np.int64)
    return perceived(numbers, rows[:, 1:].astype(np.float32), 0, name)
