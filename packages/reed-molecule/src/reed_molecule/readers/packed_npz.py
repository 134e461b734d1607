"""The packed npz layout: `z`, `charge`, `pos`, `bonds` of all molecules end to end, with `offsets`, `bond_offsets`.

`bonds` has i, j within the molecule and twice the bond order: 2 single, 3 aromatic, 4 double, 6 triple.
"""

from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.molecule import Molecule
from reed_molecule.readers.bonds import checked
from reed_molecule.readers.source import Geometry, Job, Source
from reed_molecule.vocabulary import AROMATIC, DOUBLE, SINGLE, TRIPLE
from reed_molecule.workers import UnusableError

KEYS = frozenset({"z", "pos", "bonds", "offsets", "bond_offsets"})
_CLASS_OF_TWICE = np.zeros(256, dtype=np.int64)
_CLASS_OF_TWICE[[2, 3, 4, 6]] = SINGLE, AROMATIC, DOUBLE, TRIPLE


def packed_npz(path: Path, geometry: Geometry = "mmff94s", limit: int | None = None) -> Source:
    """Reads molecules whose bonds are given.

    Args:
        path: The npz file. Without `charge` all formal charges are 0; without `scale`, `pos` is in angstrom.
        geometry: Where the coordinates come from.
        limit: How many to read, from the start; None reads all.

    Raises:
        InputError: If the arrays do not fit each other.
    """
    with np.load(path, allow_pickle=False) as data:
        z, pos, bonds, at, bonds_at = (data[key] for key in ("z", "pos", "bonds", "offsets", "bond_offsets"))
        charge = data["charge"] if "charge" in data.files else np.zeros(len(z), dtype=np.int64)
        scale = np.float32(data["scale"]) if "scale" in data.files else np.float32(1)
    if (
        pos.shape != (len(z), 3)
        or bonds.ndim != 2
        or bonds.shape[1] != 3
        or charge.shape != z.shape
        or not _cover(at, len(z))
        or not _cover(bonds_at, len(bonds))
        or len(at) != len(bonds_at)
    ):
        raise InputError(f"{path}: z, charge, pos, bonds and their offsets do not fit each other")
    total = len(at) - 1 if limit is None else min(limit, len(at) - 1)
    jobs: list[Job] = []
    for i in range(total):
        atoms, pairs = slice(at[i], at[i + 1]), slice(bonds_at[i], bonds_at[i + 1])
        classed = bonds[pairs].astype(np.int64)
        classed[:, 2] = _CLASS_OF_TWICE[classed[:, 2].clip(0, 255)]
        coords = pos[atoms].astype(np.float32) * scale
        jobs.append((f"{path.stem}_{i}", (z[atoms].astype(np.int64), coords, charge[atoms].astype(np.int64), classed)))
    return Source(path, geometry, jobs, _parse, "bonds as given")


def _cover(offsets: np.ndarray, total: int) -> bool:
    return bool(
        offsets.ndim == 1
        and len(offsets) >= 1
        and offsets[0] == 0
        and offsets[-1] == total
        and (np.diff(offsets) >= 0).all()
    )


def _parse(job: Job) -> Molecule:
    name, payload = job
    numbers, positions, charges, bonds = payload
    if (bonds[:, 2] == 0).any():
        raise UnusableError("not a molecule", f"{name}: a bond order that is not single, aromatic, double or triple")
    return checked(Molecule(numbers, positions, charges, bonds, name).to_rdkit(), name)
