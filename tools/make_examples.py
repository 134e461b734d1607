"""Writes the small inputs of examples/: three real backbones and a scaffold, for the README, tests and benchmarks.

The backbones come from the valid split (`protein/backbones_valid.npz`), so no model of this repository was trained on
them, and are of three folds: 2bjd_A, 90 residues, a ferredoxin-like acylphosphatase; 3eok_B, 146 residues, a globin;
3pr2_A, 266 residues, the TIM barrel of tryptophan synthase. All are whole: no break, no unknown residue. Coordinates
are those of the PDB (CC0) to 0.005 A, shifted to their centroid. Benzamide is a scaffold to grow: atom 1 is its
nitrogen, whose hydrogens may be replaced; coordinates by ETKDG and MMFF94s.

    REED_DATA=../shared/data uv run python tools/make_examples.py
"""

import os
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from reed_core.errors import InputError
from reed_protein.pdb_writer import write_pdb
from reed_protein.structure import Structure, single_chain

ROOT = Path(__file__).parents[1]
SCAFFOLD, SMILES = "benzamide", "NC(=O)c1ccccc1"
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


def scaffold() -> Chem.Mol:
    """Benzamide with hydrogens and coordinates."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=0)
    rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, mmffVariant="MMFF94s", maxIters=2000)
    molecule.SetProp("_Name", SCAFFOLD)
    return molecule


def main() -> None:
    """Writes the examples."""
    path = ROOT / "examples" / f"{SCAFFOLD}.sdf"
    with Chem.SDWriter(str(path)) as writer:
        writer.write(scaffold())
    print(f"{path.relative_to(ROOT)}: {SMILES}")
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
