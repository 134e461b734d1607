"""reed-molecule: 3D molecules, by representation-guided diffusion of coordinates, elements, charges and bonds.

    import reed_molecule
    model = reed_molecule.load("runs/qm9/weights")
    for mol in model.sample(100, steps=50, seed=1):
        print(mol.GetNumAtoms())

`sample` returns sanitised RDKit molecules with hydrogens and one conformer; `complete` grows them from a fragment.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["Generator", "Molecule", "MoleculeSet", "Request", "complete", "load", "read_fragment"]

_HOMES = {
    "Generator": "generate",
    "Request": "generate",
    "load": "generate",
    "complete": "completion",
    "read_fragment": "fragment",
    "Molecule": "molecule",
    "MoleculeSet": "dataset",
}


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that importing the package does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reed_molecule' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"reed_molecule.{_HOMES[name]}"), name)
