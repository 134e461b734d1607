"""Writes examples/*.pdb: three small real backbones for the README, the tests and the benchmarks.

They come from the valid split (`protein/backbones_valid.npz`), so no model of this repository was trained on them, and
are of three folds: 2bjd_A, 90 residues, a ferredoxin-like acylphosphatase; 3eok_B, 146 residues, a globin; 3pr2_A, 266
residues, the TIM barrel of tryptophan synthase. All are whole: no break, no unknown residue. Coordinates are those of
the PDB (CC0) to 0.005 A, shifted to their centroid.

    REED_DATA=../shared/data uv run python tools/make_examples.py
"""

import os
from pathlib import Path

import numpy as np
from reed_core.errors import InputError
from reed_protein.pdb_writer import write_pdb
from reed_protein.structure import Structure, single_chain

ROOT = Path(__file__).parents[1]
IDS = ("2bjd_A", "3eok_B", "3pr2_A")


def chain(archive: np.lib.npyio.NpzFile, name: str) -> Structure:
    """One chain of an archive of backbones.

    Raises:
        InputError: If it is not there, has a break or an unknown residue.
    """
    places = np.flatnonzero(archive["ids"] == name)
    if not len(places):
        raise InputError(f"{name} is not in the archive; choose another id")
    first, last = archive["offsets"][places[0] : places[0] + 2]
    structure = single_chain(
        name,
        archive["coords"][first:last].astype(np.float32) * archive["scale"],
        str(archive["seqs"][places[0]]),
        name.split("_")[1],
        archive["resnum"][first:last].astype(np.int32),
    )
    if structure.breaks.sum() > 1 or "X" in structure.sequence:
        raise InputError(f"{name} has a break or an unknown residue; choose another id")
    return structure


def main() -> None:
    """Writes the examples."""
    data = Path(os.environ.get("REED_DATA", ROOT.parent / "shared" / "data"))
    with np.load(data / "protein" / "backbones_valid.npz", allow_pickle=False) as archive:
        for name in IDS:
            entry, letter = name.split("_")
            structure = chain(archive, name)
            path = ROOT / "examples" / f"{name}.pdb"
            remarks = (f"PDB ENTRY {entry.upper()} CHAIN {letter}, BACKBONE ONLY, SHIFTED TO ITS CENTROID",)
            write_pdb(structure, path, remarks=remarks)
            print(f"{path.relative_to(ROOT)}: {len(structure)} residues")


if __name__ == "__main__":
    main()
