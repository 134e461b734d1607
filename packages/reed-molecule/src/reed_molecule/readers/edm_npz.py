"""The npz layout of EDM: padded `charges` (atomic numbers), `positions`, `num_atoms`. Bonds are perceived."""

from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.readers.bonds import perceived
from reed_molecule.readers.source import Geometry, Job, Source

KEYS = frozenset({"num_atoms", "charges", "positions"})


def edm_npz(path: Path, geometry: Geometry = "dft-b3lyp", limit: int | None = None) -> Source:
    """Reads neutral molecules: QM9 as EDM packs it.

    Args:
        path: The npz file. An `index` (number in gdb9), if there, names the molecules.
        geometry: Where the coordinates come from.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If the arrays do not fit each other.
    """
    with np.load(path, allow_pickle=False) as data:
        count, numbers, positions = data["num_atoms"], data["charges"], data["positions"]
        index = data["index"] if "index" in data.files else np.arange(len(count))
    if (
        numbers.ndim != 2
        or positions.shape != (*numbers.shape, 3)
        or not len(count) == len(index) == len(numbers)
        or (len(count) and not 0 <= count.min() <= count.max() <= numbers.shape[1])
    ):
        raise InputError(
            f"{path}: charges {numbers.shape}, positions {positions.shape}, num_atoms {count.shape} do not fit; "
            "expected [n, atoms], [n, atoms, 3], [n]"
        )
    jobs = [
        (f"gdb_{number}", (atoms[:n].astype(np.int64), coords[:n].astype(np.float32)))
        for number, n, atoms, coords in zip(
            index[:limit].tolist(), count[:limit], numbers[:limit], positions[:limit], strict=True
        )
    ]
    return Source(path, geometry, jobs, _parse, "bonds by RDKit DetermineBonds, charge 0")


def _parse(job: Job) -> Molecule:
    name, payload = job
    numbers, positions = payload
    return perceived(numbers, positions, 0, name)
