"""reed-protein: sequences for a backbone, by representation-guided masked diffusion.

    import reed_protein
    model = reed_protein.load()
    structure = reed_protein.read_structure("backbone.pdb")
    for design in model.design(structure, num=8, temperature=0.1, fix="A10-20", omit="C"):
        print(design.score, design.sequence)

What a design can be asked for is in `Controls`; its fields are the keywords of `design`.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["Controls", "Design", "Designer", "Structure", "load", "read_structure", "write_pdb"]

_HOMES = {
    "Controls": "controls",
    "Design": "design",
    "Designer": "design",
    "load": "design",
    "Structure": "structure",
    "read_structure": "structure",
    "write_pdb": "pdb_writer",
}


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that importing the package does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reed_protein' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"reed_protein.{_HOMES[name]}"), name)
