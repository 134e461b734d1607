"""Encoders of proteins: frozen functions from (sequence, backbone) to a representation z (`reed_core.representation`).

x_0 is a batch of tokens [b, n] (0..19, 20 unknown), c a `NamedBackbone`, mask True where a residue exists.
"""

from reed_protein.encoders.arrays import ArrayEncoder
from reed_protein.encoders.esm2 import EsmAttention, EsmTokens, load_esm2
from reed_protein.encoders.graph import pairs_on_graph
from reed_protein.encoders.structural_alphabet import StructuralAlphabet
from reed_protein.encoders.tables import Contact, Environment, Identity
from reed_protein.encoders.teacher import Teacher

__all__ = [
    "ArrayEncoder",
    "Contact",
    "Environment",
    "EsmAttention",
    "EsmTokens",
    "Identity",
    "StructuralAlphabet",
    "Teacher",
    "load_esm2",
    "pairs_on_graph",
]
