"""Representations: encoders that make z from clean data, and a cache that keeps z on disk."""

from reed_core.representation.build import CacheBuilder, Items, build_cache
from reed_core.representation.cache import Cache, Shuffled, open_cache
from reed_core.representation.encoder import Encoder, ModuleEncoder, fingerprint_module
from reed_core.representation.fidelity import Fidelity
from reed_core.representation.identity import named

__all__ = [
    "Cache",
    "CacheBuilder",
    "Encoder",
    "Fidelity",
    "Items",
    "ModuleEncoder",
    "Shuffled",
    "build_cache",
    "fingerprint_module",
    "named",
    "open_cache",
]
