"""Encoders of molecules: frozen functions from a clean molecule to a representation z (`reed_core.representation`).

x_0 is a mapping of fields in angstrom and c names the molecules (`clean`); mask is True where an atom exists.
"""

from reed_molecule.encoders.arrays import ArrayEncoder
from reed_molecule.encoders.bond_graph import BondGraphConfig, BondGraphEncoder
from reed_molecule.encoders.clean import CleanMolecules, Named
from reed_molecule.encoders.descriptors import RdkitEncoder
from reed_molecule.encoders.equivariant import EquivariantConfig, EquivariantEncoder
from reed_molecule.encoders.network import NetworkEncoder
from reed_molecule.encoders.pairs import PairClasses
from reed_molecule.encoders.standardised import Standardised
from reed_molecule.encoders.symmetry import SymmetryFunctions

__all__ = [
    "ArrayEncoder",
    "BondGraphConfig",
    "BondGraphEncoder",
    "CleanMolecules",
    "EquivariantConfig",
    "EquivariantEncoder",
    "Named",
    "NetworkEncoder",
    "PairClasses",
    "RdkitEncoder",
    "Standardised",
    "SymmetryFunctions",
]
