"""Which reader a path needs: by its suffix, and for npz by the arrays in it."""

import zipfile
from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.readers import edm_npz as edm
from reed_molecule.readers import packed_npz as packed
from reed_molecule.readers.edm_npy import edm_npy
from reed_molecule.readers.sdf import sdf
from reed_molecule.readers.smiles import smiles
from reed_molecule.readers.source import GEOMETRIES, Geometry, Source
from reed_molecule.readers.xyz import xyz


def open_source(
    path: Path,
    geometry: Geometry | None = None,
    seed: int = 0,
    conformers: int = 1,
    charge: int = 0,
    add_hydrogens: bool = False,
    limit: int | None = None,
) -> Source:
    """Opens molecules of any known format.

    Args:
        path: `.npz` (EDM or packed), `.npy` (EDM's GEOM), `.sdf`, `.mol`, `.xyz`, `.smi` or `.smiles`, text also
            `.gz`, or a folder of `.xyz`.
        geometry: Where the coordinates come from; None takes what the format is known for.
        seed: Seeds the embedding of SMILES.
        conformers: Conformers made of each SMILES.
        charge: Total charge of each molecule of an XYZ file.
        add_hydrogens: Place hydrogens that an SDF lacks.
        limit: How many records to read, from the start; None reads all.

    Raises:
        InputError: If there is no such file, or its format is not known.
    """
    if not path.exists():
        raise InputError(f"no file {path}; give a path to molecules")
    if geometry is not None and geometry not in GEOMETRIES:
        raise InputError(f"geometry {geometry!r}: expected one of {', '.join(GEOMETRIES)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: expected at least 1")
    if conformers < 1:
        raise InputError(f"conformers {conformers}: expected at least 1")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_dir() or suffix == ".xyz":
        return xyz(path, geometry or "file", charge, limit)
    if suffix in (".sdf", ".mol", ".sd"):
        return sdf(path, geometry or "file", add_hydrogens, limit)
    if suffix in (".smi", ".smiles"):
        if geometry not in (None, "mmff94s"):
            raise InputError(f"{path}: the geometry of SMILES is made here, by MMFF94s; leave `geometry` out")
        return smiles(path, seed, conformers, limit)
    if path.suffix.lower() == ".npy":
        return edm_npy(path, geometry or "file", limit)
    if path.suffix.lower() == ".npz":
        keys = _keys(path)
        if keys >= edm.KEYS:
            return edm.edm_npz(path, geometry or "dft-b3lyp", limit)
        if keys >= packed.KEYS:
            return packed.packed_npz(path, geometry or "mmff94s", limit)
        raise InputError(
            f"{path} holds {', '.join(sorted(keys)) or 'nothing'}; expected {', '.join(sorted(edm.KEYS))} or "
            f"{', '.join(sorted(packed.KEYS))}"
        )
    raise InputError(
        f"{path}: expected .npz, .npy, .sdf, .mol, .xyz, .smi, .smiles (or .gz of a text one), or a folder"
    )


def _keys(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return set(data.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} is not an npz file ({error})") from error
