"""Representations: encoders that make z from clean data, and a cache that keeps z on disk."""

from reed_core.representation.build import CacheBuilder, Items, build_cache
from reed_core.representation.cache import Cache, Shuffled, open_cache
from reed_core.representation.encoder import Encoder, ModuleEncoder, fingerprint_module

__all__ = [
    "Cache",
    "CacheBuilder",
    "Encoder",
    "Items",
    "ModuleEncoder",
    "Shuffled",
    "build_cache",
    "fingerprint_module",
    "open_cache",
]
